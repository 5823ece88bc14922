// The draft of a clip's masks as the page knows it: its state, its frames, and what a person changes, one after the
// other. No page in here.
import { FrameLoader } from "../../clips/loader.mjs?v=0.1.0";
import { Conflict } from "../server.mjs?v=0.1.0";

const POLL_MS = 350;
/** Above this share of a mask that is lost from sight a tracked frame should be looked at. */
export const DOUBTFUL = 0.25;

export class ClipDraft {
  /**
   * @param server a ClipServer.
   * @param {{onState: () => void, onFault: (error) => void, isShown?: (found) => boolean}} told onState: the draft has
   *   changed; isShown: whether a frame is on the screen.
   */
  constructor(server, { onState, onFault, isShown, wait = (ms) => new Promise((done) => setTimeout(done, ms)) }) {
    Object.assign(this, { server, onState, onFault, wait });
    this.state = null;
    this.facts = null;
    this.pushing = Promise.resolve(true);
    this.pending = 0;
    // What was drawn on a frame and could not be sent, {number, seen, levels, width, height}.
    this.unsent = null;
    // The stamps of frames as they were sent last from here.
    this.mine = new Map();
    this.closed = false;
    // A frame and its mask; until it moves, the mask is none of a frame.
    this.loader = new FrameLoader((number, signal) => this.load(number, signal), { most: 14, isShown });
  }

  /** Whether each frame has a mask of its own. */
  get moves() {
    return this.state !== null;
  }

  get count() {
    return this.facts.times.length;
  }

  get isTracking() {
    return Boolean(this.state?.tracking);
  }

  get unsaved() {
    // What is tracked may not have reached its first frame yet.
    return this.moves && (this.state.unsaved || this.isTracking || this.pending > 0 || this.unsent !== null);
  }

  /** Whether nobody has drawn anything here yet. */
  get isFresh() {
    return !this.moves || (!this.state.undo && !this.state.redo && !this.state.key_frames.length && !this.pending);
  }

  async open() {
    this.facts = await this.server.facts();
    // What was not saved when the page was left is shown again.
    if (this.facts.moves || this.facts.draft) await this.letMove();
  }

  /** Every frame has a mask of its own from now on; at first the one that there was. */
  async letMove() {
    this.loader.empty();
    this.unsent = null;
    this.mine.clear();
    this.take(await this.server.draft());
    if (this.isTracking) this.poll();
  }

  close() {
    this.closed = true;
    this.loader.empty();
  }

  async load(number, signal) {
    const stamp = this.state?.stamps[number];
    const [picture, levels] = await Promise.all([
      this.server.picture(number, this.facts.stamp, signal),
      this.moves ? this.server.levels(number, stamp, signal) : null,
    ]);
    return { picture, levels, stamp, close: () => picture.close() };
  }

  /** A frame {picture, levels} as it is now, after everything that was changed here. */
  async frame(number) {
    await this.pushing;
    let found = await this.loader.get(number);
    while (this.moves && found.stamp !== this.state.stamps[number]) {
      // It was changed while it was on its way.
      this.loader.drop(number);
      found = await this.loader.get(number);
    }
    return found;
  }

  /**
   * Sends the mask of a frame that was drawn on; many may be under way, in their order.
   * @param {number} seen the stamp of what it was drawn on: what others have made of the frame since is not overwritten.
   */
  push(number, mask, seen) {
    const copy = { levels: mask.levels.slice(), width: mask.width, height: mask.height };
    this.pending += 1;
    const sent = this.pushing.then(async (going) => {
      // Behind one that failed the others make no sense.
      if (!going) {
        if (this.unsent?.number === number) this.unsent = { number, seen, ...copy };
        return false;
      }
      try {
        // What was drawn before, and has been sent meanwhile, is part of it.
        const state = await this.server.setFrame(number, copy, Math.max(seen, this.mine.get(number) ?? 0));
        this.mine.set(number, state.stamps[number]);
        if (this.unsent?.number === number) this.unsent = null;
        this.keep(number, copy.levels, state.stamps[number]);
        this.take(state);
        return true;
      } catch (error) {
        // A frame that was changed elsewhere is shown as it is now; of any other this is all that there is.
        this.unsent = error instanceof Conflict ? null : { number, seen, ...copy };
        await this.refuse(error);
        return false;
      }
    });
    this.pushing = sent.finally(() => {
      this.pending -= 1;
      this.onState();
    });
    this.onState();
    return this.pushing;
  }

