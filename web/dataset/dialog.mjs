// The larger view of a data set: list, one picture large, its facts, the statistics of all.
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { AUTOMATIC } from "../page/tint.mjs?v=0.1.0";
import { stepOf } from "../clips/pace.mjs?v=0.1.0";
import { CaptionEditor } from "./captions/caption_editor.mjs?v=0.1.0";
import { CaptionsPanel } from "./captions/panel.mjs?v=0.1.0";
import { ClipView } from "./clip_view.mjs?v=0.1.0";
import { chooser, offerPairs, tintControls, viewButtons } from "./controls.mjs?v=0.1.0";
import { facts } from "./facts.mjs?v=0.1.0";
import { ThumbnailList } from "./list.mjs?v=0.1.0";
import { keepLook, loadLook } from "./look.mjs?v=0.1.0";
import { choose, counts, neighbour, percent } from "./rows.mjs?v=0.1.0";
import { statistics } from "./statistics.mjs?v=0.1.0";
import { LARGE_VIEWS, Viewer } from "./viewer.mjs?v=0.1.0";

const TILE = 120;
const THUMBNAIL_VIEWS = new Set(["overlay", "mask", "cut-out", "latent grid", "picture", "pair"]);

/** What a thumbnail shows while the large picture shows `view`. */
export function thumbnailLook(look) {
  return { ...look, view: THUMBNAIL_VIEWS.has(look.view) ? look.view : "picture", side: 192 };
}

