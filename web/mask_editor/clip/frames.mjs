// The frames of the clip that is edited: which one is shown, what is done to many of them, what is tracked.
import { ask } from "../../page/ask.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";
import { fitting } from "../../clips/loader.mjs?v=0.1.0";
import { ahead, stepped } from "../../clips/pace.mjs?v=0.1.0";
import { Player } from "../../clips/player.mjs?v=0.1.0";
import { Conflict } from "../server.mjs?v=0.1.0";
import { ClipDraft, doubtful, rangeOf } from "./draft.mjs?v=0.1.0";
import { ghost } from "./onion.mjs?v=0.1.0";
import { ClipPanel } from "./panel.mjs?v=0.1.0";

const KEPT = 14;
const AHEAD = 8;
const STEPS = { frameBack: -1, frameOn: 1, framesBack: -10, framesOn: 10 };
const MOST_NAMED = 12;

export class ClipFrames {
  /** @param session the editor's; @param server a ClipServer. */
  constructor(session, server) {
    Object.assign(this, { session, server });
    this.at = 0;
    this.range = [0, 0];
    this.draft = new ClipDraft(server, { onState: () => this.changed(), onFault: (error) => session.say(error.message, true), isShown: ({ picture }) => picture === session.view?.pictures[0] });
    const most = fitting(session.picture.size, KEPT);
    this.draft.loader.most = most;
    // With the one that is shown, and one on its way.
    this.ahead = Math.min(AHEAD, most - 2);
    this.draft.onKept = (number, stamp) => {
      if (number === this.at) this.stamp = stamp;
    };
    this.panel = new ClipPanel(this, session);
  }

  get moves() {
    return this.draft.moves;
  }

  /** What is shown first: [picture, mask, tints]. */
  async open() {
    const { draft, server } = this;
    await draft.open();
    this.range = [0, draft.count - 1];
    const { times } = draft.facts;
    this.player = new Player({ times, isReady: (number) => draft.loader.settled(number), show: (number) => this.reach(number) });
    if (!draft.moves) return Promise.all([server.image(), server.mask(), server.tints()]);
    const [found, tints] = await Promise.all([draft.frame(0), server.tints()]);
    this.stamp = found.stamp;
    const [width, height] = draft.state.size;
    return [found.picture, { levels: found.levels.slice(), width, height }, tints];
  }

  close() {
    this.player?.stop();
    this.draft.close();
    if (this.panel.element.contains(document.activeElement)) this.session.canvas.focus();
    this.panel.destroy();
    this.panel.element.remove();
  }

  /** The state of the draft is another one. */
  changed() {
    const { draft, session } = this;
    const { tracking, tracked } = draft.state ?? {};
    if (session.clip !== this) return;
    if (tracking && this.follows) {
      const reached = tracking.from + Math.sign(tracking.to - tracking.from) * tracking.done;
      if (reached !== this.at) this.go(reached, true);
    }
    if (tracking) this.awaited = true;
    else if (this.awaited && !this.starting) this.endTracking(tracked);
    this.follow();
    session.update();
  }

  /** The mask of the present frame as the draft has it, where that has changed. */
  async follow() {
    const { draft, session } = this;
    const stale = () => session.clip === this && draft.moves && !draft.pending && !draft.unsent && !session.mask?.history.open && this.stamp !== draft.state.stamps[this.at];
    if (!this.following && stale()) this.following = this.catchUp(stale);
    await this.following;
  }

  async catchUp(stale) {
    const { draft, session } = this;
    try {
      // It may change again meanwhile.
      while (stale()) {
        const { at } = this;
        const found = await draft.frame(at);
        if (at === this.at && stale()) this.put(at, found);
      }
    } catch (error) {
      // Given up because another frame is looked at.
      if (error.name !== "AbortError") session.say(error.message, true);
    } finally {
      this.following = null;
    }
  }

  /** Whether another frame may be shown now. */
  get mayGo() {
    const { session } = this;
    return Boolean(session.mask) && !session.busy && !session.mask.history.open;
  }

  /** Goes to a frame; where it is followed while it is tracked, `byItself`. */
  async go(number, byItself = false) {
    const { draft, session } = this;
    if (!byItself) this.follows = false;
    if (!this.mayGo || number === this.at) {
      this.panel.update();
      return;
    }
    if (this.player.playing) this.pause();
    session.giveUp();
    this.wanted = number;
    if (draft.unsent && !(await draft.settle())) return;
    draft.loader.ahead(number, []);
    try {
      const found = await draft.frame(number);
      if (this.wanted === number && session.clip === this && this.mayGo) this.put(number, found);
    } catch (error) {
      if (this.wanted === number && error.name !== "AbortError") session.say(error.message, true);
    }
    session.update();
  }