  /** Sends once more what could not be sent; whether nothing is left. */
  async settle() {
    if (!(await this.pushing)) return false;
    return this.unsent === null || this.push(this.unsent.number, this.unsent, this.unsent.seen);
  }

  /** Gives up what could not be sent; whether there was anything. */
  giveUpUnsent() {
    const { unsent } = this;
    this.unsent = null;
    return unsent !== null;
  }

  /** The levels of a frame are those that were sent. */
  keep(number, levels, stamp) {
    const found = this.loader.ready(number);
    if (found) Object.assign(found, { levels, stamp });
    this.onKept?.(number, stamp);
  }

  /** What the server says to a change that it does not take; the draft as it is there counts. */
  async refuse(error) {
    this.onFault(error);
    try {
      this.take(await this.server.draft());
    } catch {
      // What it said first matters.
    }
    // Whatever is changed next begins with what is there.
    this.pushing = Promise.resolve(true);
  }

  /** A change of the draft: whether it was taken. */
  async change(what, values = {}) {
    // Without what was drawn last it would not be what the person means.
    if (what !== "track/stop" && !(await this.settle())) return false;
    const { revision } = this.state;
    try {
      this.take(await this.server.change(what, values, revision));
      if (this.isTracking) this.poll();
      return true;
    } catch (error) {
      if (what === "save" && error instanceof Conflict && (await this.isNewest(revision))) throw error;
      await this.refuse(error);
      return false;
    }
  }

  /** Whether the draft is still as it was at a revision: then its file was changed elsewhere. */
  async isNewest(revision) {
    const state = await this.server.draft().catch(() => null);
    return state?.revision === revision;
  }

  /** Gives up what is not saved and begins anew. */
  async revert() {
    await this.pushing;
    const { revision } = this.state;
    await this.server.change("discard", {}, revision);
    await this.letMove();
  }

  /** Looks on while something is tracked. */
  async poll() {
    if (this.polling) return;
    this.polling = true;
    let failed = 0;
    while (this.isTracking && !this.closed && failed < 5) {
      await this.wait(POLL_MS);
      try {
        this.take(await this.server.draft());
        failed = 0;
      } catch (error) {
        failed += 1;
        if (failed === 5) this.onFault(error);
      }
    }
    this.polling = false;
  }

  take(state) {
    // An answer that was overtaken tells of what was.
    if (this.state && state.revision !== undefined && state.revision < this.state.revision) return;
    this.state = state;
    for (const number of [...this.loader.known.keys()]) {
      const found = this.loader.ready(number);
      if (found && found.stamp !== state.stamps[number]) this.loader.drop(number);
    }
    this.onState();
  }
}

/** Which frames a person should look at after tracking: [number, …]. */
export function doubtful(drift) {
  return [...drift.keys()].filter((number) => drift[number] !== null && drift[number] > DOUBTFUL);
}

/** A range of frames in order and within the clip. */
export function rangeOf(first, last, count) {
  const [a, b] = [first, last].map((one) => Math.min(count - 1, Math.max(0, Math.round(Number(one)) || 0)));
  return a <= b ? [a, b] : [b, a];
}

/** The colour of a frame on the timeline by its drift: green, then amber, red where it should be looked at. */
export function driftColour(drift) {
  if (drift === null) return null;
  return drift > DOUBTFUL ? "#d33a2c" : drift > DOUBTFUL / 2 ? "#d9a300" : "#22a55a";
}
