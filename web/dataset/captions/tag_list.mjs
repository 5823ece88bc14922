// The tags of all captions with their counts: found by name, and clicked to show the pictures with or without them.
import { button, make, say } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";
import { dropDown } from "../controls.mjs?v=0.1.0";
import { listed, nextState, ORDERS, passing, WITH } from "./tags.mjs?v=0.1.0";

// More are found by the search; so many elements are still made at once.
const MOST_LISTED = 300;
const MARKS = { with: "✓", without: "✕" };
const NOTHING = { kind: "tags", names: [], counts: [], pictures: [], left_out: 0 };

export class TagList {
  /**
   * @param source a DatasetSource.
   * @param {{onFilter: () => void, onTag: (name: string) => void}} options onTag is told of a clicked tag.
   */
  constructor(source, { onFilter, onTag }) {
    Object.assign(this, { source, onFilter, onTag });
    this.table = NOTHING;
    this.wanted = new Map();
    this.state = { search: "", order: "count" };
    this.kind = dropDown(text("dataset.tags.kind"), ["tags", "words"].map((key) => [key, text(`dataset.tags.${key}`)]), "tags", (kind) => this.choose(kind));
    const order = dropDown(text("dataset.orderLabel"), ORDERS.map((key) => [key, text(`dataset.tags.order.${key}`)]), "count", (value) => this.change({ order: value }));
    this.search = make("input", { type: "search", className: "mlt-field mlt-search", placeholder: text("dataset.tags.search"), "aria-label": text("dataset.tags.search") });
    this.search.addEventListener("input", () => this.change({ search: this.search.value }));
    this.all = button(text("dataset.tags.all"), text("dataset.tags.all"), () => this.clear());
    this.note = make("div", { className: "mlt-note", role: "status" });
    this.list = make("div", { className: "mlt-words", role: "group", "aria-label": text("dataset.tags.list") });
    this.list.addEventListener("click", (event) => this.click(event.target.closest("[data-name]")));
    this.element = make(
      "div",
      { className: "mlt-word-list" },
      make("div", { className: "mlt-row mlt-chooser" }, this.search, this.kind, order),
      this.note,
      this.list,
      this.all,
    );
  }

  get passes() {
    return passing(this.table, this.wanted);
  }

  /** Asks for the tags; resolves when they are shown. */
  async load() {
    const ticket = (this.ticket = {});
    try {
      const table = await this.source.ask(`/captions/tags${this.chosen ? `?kind=${this.chosen}` : ""}`);
      if (ticket !== this.ticket) return;
      this.table = table;
      this.kind.value = table.kind;
      for (const name of this.wanted.keys()) if (!table.names.includes(name)) this.wanted.delete(name);
      this.show();
      this.onFilter();
    } catch (error) {
      if (ticket === this.ticket) say(this.note, error.message);
    }
  }

  choose(kind) {
    this.chosen = kind;
    this.wanted.clear();
    return this.load();
  }

  change(part) {
    Object.assign(this.state, part);
    this.show();
  }

  /** Every picture again. */
  clear() {
    this.wanted.clear();
    this.show();
    this.onFilter();
  }

  click(row) {
    if (!row) return;
    const { name } = row.dataset;
    const state = nextState(this.wanted.get(name));
    if (state) this.wanted.set(name, state);
    else this.wanted.delete(name);
    this.mark(row);
    this.all.hidden = !this.wanted.size;
    if (state === WITH) this.onTag(name);
    this.onFilter();
  }

  show() {
    const { table } = this;
    const found = listed(table, this.state);
    const shown = found.slice(0, MOST_LISTED);
    this.list.replaceChildren(...shown.map((at) => this.row(table.names[at], table.counts[at])));
    const hidden = found.length - shown.length + table.left_out;
    if (hidden > 0) this.list.append(make("div", { className: "mlt-note" }, text("dataset.tags.more", { count: hidden })));
    this.all.hidden = !this.wanted.size;
    say(this.note, this.words(found.length));
  }

  words(found) {
    if (!found) return text("dataset.tags.none");
    return this.table.kind === "words" ? text("dataset.tags.prose") : "";
  }

  row(name, count) {
    const row = make(
      "button",
      { type: "button", className: "mlt-word", title: text("dataset.tags.hint", { count }) },
      make("span", { className: "mlt-word-mark" }),
      make("span", { className: "mlt-word-name" }, name),
      make("span", { className: "mlt-note" }, String(count)),
    );
    row.dataset.name = name;
    this.mark(row);
    return row;
  }

  mark(row) {
    const state = this.wanted.get(row.dataset.name);
    row.dataset.state = state ?? "";
    row.setAttribute("aria-pressed", String(Boolean(state)));
    row.firstChild.textContent = MARKS[state] ?? "";
    row.firstChild.title = state ? text(`dataset.tags.${state}`) : "";
  }
}
