// A grid of thumbnails, however many: only those in view are elements, and only resting ones ask for their picture.
import { make } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { gridOf, heightOf, placeOf, scrollTo, visible } from "./layout.mjs?v=0.1.0";
import { percent } from "./rows.mjs?v=0.1.0";

const CAPTION = 18;
const REST_MS = 90;
const STEPS = { ArrowLeft: -1, ArrowRight: 1 };
let lists = 0;

export class ThumbnailList {
  /**
   * @param {{wanted: number, picture: (row) => string, onOpen: (row) => void, onChoose?: (row) => void}} options
   *   wanted: px of a tile at least; picture gives the URL of a row's thumbnail.
   */
  constructor({ wanted, picture, onOpen, onChoose = () => {} }) {
    Object.assign(this, { wanted, picture, onOpen, onChoose });
    this.rows = [];
    this.current = -1;
    this.tiles = new Map();
    this.spare = [];
    this.id = `mlt-list-${(lists += 1)}`;
    this.space = make("div", { className: "mlt-list-space" });
    this.element = make(
      "div",
      { className: "mlt-list", tabIndex: 0, role: "listbox", "aria-label": text("dataset.pictures") },
      this.space,
    );
    this.element.addEventListener("scroll", () => this.later(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("wheel", (event) => event.stopPropagation(), { passive: true });
    this.space.addEventListener("click", (event) => this.click(event));
    this.observer = new ResizeObserver(() => this.later());
    this.observer.observe(this.element);
  }

  destroy() {
    this.observer.disconnect();
    clearTimeout(this.resting);
  }

  /** Shows `rows`; the chosen picture stays chosen if it is among them. */
  show(rows) {
    const index = this.rows[this.current]?.index;
    this.rows = rows;
    this.current = index === undefined ? -1 : rows.findIndex((row) => row.index === index);
    if (this.current < 0) this.mark();
    this.redraw = true;
    this.later();
  }

  /** Draws all thumbnails anew, in another view. */
  refresh() {
    this.redraw = true;
    this.later();
  }

  /** Chooses the picture of an index and brings it into view. */
  select(index) {
    const position = this.rows.findIndex((row) => row.index === index);
    if (position >= 0) this.choose(position, false);
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.layout();
    });
  }

  layout() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return;
    if (width !== this.width) {
      this.width = width;
      this.grid = gridOf({ width, wanted: this.wanted, caption: CAPTION });
      this.redraw = true;
    }
    const total = heightOf(this.rows.length, this.grid);
    if (total !== this.total) this.space.style.height = `${(this.total = total)}px`;
    const [first, last] = visible(this.rows.length, this.grid, { top: this.element.scrollTop, height });
    for (const [position, tile] of this.tiles) {
      if (position >= first && position < last) continue;
      this.tiles.delete(position);
      tile.hidden = true;
      tile.removeAttribute("id");
      this.spare.push(tile);
    }
    for (let position = first; position < last; position += 1) {
      if (!this.tiles.has(position)) this.tiles.set(position, this.place(this.spare.pop() ?? this.tile(), position));
      else if (this.redraw) this.place(this.tiles.get(position), position);
    }
    this.redraw = false;
    this.mark();
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.load(), REST_MS);
  }

  tile() {
    const tile = make(
      "div",
      { className: "mlt-tile", role: "option" },
      make("img", { alt: "", decoding: "async", draggable: false }),
      make("span", { className: "mlt-tile-text" }),
      make("span", { className: "mlt-tile-mark" }),
    );
    this.space.append(tile);
    return tile;
  }

  place(tile, position) {
    const row = this.rows[position];
    const { x, y } = placeOf(position, this.grid);
    const [picture, label, mark] = tile.children;
    const source = this.picture(row);
    tile.hidden = false;
    tile.id = `${this.id}-${position}`;
    tile.style.transform = `translate(${x}px, ${y}px)`;
    tile.style.width = `${this.grid.side}px`;
    tile.style.height = `${this.grid.side + CAPTION}px`;
    tile.dataset.index = row.index;
    tile.setAttribute("aria-setsize", String(this.rows.length));
    tile.setAttribute("aria-posinset", String(position + 1));
    if (tile.wanted !== source) {
      tile.wanted = source;
      // A picture of before must not stand over another one's name.
      if (picture.dataset.index !== String(row.index)) picture.removeAttribute("src");
    }
    const share = row.hasMask ? percent(row.coverage) : text("dataset.noMask");
    label.textContent = `${row.clip ? "▶ " : ""}${share}  ${row.name.split("/").at(-1)}`;
    mark.textContent = (row.warnings.length ? "⚠" : "") + (row.stale.length ? "↻" : "");
    const kind = row.clip ? [text("dataset.clip")] : [];
    tile.title = [[row.name, ...kind].join(", "), ...row.warnings.map((one) => text(`dataset.warning.${one}`))].join("\n");
    tile.setAttribute("aria-selected", String(position === this.current));
    tile.setAttribute("aria-label", [row.name, ...kind, share, ...row.warnings.map((one) => text(`dataset.warning.${one}`))].join(", "));
    return tile;
  }

  /** Names the chosen tile to a screen reader, while there is one: out of view it is no element. */
  mark() {
    const tile = this.tiles.get(this.current);
    if (tile) this.element.setAttribute("aria-activedescendant", tile.id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  load() {
    for (const tile of this.tiles.values()) {
      const picture = tile.firstChild;
      if (picture.getAttribute("src") === tile.wanted) continue;
      picture.src = tile.wanted;
      picture.dataset.index = tile.dataset.index;
    }
  }

  click(event) {
    const tile = event.target.closest(".mlt-tile");
    if (!tile) return;
    const position = this.rows.findIndex((row) => String(row.index) === tile.dataset.index);
    this.choose(position);
    this.onOpen(this.rows[position]);
  }

  choose(position, tell = true) {
    this.tiles.get(this.current)?.setAttribute("aria-selected", "false");
    this.current = position;
    if (this.grid) {
      const { scrollTop: top, clientHeight: height } = this.element;
      this.element.scrollTop = scrollTo(position, this.grid, { top, height });
      this.layout();
    }
    this.tiles.get(position)?.setAttribute("aria-selected", "true");
    this.mark();
    if (tell) this.onChoose(this.rows[position]);
  }

  key(event) {
    const { columns = 1, rowHeight = 1 } = this.grid ?? {};
    const page = columns * Math.max(1, Math.floor(this.element.clientHeight / rowHeight));
    const last = this.rows.length - 1;
    const step = { ...STEPS, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page }[event.key];
    if (last < 0) return;
    if (step !== undefined) this.choose(Math.min(last, Math.max(0, this.current < 0 ? 0 : this.current + step)));
    else if (event.key === "Home") this.choose(0);
    else if (event.key === "End") this.choose(last);
    else if (event.key === "Enter" && this.current >= 0) this.onOpen(this.rows[this.current]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
