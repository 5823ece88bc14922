// What is being edited: one picture at a time with its mask, the tools, and what the person's actions do to them.
import { make } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { AUTOMATIC, USUAL } from "../page/tint.mjs?v=0.1.0";
import { morphed } from "./aside.mjs?v=0.1.0";
import { ask } from "../page/ask.mjs?v=0.1.0";
import { told } from "../page/told.mjs?v=0.1.0";
import { ClipFrames } from "./clip/frames.mjs?v=0.1.0";
import { MaskDocument } from "./document.mjs?v=0.1.0";
import { downloadMask } from "./download.mjs?v=0.1.0";
import { ARROWS, nextSize } from "./keys.mjs?v=0.1.0";
import { Marks } from "./marks.mjs?v=0.1.0";
import { Conflict } from "./server.mjs?v=0.1.0";
import { keepSettings, MOST_SHARE, sizeOf } from "./settings.mjs?v=0.1.0";
import { makeTools, TOOLS } from "./tools.mjs?v=0.1.0";
import { tipRadius } from "./stroke.mjs?v=0.1.0";
import { View, VIEWS } from "./view.mjs?v=0.1.0";

const ZOOM = 1.25;
/** How far in the list of pictures an action leads. */
const TURNS = { nextPicture: 1, previousPicture: -1 };
const STAMP = { pointerType: "mouse", pressure: 0.5, button: 0, altKey: false, shiftKey: false };

export class Session {
  /**
   * @param options of `openEditor`, with serverOf(picture), `settings`, `parent` (the dialog), say(words), update(),
   *   turn(by) and leave().
   */
  constructor(options) {
    Object.assign(this, options);
    this.tool = "brush";
    this.canvas = make("canvas", { className: "mlt-editor-canvas", tabIndex: 0, role: "application" });
    this.marks = new Marks();
    this.standsOut = { ignored: USUAL, learned: USUAL };
    this.busy = false;
    // Another picture is on its way; what is meant for it waits.
    this.turning = true;
    this.waiting = [];
    this.empty();
  }

  /** Lets go of the picture; what it was is drawn until another one is. */
  empty() {
    this.view?.destroy();
    this.clip?.close();
    this.marks.clear();
    Object.assign(this, { clip: null, mask: null, view: null, tools: null, cursor: null, pending: null, hovered: null, read: null });
  }

  /** Takes another picture and its mask; throws what the server says, and then there is none. */
  async load(picture) {
    this.picture = picture;
    this.server = this.serverOf(picture);
    const { server } = this;
    const clip = picture.clip ? new ClipFrames(this, server) : null;
    const loading = clip ? clip.open() : Promise.all([server.image(), server.mask(), server.tints()]);
    const [image, { levels, width, height }, tints] = await loading.finally(() => this.empty());
    this.clip = clip;
    this.mask = new MaskDocument(levels, width, height, (rect) => this.changed(rect));
    this.mask.startedFull &&= clip?.draft.isFresh ?? true;
    this.mask.onStep = () => clip?.stepped();
    this.view = new View(image, this.mask, this.look, this.canvas);
    this.standsOut = tints;
    this.view.look = this.look;
    this.marks.port = this.view.port;
    this.view.listeners.push(() => this.marks.update());
    this.tools = makeTools(this);
  }

  get look() {
    const { view, tint, tints } = this.settings;
    return { view, colour: this.colour, opacity: tint, tints, onion: this.settings.onionShare };
  }

  /** The tint: the person's own, or the one that stands out from this picture. */
  get colour() {
    const { colour, tints } = this.settings;
    return colour === AUTOMATIC ? this.standsOut[tints] : colour;
  }

  get scale() {
    return this.view.port.scale;
  }

  /** The picture's shorter side, by which the brush is measured. */
  get side() {
    return Math.min(...this.picture.size);
  }