  /** Shows a frame that is there. */
  put(number, found) {
    const { draft, session } = this;
    this.at = this.server.at = number;
    this.stamp = found.stamp;
    session.read = null;
    session.tools.select.forget();
    session.view.setPicture(found.picture, number);
    if (draft.moves) session.mask.reset(found.levels, { isFresh: draft.isFresh });
    draft.loader.ahead(number, this.player.playing ? ahead(number, draft.count, this.ahead) : [number + 1, number - 1].filter((one) => one >= 0 && one < draft.count));
    this.showOnion();
    session.update();
  }

  /** A frame's turn while it is played. */
  reach(number) {
    const found = this.draft.loader.ready(number);
    if (found) this.put(number, found);
  }

  async toggle() {
    if (this.player.playing) {
      this.pause();
      return;
    }
    if (!this.mayGo || (this.draft.unsent && !(await this.draft.settle()))) return;
    this.follows = false;
    this.session.giveUp();
    this.panel.timeline.setPlaying(true);
    this.draft.loader.ahead(this.at, ahead(this.at, this.draft.count, this.ahead));
    this.player.start(this.at);
  }

  pause() {
    if (!this.player?.playing) return;
    this.player.stop();
    this.panel.timeline.setPlaying(false);
    this.follow();
  }

  /** Something was drawn on the mask that is shown. */
  stepped() {
    if (this.moves) this.draft.push(this.at, this.session.mask, this.stamp ?? this.draft.state.stamps[this.at]);
  }

  setRange(first, last) {
    this.range = rangeOf(first, last, this.draft.count);
    this.panel.update();
  }

  /** Does what a button or a key means for the frames; null where it means nothing for them. */
  do(action) {
    const { at, draft } = this;
    if (action in STEPS) return () => this.go(stepped(at, STEPS[action], draft.count));
    return {
      play: () => this.toggle(),
      letMove: () => this.letMove(),
      onion: () => this.session.set({ onion: !this.session.settings.onion }),
      rangeStart: () => this.setRange(at, Math.max(at, this.range[1])),
      rangeEnd: () => this.setRange(Math.min(at, this.range[0]), at),
      copyNext: () => this.copyNext(),
      copyRange: () => this.many("copy", { from: at, to: this.range }),
      applyRange: () => this.many("apply", this.panel.chosen()),
      trackOn: () => this.track(draft.count - 1),
      trackBack: () => this.track(0),
      trackStop: () => draft.isTracking && draft.change("track/stop"),
      revert: () => this.revert(),
      previous: this.moves ? () => this.bringPrevious() : null,
    }[action] ?? null;
  }

  /** A change of the draft by the server, one at a time; whether it was made. */
  async many(what, values) {
    const { session } = this;
    if (!this.moves || !session.mayChange() || session.mask.history.open) return false;
    this.pause();
    session.setBusy(true);
    // Where it is not taken, the person has been told by then.
    const done = await this.draft.change(what, values);
    if (done) session.say("");
    // What is drawn next is drawn on that.
    await this.follow();
    session.setBusy(false);
    this.showOnion();
    return done;
  }

  async copyNext() {
    const { at, draft, session } = this;
    if (at + 1 >= draft.count) session.say(text("editor.lastFrame"));
    else if (await this.many("copy", { from: at, to: [at + 1, at + 1] })) await this.go(at + 1);
  }

  async track(to) {
    const { at, draft, panel, session } = this;
    if (to === at) {
      session.say(text("editor.nowhereToTrack"));
      return;
    }
    this.follows = this.starting = true;
    this.awaited = await this.many("track", { from: at, to, method: panel.method.value });
    this.starting = false;
    if (draft.isTracking) session.say(text("editor.tracking"));
    // A short way may be done by now.
    this.changed();
  }

  endTracking(tracked) {
    this.awaited = false;
    if (!tracked) return;
    const { session, draft } = this;
    if (this.follows) this.go(tracked.reached, true);
    this.follows = false;
    // SAM 3 gives the masks of many frames at once.
    const nothing = tracked.how === "stopped" && tracked.reached === tracked.from;
    const words = [text(`editor.tracked.${nothing ? "nothing" : tracked.how}`, { from: tracked.from, to: tracked.reached })];
    if (tracked.problem) words.push(session.told(tracked.problem));
    const odd = doubtful(draft.state.drift);
    if (odd.length) words.push(text("editor.doubtful", { frames: odd.slice(0, MOST_NAMED).join(", ") + (odd.length > MOST_NAMED ? ", …" : "") }));
    session.say(words.join(" "), tracked.how === "failed");
  }

