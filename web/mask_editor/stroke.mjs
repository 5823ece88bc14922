// A stroke of the brush: a soft round tip drawn along straight pieces, never denser than its opacity.
import { cut, join } from "./rect.mjs?v=0.1.0";

/** How dense the tip is at a distance from its middle: 1 within `hardness` of the radius, 0 half a pixel beyond it. */
export function density(distance, radius, hardness) {
  const inner = Math.max(0, hardness * radius - 0.5);
  const outer = radius + 0.5;
  if (distance <= inner) return 1;
  if (distance >= outer) return 0;
  const t = (distance - inner) / (outer - inner);
  return 1 - t * t * (3 - 2 * t);
}

export class Stroke {
  /**
   * @param history its step is begun.
   * @param {{value: number, hardness: number, opacity: number}} tip value 0 to 255 is what is painted; the others 0 to 1.
   * @param {{alone: boolean}} how alone: everything that the stroke does not cover becomes 0 with it.
   */
  constructor(history, tip, { alone = false } = {}) {
    this.history = history;
    this.tip = tip;
    this.alone = alone;
    this.cleared = false;
    // Whether it covers a pixel of the mask, and one that is not yet what is painted.
    this.met = false;
    this.differed = false;
    this.covers = new Map();
    this.last = null;
  }

  /** Draws on to a place (in pixels, 0.5 is the middle of the first); gives the rectangle that changed, or null. */
  to(x, y, radius) {
    const from = this.last ?? { x, y, radius };
    this.last = { x, y, radius };
    const length = Math.hypot(x - from.x, y - from.y);
    // Short pieces, because a slanted one is drawn within its bounding box.
    const pieces = Math.max(1, Math.ceil(length / Math.max(16, 4 * Math.max(radius, from.radius))));
    const at = (t) => ({
      x: from.x + (x - from.x) * t,
      y: from.y + (y - from.y) * t,
      radius: from.radius + (radius - from.radius) * t,
    });
    let changed = null;
    for (let i = 0; i < pieces; i++) changed = join(changed, this.piece(at(i / pieces), at((i + 1) / pieces)));
    return changed;
  }

  piece(a, b) {
    const reach = Math.max(a.radius, b.radius) + 1;
    const box = {
      left: Math.floor(Math.min(a.x, b.x) - reach),
      top: Math.floor(Math.min(a.y, b.y) - reach),
      right: Math.ceil(Math.max(a.x, b.x) + reach),
      bottom: Math.ceil(Math.max(a.y, b.y) + reach),
    };
    const inside = cut(box, { left: 0, top: 0, right: this.history.width, bottom: this.history.height });
    if (!inside) return null;
    const cleared = this.alone && !this.cleared ? this.clear() : null;
    for (const index of this.history.tiles(inside)) this.paint(index, cut(inside, this.history.tile(index)), a, b);
    return join(inside, cleared);
  }

  clear() {
    const { history } = this;
    const all = { left: 0, top: 0, right: history.width, bottom: history.height };
    for (const index of history.tiles(all)) history.before(index);
    history.levels.fill(0);
    this.cleared = true;
    return all;
  }

  paint(index, part, a, b) {
    const { levels, width } = this.history;
    const { value, hardness, opacity } = this.tip;
    const tile = this.history.tile(index);
    const before = this.history.before(index);
    let cover = this.covers.get(index);
    if (!cover) this.covers.set(index, (cover = new Uint8Array(before.length)));
    const [dx, dy, grows] = [b.x - a.x, b.y - a.y, b.radius - a.radius];
    const square = dx * dx + dy * dy;
    for (let y = part.top; y < part.bottom; y++) {
      const py = y + 0.5 - a.y;
      const row = (y - tile.top) * (tile.right - tile.left) - tile.left;
      for (let x = part.left; x < part.right; x++) {
        const px = x + 0.5 - a.x;
        const t = square ? Math.min(1, Math.max(0, (px * dx + py * dy) / square)) : 0;
        const far = Math.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2);
        const dense = Math.round(255 * density(far, a.radius + t * grows, hardness));
        if (dense <= cover[row + x]) continue;
        cover[row + x] = dense;
        const old = this.alone ? 0 : before[row + x];
        this.met = true;
        this.differed ||= old !== value;
        levels[y * width + x] = Math.round(old + (value - old) * (dense / 255) * opacity);
      }
    }
  }
}

/** The radius of the tip: half the size, for a pen in proportion to its pressure. */
export function tipRadius(size, event, usePressure) {
  const pressed = usePressure && event.pointerType === "pen" && event.pressure > 0 ? event.pressure : 1;
  return Math.max(0.5, (size / 2) * pressed);
}