  /** The brush's diameter in pixels of the picture. */
  get size() {
    return sizeOf(this.settings.share, this.side);
  }

  /** Sets it; another picture has the same share of it. */
  setSize(size) {
    this.set({ share: Math.min(MOST_SHARE, size / this.side) });
  }

  get unsaved() {
    return this.clip?.moves ? this.clip.draft.unsaved : Boolean(this.mask?.unsaved);
  }

  get canUndo() {
    const { draft } = this.clip ?? {};
    return draft?.moves ? draft.state.undo + draft.pending + Number(draft.unsent !== null) > 0 && !draft.isTracking : Boolean(this.mask?.history.canUndo);
  }

  get canRedo() {
    const { draft } = this.clip ?? {};
    return draft?.moves ? draft.state.redo > 0 && !draft.isTracking : Boolean(this.mask?.history.canRedo);
  }

  /** Whether the mask may be changed now; where it is being tracked the person is told. */
  mayChange() {
    if (this.clip?.draft.isTracking) this.say(text("editor.trackingNow"));
    return !this.busy && !this.clip?.draft.isTracking;
  }

  /** A sentence of the server's in the page's language. */
  told(words) {
    return told(words);
  }

  changed(rect) {
    this.view.refresh(rect);
    this.update();
  }

  set(part) {
    Object.assign(this.settings, part);
    keepSettings(this.settings);
    if (this.view) {
      this.view.look = this.look;
      if ("onion" in part) this.clip?.showOnion();
      if (["view", "colour", "tint", "tints", "onionShare"].some((name) => name in part)) this.view.redraw();
      if ("share" in part) this.showRing();
    }
    this.update();
  }

  /** All pixels of the picture, read once. */
  pixels() {
    return (this.read ??= this.view.pixels());
  }

  /** @param {boolean} anew whether it takes the place of the last step. */
  apply(region, combine, anew = false) {
    this.report(anew ? this.mask.applyAnew(region, { combine }) : this.mask.apply(region, { combine }));
  }

  /** Says what an action has done where that is not plain to see: "alone", or why nothing changed. */
  report(outcome, action = this.tool) {
    if (outcome === "alone") this.say(text("editor.onlyThis"));
    else if (outcome === "changed") this.say("");
    else this.say(text("editor.unchanged", { action: text(`editor.action.${action}`), reason: text(`editor.unchangedBecause.${outcome}`) }));
  }

  /** Runs something slow, one at a time; null where it fails, which the person is told. */
  async compute(work) {
    if (this.busy) return null;
    this.setBusy(true);
    try {
      const found = await work();
      this.say("");
      return found;
    } catch (error) {
      this.say(error.message, true);
      return null;
    } finally {
      this.setBusy(false);
    }
  }

  setBusy(busy) {
    this.busy = busy;
    this.parent.setAttribute("aria-busy", String(busy));
    if (busy) this.say(text("editor.working"));
    else if (this.waiting.length) setTimeout(() => this.goOn());
  }

  /** Whether an action has to wait for the next picture, or for an answer that belongs to this one. */
  mustWait(action) {
    return action !== "close" && (this.turning || (this.busy && action in TURNS));
  }

  /** Does what was meant meanwhile. */
  async goOn() {
    if (this.goingOn) return;
    this.goingOn = true;
    try {
      while (this.waiting.length && !this.mustWait(this.waiting[0])) await this.do(this.waiting.shift());
    } finally {
      this.goingOn = false;
    }
  }

  /** Does what a button or a key means. */
  async do(action) {
    if (this.mustWait(action)) {
      this.waiting.push(action);
      return;
    }
    if (action in TURNS) await this.turn(TURNS[action]);
    else if (!this.mask && action !== "close") return;
    else if (TOOLS.includes(action)) this.choose(action);
    else if (VIEWS.includes(action)) this.set({ view: action });
    else if (action in ARROWS) this.moveCursor(ARROWS[action]);
    else await (this.clip?.do(action) ?? this.actions()[action])?.();
    this.update();
  }

