// The table of a run's pictures, worst first; a click opens one in the data set browser, where it is open there.
import { percent } from "../../dataset/rows.mjs?v=0.1.0";
import { DatasetDialog, thumbnailLook } from "../../dataset/dialog.mjs?v=0.1.0";
import { loadLook } from "../../dataset/look.mjs?v=0.1.0";
import { DatasetSource } from "../../dataset/source.mjs?v=0.1.0";
import { LARGE_VIEWS } from "../../dataset/viewer.mjs?v=0.1.0";
import { button, make, say } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";
import { isLive, number } from "../describe.mjs?v=0.1.0";
import { titleOf } from "../kept/marks.mjs?v=0.1.0";
import { LEAKS } from "../verdict.mjs?v=0.1.0";
import { COLUMNS, FEW, falls, sorted } from "./rows.mjs?v=0.1.0";

const PAGE = 100;
const REFRESH_MS = 5000;

export class PictureTable {
  /**
   * @param {{api, store: RunStore, run: object, edit?: function}} options edit opens the mask editor, see DatasetDialog.
   */
  constructor({ api, store, run, edit = null }) {
    Object.assign(this, { api, store, run, edit });
    this.rows = [];
    this.order = { column: "relative", down: true };
    this.shown = PAGE;
    this.look = thumbnailLook(loadLook(LARGE_VIEWS));
    this.element = this.build();
    this.element.addEventListener("close", () => this.leave());
    // What is typed here is meant for the table, not for the graph behind it.
    this.element.addEventListener("keydown", (event) => event.stopPropagation());
  }

  open() {
    document.body.append(this.element);
    this.element.showModal();
    this.timer = setInterval(() => this.tick(), REFRESH_MS);
    this.refresh();
    return this;
  }

  leave() {
    clearInterval(this.timer);
    this.element.remove();
  }

  build() {
    this.about = make("p", { className: "mlt-note" });
    this.state = make("p", { className: "mlt-note", role: "status" });
    this.heads = new Map(COLUMNS.map((column) => [column, this.head(column)]));
    this.body = make("tbody");
    this.more = button("", "", () => {
      this.shown += PAGE;
      this.draw();
    });
    const title = text("runs.table.title", { name: titleOf(this.run) });
    const close = button(text("dataset.close"), `${text("dataset.close")} (Esc)`, () => this.element.close());
    this.table = make(
      "table",
      { className: "mlt-table" },
      make("thead", {}, make("tr", {}, ...[...this.heads.values()].map((one) => one.cell))),
      this.body,
    );
    return make(
      "dialog",
      { className: "mlt mlt-dialog mlt-picture-table", "aria-label": title },
      make("div", { className: "mlt-row mlt-dialog-head" }, make("strong", { className: "mlt-title" }, title), close),
      this.about,
      this.state,
      make("div", { className: "mlt-table-space", tabIndex: 0 }, this.table, this.more),
    );
  }

  head(column) {
    const sort = button(text(`runs.table.column.${column}`), text(`runs.table.hint.${column}`), () => this.sort(column));
    return { cell: make("th", { scope: "col" }, sort), sort };
  }

  sort(column) {
    const same = this.order.column === column;
    this.order = { column, down: same ? !this.order.down : falls(column) };
    this.draw();
  }

  /** While it trains there are new showings by and by. */
  tick() {
    if (!document.hidden && isLive(this.store.run(this.run.id))) this.refresh();
  }

  async refresh() {
    try {
      const { rows, recent } = await this.store.picturesOf(this.run.id);
      this.rows = rows;
      say(this.about, rows.some((row) => row.showings) ? text("runs.table.about", { recent }) : text("runs.table.none"));
      this.draw();
    } catch (error) {
      say(this.state, text("runs.failed", { reason: error.message }));
    }
  }

  draw() {
    const { column, down } = this.order;
    for (const [name, { cell, sort }] of this.heads) {
      cell.setAttribute("aria-sort", name !== column ? "none" : down ? "descending" : "ascending");
      sort.dataset.order = name !== column ? "" : down ? "▼" : "▲";
    }
    const rows = sorted(this.rows, column, down);
    const focused = document.activeElement?.dataset.name;
    this.body.replaceChildren(...rows.slice(0, this.shown).map((row) => this.line(row)));
    const left = rows.length - this.shown;
    this.table.hidden = !rows.length;
    this.more.hidden = left <= 0;
    say(this.more, left > 0 ? text("runs.table.more", { count: Math.min(left, PAGE) }) : "");
    // A new draw shall not take away what somebody has walked to.
    if (focused) this.openerOf(focused)?.focus();
  }

  openerOf(name) {
    return [...this.body.querySelectorAll("button")].find((one) => one.dataset.name === name);
  }

  line(row) {
    const few = row.showings > 0 && row.showings < FEW;
    const value = (words, hint = "") => make("td", { className: few ? "mlt-note" : "", title: hint }, words);
    return make(
      "tr",
      {},
      make("td", {}, this.opener(row)),
      value(row.relative === null ? "–" : `${row.relative.toFixed(2)} ×`, few ? text("runs.table.few") : ""),
      value(number(row.loss)),
      value(String(row.showings)),
      value(row.coverage === null ? "–" : percent(row.coverage)),
      make("td", { className: row.leak > LEAKS ? "mlt-bad" : "" }, number(row.leak)),
    );
  }

  opener(row) {
    const source = this.thumbnail(row);
    const picture = source ? make("img", { src: source, alt: "", loading: "lazy", decoding: "async" }) : "";
    const hint = text(row.opened ? "runs.table.openHint" : "runs.table.whereHint", row);
    const open = make(
      "button",
      { type: "button", className: "mlt-picture", title: hint, onclick: () => this.show(row) },
      make("span", { className: "mlt-picture-frame" }, picture),
      make("span", {}, row.name),
    );
    open.dataset.name = row.name;
    return open;
  }

  /** With its mask where the picture is open in a data set browser, else the file alone; nothing where it has none. */
  thumbnail({ number: of, file, opened }) {
    if (opened) {
      const { dataset, picture: index, stamp } = opened;
      return new DatasetSource(this.api, dataset).thumbnail({ index, stamp }, { ...this.look, side: 96 });
    }
    return file ? this.store.runPictureUrl(this.run.id, of) : "";
  }

  async show(row) {
    if (!row.opened) {
      say(this.state, text(row.file ? "runs.table.elsewhere" : "runs.table.nowhere", row));
      return;
    }
    const source = new DatasetSource(this.api, row.opened.dataset);
    await source.refresh();
    if (!source.rows.length) {
      say(this.state, source.problem);
      return;
    }
    say(this.state, "");
    const dialog = new DatasetDialog({ source, index: row.opened.picture, edit: this.edit }).open();
    // The mask may have been changed there.
    dialog.element.addEventListener("close", async () => {
      await this.refresh();
      this.openerOf(row.name)?.focus();
    });
  }
}

/** A button that opens the table of the run that `choose` gives. @param page see `RunActions`. */
export function tableButton(page, choose) {
  return button(text("runs.table.button"), text("runs.table.buttonHint"), () => page.pictures(choose()));
}