export class DatasetDialog {
  /**
   * @param {{source: DatasetSource, index: number, edit?: (row, source, walk) => Promise<void>}} options index: the
   *   picture to begin with; edit opens the mask editor.
   */
  constructor({ source, index = 0, edit = null }) {
    Object.assign(this, { source, edit });
    this.look = loadLook(LARGE_VIEWS);
    this.index = index;
    this.at = 0;
    this.viewer = new Viewer(source, () => this.showTint());
    this.clip = new ClipView(source, this.viewer);
    this.tint = tintControls(this.look, (part) => this.setLook(part));
    this.caption = new CaptionEditor(source);
    this.list = new ThumbnailList({
      wanted: TILE,
      picture: (row) => this.source.thumbnail(row, thumbnailLook(this.look)),
      onOpen: (row) => this.go(row.index),
      onChoose: (row) => this.go(row.index),
    });
    this.captions = new CaptionsPanel(source, {
      shown: () => this.list.rows.map((row) => row.index),
      before: () => this.caption.store(),
      onFilter: () => this.filter(),
    });
    this.element = this.build();
    this.leave = source.listen(() => this.update());
    this.element.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.leaveIt();
    });
    this.element.addEventListener("close", () => this.close());
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  open() {
    document.body.append(this.element);
    this.element.showModal();
    this.update();
    this.showTint();
    this.list.element.focus();
    return this;
  }

  /** Closes once the caption that was written is saved. */
  leaveIt() {
    if (this.caption.changed) this.caption.store().then((done) => done && this.element.close());
    else this.element.close();
  }

  close() {
    this.leave();
    this.list.destroy();
    this.captions.destroy();
    this.clip.destroy();
    this.viewer.destroy();
    this.element.remove();
  }

  build() {
    this.title = make("strong", { className: "mlt-title" });
    this.state = make("span", { className: "mlt-note", role: "status" });
    this.stats = make("div", { className: "mlt-stats", hidden: true });
    this.statsButton = button(text("dataset.statistics"), text("dataset.statisticsHint"), () => this.toggleStatistics());
    this.statsButton.setAttribute("aria-pressed", "false");
    this.captionsButton = button(text("dataset.tags.title"), text("dataset.tags.titleHint"), () => this.toggleCaptions());
    this.captionsButton.setAttribute("aria-pressed", "false");
    this.facts = make("div", { className: "mlt-facts" });
    this.views = viewButtons(LARGE_VIEWS, this.look.view, (view) => this.setLook({ view }));
    this.chooser = chooser(() => this.filter());
    const close = button(text("dataset.close"), `${text("dataset.close")} (Esc)`, () => this.leaveIt());
    this.body = make(
      "div",
      { className: "mlt-dialog-body" },
      make("div", { className: "mlt-dialog-list" }, this.chooser.element, this.list.element),
      this.captions.element,
      make(
        "div",
        { className: "mlt-dialog-picture" },
        make("div", { className: "mlt-row" }, this.views.element, this.tint.element),
        this.viewer.element,
        this.clip.element,
      ),
      make("aside", { className: "mlt-dialog-facts", "aria-label": text("dataset.facts") }, this.facts, this.caption.element, this.actions(), this.stats),
    );
    return make(
      "dialog",
      { className: "mlt mlt-dialog", "aria-label": text("dataset.title") },
      make("div", { className: "mlt-row mlt-dialog-head" }, this.title, this.state, this.captionsButton, this.statsButton, close),
      this.body,
    );
  }

  actions() {
    this.editButton = button(text("dataset.edit"), text("dataset.editHint"), () => this.openEditor());
    this.editButton.hidden = !this.edit;
    return make(
      "div",
      { className: "mlt-row" },
      button(text("dataset.previous"), text("dataset.previousHint"), () => this.step(-1)),
      button(text("dataset.next"), text("dataset.nextHint"), () => this.step(1)),
      this.editButton,
    );
  }

  update() {
    const { source } = this;
    say(this.title, text("dataset.count", { count: source.facts?.count ?? 0 }));
    say(this.state, this.words());
    if (!source.rows.length) return;
    if (this.version !== source.rows) {
      this.version = source.rows;
      this.index = Math.min(this.index, source.rows.length - 1);
      this.chooser.count(counts(source.rows));
      offerPairs(this.views.element.children, source.rows);
      this.filter();
      this.showPicture();
      this.captions.refresh();
      if (!this.stats.hidden) this.fillStatistics();
    }
  }

  words() {
    const { source } = this;
    if (source.problem) return source.problem;
    if (source.measuring) return text("dataset.measuring", { done: source.facts.measured, count: source.facts.count });
    if (source.facts?.transform) return text("dataset.tryingOut");
    return source.facts && !source.facts.cached ? text("dataset.withoutCache") : "";
  }

  filter() {
    const { passes } = this.captions;
    this.list.show(choose(this.source.rows, this.chooser.state).filter((row) => passes(row.index)));
    this.captions.filtered();
    this.select();
  }

  select() {
    const at = this.list.rows.findIndex((row) => row.index === this.index);
    if (at >= 0) this.at = at;
    this.list.select(this.index);
  }

  /** Goes to a picture once the caption that was written for this one is saved. */
  go(index) {
    if (index === this.index) return;
    if (this.caption.changed) this.caption.store().then((done) => done && this.move(index));
    else this.move(index);
  }

  move(index) {
    this.index = index;
    this.select();
    this.showPicture();
  }

  step(by) {
    const row = neighbour(this.list.rows, this.index, by, this.at);
    if (row) this.go(row.index);
  }

  setLook(part) {
    this.look = { ...this.look, ...part };
    keepLook(this.look);
    clearTimeout(this.thumbnails);
    this.thumbnails = setTimeout(() => this.list.refresh(), 200);
    this.clip.setLook(this.look);
    this.viewer.show(this.index, this.look);
    this.showTint();
  }

  showTint() {
    this.tint.show(this.viewer.colour, this.look.colour === AUTOMATIC);
  }

  async showPicture() {
    const { index } = this;
    this.clip.show(this.source.rows[index], this.look);
    this.viewer.show(index, this.look);
    this.caption.show(index);
    if (this.detail?.index !== index) {
      this.detail = null;
      this.facts.replaceChildren();
    }
    try {
      const detail = await this.source.detail(index);
      if (index !== this.index) return;
      this.detail = detail;
      const row = this.source.rows[index];
      this.facts.replaceChildren(
        ...facts(detail, row, percent, {
          onInfill: (infill) => {
            this.look = { ...this.look, infill };
            this.views.press("infill");
          },
        }),
      );
    } catch (error) {
      say(this.state, error.message);
    }
  }

  async openEditor() {
    const row = this.source.rows[this.index];
    if (!this.edit || !row) return;
    await this.edit(row, this.source, this.walk());
    await this.source.refresh();
    this.editButton.focus();
  }

  /** The list of the pictures, for the mask editor. */
  walk() {
    return {
      neighbour: (index, by) => neighbour(this.list.rows, index, by, this.at),
      placeOf: (index) => {
        const { rows } = this.list;
        const at = rows.findIndex((row) => row.index === index);
        return at < 0 ? null : [at + 1, rows.length];
      },
      arrived: (index) => this.go(index),
    };
  }

  toggleStatistics() {
    this.stats.hidden = !this.stats.hidden;
    this.statsButton.setAttribute("aria-pressed", String(!this.stats.hidden));
    if (!this.stats.hidden) this.fillStatistics();
  }

  toggleCaptions() {
    const open = this.captions.toggle();
    this.body.classList.toggle("mlt-with-captions", open);
    this.captionsButton.setAttribute("aria-pressed", String(open));
  }

  fillStatistics() {
    this.stats.replaceChildren(statistics(this.source.rows, this.source.facts));
  }

  key(event) {
    // What is typed here is meant for the dialog, not for the graph behind it.
    event.stopPropagation();
    const field = event.target.closest("input:not([type=range]):not([type=color]), select, textarea");
    if (!field && this.clip.key(event)) {
      event.preventDefault();
      return;
    }
    // What goes through a clip must not leave the page where there is none.
    if (!field && stepOf(event) !== null) event.preventDefault();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && !event.target.value) {
      event.preventDefault();
      this.leaveIt();
      return;
    }
    const view = LARGE_VIEWS[Number(event.key) - 1];
    if (field) return;
    if (view) this.views.press(view);
    else if (event.key === "n" || event.key === ".") this.step(1);
    else if (event.key === "p" || event.key === ",") this.step(-1);
    else if (event.key === "e") this.openEditor();
    else if (event.key === "c") this.caption.focus();
    else if (event.key === "s") this.toggleStatistics();
    else if (event.key === "t") this.toggleCaptions();
    else if (event.key === "/") this.chooser.search.focus();
    else return;
    event.preventDefault();
  }
}