  actions() {
    const { mask, settings, view } = this;
    return {
      undo: () => (this.clip?.moves ? this.clip.step("undo") : this.step("undo", () => mask.undo(), "noneBefore")),
      redo: () => (this.clip?.moves ? this.clip.step("redo") : this.step("redo", () => mask.redo(), "noneAfter")),
      invert: () => this.step("invert", () => mask.invert(), "same"),
      grow: () => this.morph("grow", "grow", settings.radius),
      shrink: () => this.morph("shrink", "grow", -settings.radius),
      feather: () => this.morph("feather", "feather", settings.softness),
      learnAll: () => this.step("learnAll", () => mask.fill(255), "learned"),
      ignoreAll: () => this.step("ignoreAll", () => mask.fill(0), "ignored"),
      smaller: () => this.setSize(nextSize(this.size, -1)),
      larger: () => this.setSize(nextSize(this.size, 1)),
      softer: () => this.set({ hardness: Math.max(0, settings.hardness - 10) }),
      harder: () => this.set({ hardness: Math.min(100, settings.hardness + 10) }),
      fit: () => view.fit(),
      zoomIn: () => this.zoom(ZOOM),
      zoomOut: () => this.zoom(1 / ZOOM),
      stamp: () => this.stamp(),
      previous: () => this.bringPrevious(),
      save: () => this.save(),
      download: () => downloadMask(this),
      help: () => this.help(),
      close: () => this.leave(),
    };
  }

  /** A change of the whole mask; not while a stroke or a question to the server is under way. */
  step(action, work, ifNot) {
    if (!this.mayChange() || this.mask.history.open) return;
    this.clip?.pause();
    this.report(work() ? "changed" : ifNot, action);
  }

  /** A change of the whole mask that may take seconds. */
  async morph(action, name, amount) {
    if (!amount || this.mask.history.open || !this.mayChange()) return;
    this.clip?.pause();
    const levels = await this.compute(() => morphed(name, this.mask, amount));
    // The editor may have been closed meanwhile.
    if (levels && this.parent.open) this.report(this.mask.replace(levels) ? "changed" : "edgeless", action);
  }

  choose(tool) {
    if (tool === "select" && !this.canSelect) {
      this.say(text("editor.noModel"), true);
      return;
    }
    this.giveUp();
    this.tools.select.forget();
    this.tool = tool;
    this.marks.show({ ring: null });
    this.hint();
  }

  /** Says what the tool does, and what it means as long as everything is learned. */
  hint(before = "") {
    const words = [before, this.mask.untouched ? text("editor.allLearned") : "", text(`editor.hint.${this.tool}`)];
    this.say(words.filter(Boolean).join(" "));
  }

  /** Takes back what a tool has begun; whether there was something. */
  giveUp() {
    const begun = Boolean(this.mask && (this.pending || this.mask.history.open || this.marks.shape.length));
    if (begun) this.tools[this.tool].cancel();
    this.pending = null;
    return begun;
  }

  zoom(factor) {
    if (!this.cursor) return this.view.zoom(factor);
    const { scale, x, y } = this.view.port;
    return this.view.zoom(factor, this.cursor[0] * scale + x, this.cursor[1] * scale + y);
  }

  showRing(place = this.hovered, event = STAMP) {
    this.hovered = place;
    const paints = place && ["brush", "eraser"].includes(this.tool);
    const radius = tipRadius(this.size, { ...STAMP, pointerType: event.pointerType, pressure: event.pressure }, this.settings.pressure);
    this.marks.show({ ring: paints ? { x: place[0], y: place[1], radius } : null });
  }