  /** One step back or forth in the draft, whichever frames it changed; one of them is shown then. */
  async step(way) {
    const { draft, session } = this;
    if (!session.mayChange() || session.mask.history.open) return;
    this.pause();
    await draft.pushing;
    if (way === "undo" && draft.giveUpUnsent()) {
      // It is on the screen alone.
      this.stamp = null;
      await this.follow();
      session.say("");
      return;
    }
    if (!draft.state[way]) {
      session.report(way === "undo" ? "noneBefore" : "noneAfter", way);
      return;
    }
    const before = draft.state.stamps;
    await this.many(way, {});
    const changed = [...before.keys()].filter((number) => before[number] !== draft.state.stamps[number]);
    if (changed.length && !changed.includes(this.at)) {
      const far = (number) => Math.abs(number - this.at);
      await this.go(changed.reduce((a, b) => (far(b) < far(a) ? b : a)));
    }
  }

  /** From here on each frame has a mask of its own; what is drawn by then is saved first. */
  async letMove() {
    const { session } = this;
    if (this.moves || (session.unsaved && !(await session.save()))) return;
    await session.compute(() => this.draft.letMove());
    if (!this.moves) return;
    this.stamp = null;
    await this.follow();
    session.say(text("editor.movesNow"));
  }

  /** Writes the masks of all frames; whether they are saved. */
  async save() {
    const { draft, session } = this;
    if (session.busy || session.mask.history.open) return false;
    if (!draft.unsaved) {
      session.say(text("editor.nothingToSave"));
      return true;
    }
    session.setBusy(true);
    try {
      const saved = await draft.change("save");
      if (!saved) return false;
      session.say(text("editor.savedAs", { file: draft.state.saves }));
      session.onSaved?.(draft.state);
      return true;
    } catch (error) {
      if (!(error instanceof Conflict)) throw error;
      session.busy = false;
      const choices = ["theirs", "mine", "keepEditing"].map((name) => [name, text(`editor.conflict.${name}`)]);
      const choice = await ask(session.parent, error.message, choices);
      if (choice === "mine") return (await draft.change("over")) && (await this.save());
      if (choice === "theirs") await session.compute(() => this.takeTheirs());
      else await draft.refuse(error);
      return false;
    } finally {
      session.setBusy(false);
      session.update();
    }
  }

  async takeTheirs() {
    await this.draft.revert();
    this.stamp = null;
    await this.follow();
  }

  /** Takes back everything since the last save, after asking. */
  async revert() {
    const { draft, session } = this;
    if (!this.moves || !session.mayChange() || session.mask.history.open) return;
    if (!draft.unsaved) {
      session.say(text("editor.nothingToSave"));
      return;
    }
    const choices = ["discard", "keepEditing"].map((name) => [name, text(`editor.leave.${name}`)]);
    if ((await ask(session.parent, text("editor.revertQuestion"), choices)) !== "discard") return;
    await session.compute(() => this.takeTheirs());
    session.say(text("editor.reverted"));
  }

  /** The masks of all frames before the last save, as a step. */
  async bringPrevious() {
    const { draft, session } = this;
    const before = draft.state.revision;
    if (!(await this.many("previous", {}))) return;
    if (draft.state.revision === before) session.report("same", "previous");
    else session.say(text("editor.previousIsBack"));
  }

  /** Gives up what is not saved, with the editor. */
  async discard() {
    const { draft } = this;
    if (!draft.moves) return;
    await draft.pushing;
    // Else the draft would go on changing, and stay.
    if (draft.isTracking) await draft.change("track/stop");
    await this.server.change("discard", {}, draft.state.revision).catch(() => {});
  }

  /** The masks of the frames before and after, where they are to be seen through. */
  async showOnion() {
    const { at, draft, session } = this;
    const { view, mask } = session;
    if (!view) return;
    const wanted = draft.moves && session.settings.onion && !this.player.playing;
    const numbers = wanted ? [[at - 1, "before"], [at + 1, "after"]].filter(([number]) => number >= 0 && number < draft.count) : [];
    const key = numbers.map(([number]) => `${number}:${draft.state.stamps[number]}`).join();
    if (key === this.onionKey) return;
    this.onionKey = key;
    try {
      const found = await Promise.all(numbers.map(([number]) => draft.frame(number)));
      if (key !== this.onionKey || view !== session.view) return;
      view.ghosts = found.map(({ levels }, i) => ghost({ levels, width: mask.width, height: mask.height }, numbers[i][1]));
    } catch {
      // The frame itself tells what is wrong once it is shown.
      view.ghosts = [];
    }
    view.redraw();
  }
}
