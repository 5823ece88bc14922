// A mask under a person's hands: what changes it goes through its history. No page in here.
import { History } from "./history.js";
import { cut } from "./rect.js";
import { Stroke } from "./stroke.js";

/** How a region changes the mask: it is learned, is ignored, or alone is learned. */
export const COMBINES = ["add", "remove", "replace"];

export class MaskDocument {
  /** @param {(rect) => void} onChange told of every rectangle whose levels have changed. */
  constructor(levels, width, height, onChange = () => {}) {
    Object.assign(this, { levels, width, height, onChange });
    this.history = new History(levels, width, height);
    this.saved = this.history.state;
  }

  get all() {
    return { left: 0, top: 0, right: this.width, bottom: this.height };
  }

  get unsaved() {
    return this.history.state !== this.saved;
  }

  /** The present state is what the server has. */
  markSaved() {
    this.saved = this.history.state;
  }

  undo() {
    return this.tell(this.history.undo());
  }

  redo() {
    return this.tell(this.history.redo());
  }

  /** A stroke to draw on with `draw`, until `commit` or `cancel`. */
  stroke(tip) {
    this.history.begin();
    return new Stroke(this.history, tip);
  }

  draw(stroke, x, y, radius) {
    this.tell(stroke.to(x, y, radius));
  }

  commit() {
    this.history.commit();
  }

  cancel() {
    this.tell(this.history.cancel());
  }

  /** Changes the mask by a region, as one step; `opacity` 0 to 1. */
  apply(region, { combine = "add", opacity = 1 } = {}) {
    const { left, top, width, height, data } = region;
    const inside = (x, y) => x >= left && y >= top && x < left + width && y < top + height;
    const share = (x, y) => data[(y - top) * width + x - left] / 255;
    if (combine === "replace") {
      this.change(this.all, (old, x, y) => Math.round(old + ((inside(x, y) ? 255 * share(x, y) : 0) - old) * opacity));
      return;
    }
    const value = combine === "add" ? 255 : 0;
    const box = { left, top, right: left + width, bottom: top + height };
    this.change(box, (old, x, y) => Math.round(old + (value - old) * share(x, y) * opacity));
  }

  invert() {
    this.change(this.all, (old) => 255 - old);
  }

  fill(value) {
    this.change(this.all, () => value);
  }

  /** Takes over other levels as one step. */
  replace(levels) {
    const { history } = this;
    history.begin();
    for (const index of history.tiles(this.all)) {
      history.before(index);
      history.rows(index, (from, to) => this.levels.set(levels.subarray(from, to), from));
    }
    this.tell(history.commit());
  }

  change(rect, level) {
    const { history, levels, width } = this;
    const part = cut(rect, this.all);
    if (!part) return;
    history.begin();
    for (const index of history.tiles(part)) {
      history.before(index);
      const tile = cut(part, history.tile(index));
      for (let y = tile.top; y < tile.bottom; y++) {
        for (let x = tile.left, i = y * width + x; x < tile.right; x++, i++) levels[i] = level(levels[i], x, y);
      }
    }
    this.tell(history.commit());
  }

  tell(rect) {
    if (rect) this.onChange(rect);
    return rect;
  }
}