  /** The keyboard's own place: a pixel at a time when that can be seen, else eight on the screen. */
  moveCursor([dx, dy]) {
    const { width, height } = this.mask;
    const step = Math.max(1, Math.round(8 / this.scale));
    const [x, y] = this.cursor ?? [Math.floor(width / 2) + 0.5, Math.floor(height / 2) + 0.5];
    const moved = this.cursor ? [x + dx * step, y + dy * step] : [x, y];
    this.cursor = [Math.min(width - 0.5, Math.max(0.5, moved[0])), Math.min(height - 0.5, Math.max(0.5, moved[1]))];
    this.marks.show({ cross: this.cursor });
    this.showRing(this.cursor);
    if (this.pending) this.tools[this.tool].move(this.pendingShape(), STAMP);
    this.say(text("editor.at", { x: Math.floor(this.cursor[0]), y: Math.floor(this.cursor[1]), level: this.levelAt(this.cursor) }));
  }

  /** A lasso's points are set, a box follows the cursor. */
  pendingShape() {
    return this.tools[this.tool].byCorners ? this.cursor : this.pending;
  }

  levelAt([x, y]) {
    const { mask } = this;
    const inside = x >= 0 && y >= 0 && x < mask.width && y < mask.height;
    return inside ? mask.levels[Math.floor(y) * mask.width + Math.floor(x)] : 0;
  }

  /** The tool at the keyboard's place: twice for a box, a point each for a lasso, closed by the same point again. */
  stamp() {
    if (!this.mayChange() || this.mask.history.open) return;
    this.clip?.pause();
    if (!this.cursor) {
      this.moveCursor([0, 0]);
      return;
    }
    const tool = this.tools[this.tool];
    const here = [...this.cursor];
    if (!tool.byCorners && !tool.byPoints) {
      tool.start(here, STAMP);
      tool.end(here, STAMP);
    } else if (!this.pending) {
      tool.start(here, STAMP);
      this.pending = here;
      this.say(text(tool.byCorners ? "editor.secondCorner" : "editor.nextPoint"));
    } else if (tool.byPoints && String(here) !== String(this.pending)) {
      tool.move(here, STAMP);
      this.pending = here;
    } else {
      this.pending = null;
      tool.end(here, STAMP);
    }
  }

  async bringPrevious() {
    const levels = await this.compute(() => this.server.previous());
    if (!levels) return;
    if (this.mask.replace(levels)) this.say(text("editor.previousIsBack"));
    else this.report("same", "previous");
  }

  /** Saves; where the mask was changed elsewhere the person decides. Whether it is saved. */
  async save(over = false) {
    if (this.clip?.moves) return this.clip.save();
    if (this.busy || this.mask.history.open) return false;
    if (!this.mask.unsaved && !over) {
      this.say(text("editor.nothingToSave"));
      return true;
    }
    const { levels, width, height, history } = this.mask;
    const state = history.state;
    this.setBusy(true);
    try {
      const answer = await (over ? this.server.saveOver(levels, width, height) : this.server.save(levels, width, height));
      this.mask.saved = state;
      this.say(text("editor.saved"));
      this.onSaved?.(answer);
      return true;
    } catch (error) {
      if (!(error instanceof Conflict)) {
        this.say(text("editor.notSaved", { reason: error.message }), true);
        return false;
      }
      this.say("");
      return await this.settle(error);
    } finally {
      this.setBusy(false);
      this.update();
    }
  }

  async settle(conflict) {
    this.busy = false;
    const choices = ["theirs", "mine", "keepEditing"].map((name) => [name, text(`editor.conflict.${name}`)]);
    const choice = await ask(this.parent, conflict.message, choices);
    if (choice === "mine") return this.save(true);
    if (choice === "theirs") await this.takeTheirs();
    return false;
  }

  /** The server's mask as one step that can be undone. */
  async takeTheirs() {
    const theirs = await this.compute(() => this.server.mask());
    if (!theirs) return;
    this.mask.replace(theirs.levels);
    this.mask.markSaved();
    this.say(text("editor.theirsLoaded"));
  }
}
