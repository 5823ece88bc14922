// Undo and redo without limit: of each step only the tiles that it changed are kept, as packed differences.
import { pack, unpack } from "./rle.mjs?v=0.1.0";
import { join } from "./rect.mjs?v=0.1.0";

export const TILE = 256;

export class History {
  /** @param {Uint8Array} levels the mask, width × height; steps change it in place. */
  constructor(levels, width, height) {
    Object.assign(this, { levels, width, height });
    this.across = Math.ceil(width / TILE);
    this.steps = [];
    this.at = 0;
    this.made = 0;
    this.open = null;
  }

  /** Stands for the present state: equal after a step was undone and done again. */
  get state() {
    return this.at ? this.steps[this.at - 1].id : 0;
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.steps.length;
  }

  /** Bytes that the steps take. */
  get bytes() {
    return this.steps.reduce((sum, step) => sum + step.tiles.reduce((all, tile) => all + tile.packed.length, 0), 0);
  }

  /** Starts a step; one that is under way is given up. */
  begin() {
    this.cancel();
    this.open = new Map();
  }

  /** The rectangle of a tile. */
  tile(index) {
    const left = (index % this.across) * TILE;
    const top = Math.floor(index / this.across) * TILE;
    return { left, top, right: Math.min(this.width, left + TILE), bottom: Math.min(this.height, top + TILE) };
  }

  /** Indices of the tiles that a rectangle, within the mask, touches. */
  tiles({ left, top, right, bottom }) {
    const found = [];
    for (let y = Math.floor(top / TILE); y * TILE < bottom; y++) {
      for (let x = Math.floor(left / TILE); x * TILE < right; x++) found.push(y * this.across + x);
    }
    return found;
  }

  /** A tile as it was before the step, which may now change it. */
  before(index) {
    let copy = this.open.get(index);
    if (!copy) this.open.set(index, (copy = this.copy(index)));
    return copy;
  }

  /** Ends the step: the rectangle that it changed, null where it changed nothing, which is no step. */
  commit() {
    const tiles = [];
    for (const [index, before] of this.open) {
      const now = this.copy(index);
      let changed = false;
      for (let i = 0; i < now.length; i++) {
        now[i] ^= before[i];
        changed ||= now[i] !== 0;
      }
      if (changed) tiles.push({ index, packed: pack(now) });
    }
    this.open = null;
    if (!tiles.length) return null;
    this.steps.length = this.at;
    this.steps.push({ id: ++this.made, tiles });
    this.at++;
    return this.rectangle(tiles);
  }

  /** Takes back the step under way: the rectangle that it may have changed, null without one. */
  cancel() {
    if (!this.open) return null;
    const tiles = [...this.open].map(([index, before]) => {
      this.rows(index, (from, to, at) => this.levels.set(before.subarray(at, at + to - from), from));
      return { index };
    });
    this.open = null;
    return this.rectangle(tiles);
  }

  /** Takes back a step: the changed rectangle, null if there is none. */
  undo() {
    return this.canUndo && !this.open ? this.flip(this.steps[--this.at]) : null;
  }

  redo() {
    return this.canRedo && !this.open ? this.flip(this.steps[this.at++]) : null;
  }

  flip(step) {
    for (const { index, packed } of step.tiles) {
      const { left, top, right, bottom } = this.tile(index);
      const change = unpack(packed, (right - left) * (bottom - top));
      this.rows(index, (from, to, at) => {
        for (let i = from; i < to; i++) this.levels[i] ^= change[at + i - from];
      });
    }
    return this.rectangle(step.tiles);
  }

  copy(index) {
    const { left, top, right, bottom } = this.tile(index);
    const copy = new Uint8Array((right - left) * (bottom - top));
    this.rows(index, (from, to, at) => copy.set(this.levels.subarray(from, to), at));
    return copy;
  }

  /** Calls with the first and last place in the mask of each row of a tile, and its first place in the tile. */
  rows(index, call) {
    const { left, top, right, bottom } = this.tile(index);
    for (let y = top; y < bottom; y++) call(y * this.width + left, y * this.width + right, (y - top) * (right - left));
  }

  rectangle(tiles) {
    return tiles.map(({ index }) => this.tile(index)).reduce(join, null);
  }
}
