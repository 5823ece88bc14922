// Frames of a clip as they are wanted: the one that is looked at first, then those that come next, within a bound.
const AT_ONCE = 3;
const BYTES = 384 * 2 ** 20;

/** How many frames of a size are kept, `most` of usual ones; each has four bytes a pixel, and one of its mask. */
export function fitting([width, height], most) {
  return Math.max(4, Math.min(most, Math.floor(BYTES / (5 * width * height))));
}

export class FrameLoader {
  /**
   * @param {(number, signal: AbortSignal) => Promise<{parts, close?: () => void}>} load gives a frame in whatever form.
   * @param {{most?: number, isShown?: (found) => boolean}} options most: frames that are kept; what is shown is not let
   *   go of.
   */
  constructor(load, { most = 28, isShown = () => false } = {}) {
    Object.assign(this, { load, most, isShown });
    this.known = new Map();
    this.waiting = [];
    this.loading = 0;
  }

  /** A frame that is there, null if it is not. */
  ready(number) {
    return this.known.get(number)?.found ?? null;
  }

  /** Whether a frame is there, or cannot be. */
  settled(number) {
    const entry = this.known.get(number);
    return Boolean(entry && (entry.found || entry.fault));
  }

  /** One frame, now. */
  get(number) {
    return this.begin(number).promise;
  }

  /** Loads what comes next, in this order; what is no longer wanted is given up. */
  ahead(current, numbers) {
    const wanted = new Set([current, ...numbers]);
    for (const [number, entry] of this.known) {
      if (entry.found || entry.fault || wanted.has(number)) continue;
      entry.controller.abort();
      this.known.delete(number);
    }
    this.waiting = numbers.filter((number) => !this.known.has(number));
    this.current = current;
    this.next();
  }

  next() {
    while (this.loading < AT_ONCE && this.waiting.length) this.begin(this.waiting.shift()).promise.catch(() => {});
  }

  begin(number) {
    const before = this.known.get(number);
    if (before && !before.fault) {
      // The most recent ones are kept.
      this.known.delete(number);
      this.known.set(number, before);
      return before;
    }
    const entry = { controller: new AbortController(), found: null, fault: null };
    this.loading += 1;
    entry.promise = this.load(number, entry.controller.signal).then(
      (found) => (entry.found = found),
      (fault) => {
        entry.fault = fault;
        throw fault;
      },
    );
    entry.promise.catch(() => {}).finally(() => {
      this.loading -= 1;
      this.forget();
      this.next();
    });
    this.known.set(number, entry);
    return entry;
  }

  forget() {
    for (const [number, entry] of this.known) {
      if (this.known.size <= this.most) return;
      if (number === this.current || !(entry.found || entry.fault)) continue;
      this.known.delete(number);
      this.close(entry);
    }
  }

  /** A frame that has changed is loaded anew when it is asked for. */
  drop(number) {
    const entry = this.known.get(number);
    if (!entry?.found) return;
    this.known.delete(number);
    this.close(entry);
  }

  close({ found }) {
    if (found && !this.isShown(found)) found.close?.();
  }

  /** Lets go of everything; frames may be asked for anew. */
  empty() {
    this.waiting = [];
    for (const entry of this.known.values()) {
      if (entry.found) this.close(entry);
      else entry.controller.abort();
    }
    this.known.clear();
  }
}
