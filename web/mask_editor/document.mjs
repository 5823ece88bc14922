// A mask under a person's hands: what changes it goes through its history. No page in here.
import { History } from "./history.mjs?v=0.1.0";
import { cut } from "./rect.mjs?v=0.1.0";
import { Stroke } from "./stroke.mjs?v=0.1.0";

/** How a region changes the mask: it is learned, is ignored, or alone is learned. */
export const COMBINES = ["add", "remove", "replace"];

export class MaskDocument {
  /** @param {(rect) => void} onChange told of every rectangle whose levels have changed. */
  constructor(levels, width, height, onChange = () => {}) {
    Object.assign(this, { levels, width, height, onChange });
    this.history = new History(levels, width, height);
    this.saved = this.history.state;
    this.startedFull = levels.every((level) => level === 255);
    this.drawing = null;
    // Called after every step that changed something.
    this.onStep = () => {};
  }

  /** Takes other levels, those of another frame; the steps of before are not its own. */
  reset(levels, { isFresh = false } = {}) {
    this.levels.set(levels);
    this.history = new History(this.levels, this.width, this.height);
    this.markSaved();
    this.startedFull = isFresh && this.levels.every((level) => level === 255);
    this.tell(this.all);
  }

  /** Ends the step under way: the rectangle that it changed, or null. */
  finish() {
    const rect = this.history.commit();
    if (rect) this.onStep();
    return rect;
  }

  get all() {
    return { left: 0, top: 0, right: this.width, bottom: this.height };
  }

  get unsaved() {
    return this.history.state !== this.saved;
  }

  /**
   * Whether everything is learned because nobody has said otherwise yet, as for a picture without a mask. To learn
   * something then means to learn it alone: together with all the rest it is learned already.
   */
  get untouched() {
    return this.startedFull && !this.history.canUndo;
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
    return (this.drawing = new Stroke(this.history, tip, { alone: tip.value > 0 && this.untouched }));
  }

  draw(stroke, x, y, radius) {
    this.tell(stroke.to(x, y, radius));
  }

  /** Ends the stroke: "changed", "alone" where only it is learned now, or why nothing changed, as a text's key. */
  commit() {
    const { alone, met, differed, tip } = this.drawing;
    if (!met) {
      this.cancel();
      return "missed";
    }
    if (this.finish()) return alone ? "alone" : "changed";
    if (differed && !alone) return "faint";
    return tip.value ? "learned" : "ignored";
  }

  cancel() {
    this.tell(this.history.cancel());
  }

  /** Changes the mask by a region, as one step; `opacity` 0 to 1. Gives what `commit` gives. */
  apply(region, { combine = "add", opacity = 1 } = {}) {
    if (!region.data.some((share) => share > 0)) return "nothing";
    const alone = combine === "add" && this.untouched;
    if (this.combine(region, alone ? "replace" : combine, opacity)) return alone ? "alone" : "changed";
    return { add: "learned", remove: "ignored", replace: "same" }[combine];
  }

  /** As `apply`, in place of the last step; told as a step also where the mask is then as it was before that. */
  applyAnew(region, options) {
    this.undo();
    const outcome = this.apply(region, options);
    if (!["changed", "alone"].includes(outcome)) this.onStep();
    return outcome;
  }

  combine(region, combine, opacity) {
    const { left, top, width, height, data } = region;
    const inside = (x, y) => x >= left && y >= top && x < left + width && y < top + height;
    const share = (x, y) => data[(y - top) * width + x - left] / 255;
    if (combine === "replace") {
      return this.change(this.all, (old, x, y) => Math.round(old + ((inside(x, y) ? 255 * share(x, y) : 0) - old) * opacity));
    }
    const value = combine === "add" ? 255 : 0;
    const box = { left, top, right: left + width, bottom: top + height };
    return this.change(box, (old, x, y) => Math.round(old + (value - old) * share(x, y) * opacity));
  }

  invert() {
    return this.change(this.all, (old) => 255 - old);
  }

  fill(value) {
    return this.change(this.all, () => value);
  }

  /** Takes over other levels as one step; like `change`, gives the rectangle that changed, or null. */
  replace(levels) {
    const { history } = this;
    history.begin();
    for (const index of history.tiles(this.all)) {
      history.before(index);
      history.rows(index, (from, to) => this.levels.set(levels.subarray(from, to), from));
    }
    return this.tell(this.finish());
  }

  change(rect, level) {
    const { history, levels, width } = this;
    const part = cut(rect, this.all);
    if (!part) return null;
    history.begin();
    for (const index of history.tiles(part)) {
      history.before(index);
      const tile = cut(part, history.tile(index));
      for (let y = tile.top; y < tile.bottom; y++) {
        for (let x = tile.left, i = y * width + x; x < tile.right; x++, i++) levels[i] = level(levels[i], x, y);
      }
    }
    return this.tell(this.finish());
  }

  tell(rect) {
    if (rect) this.onChange(rect);
    return rect;
  }
}
