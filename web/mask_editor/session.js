// One picture being edited: the mask, the tools and what the person's actions do to them.
import { text } from "../page/strings.js";
import { morphed } from "./aside.js";
import { ask } from "./ask.js";
import { MaskDocument } from "./document.js";
import { downloadMask } from "./download.js";
import { ARROWS, nextSize } from "./keys.js";
import { Marks } from "./marks.js";
import { Conflict } from "./server.js";
import { keepSettings } from "./settings.js";
import { makeTools, TOOLS } from "./tools.js";
import { tipRadius } from "./stroke.js";
import { View, VIEWS } from "./view.js";

const ZOOM = 1.25;
const STAMP = { pointerType: "mouse", pressure: 0.5, button: 0, altKey: false, shiftKey: false };

export class Session {
  /**
   * @param options of `openEditor`, with `server`, `settings`, `parent` (the dialog), say(words), update() and leave().
   */
  constructor(options) {
    Object.assign(this, options);
    this.tool = "brush";
    this.mask = null;
    this.cursor = null;
    this.pending = null;
    this.busy = false;
  }

  /** Loads picture and mask; throws what the server says. */
  async load() {
    const [picture, { levels, width, height }] = await Promise.all([this.server.image(), this.server.mask()]);
    this.mask = new MaskDocument(levels, width, height, (rect) => this.changed(rect));
    this.view = new View(picture, this.mask, this.look);
    this.marks = new Marks(this.view.port);
    this.view.listeners.push(() => this.marks.update());
    this.tools = makeTools(this);
  }

  get look() {
    const { view, colour, tint, tints } = this.settings;
    return { view, colour, opacity: tint, tints };
  }

  get scale() {
    return this.view.port.scale;
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
      if (["view", "colour", "tint", "tints"].some((name) => name in part)) this.view.redraw();
      if ("size" in part) this.showRing();
    }
    this.update();
  }

  /** All pixels of the picture, read once. */
  pixels() {
    return (this.read ??= this.view.pixels());
  }

  apply(region, combine) {
    this.mask.apply(region, { combine });
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
  }

  /** Does what a button or a key means. */
  async do(action) {
    if (!this.mask && action !== "close") return;
    if (TOOLS.includes(action)) this.choose(action);
    else if (VIEWS.includes(action)) this.set({ view: action });
    else if (action in ARROWS) this.moveCursor(ARROWS[action]);
    else await this.actions()[action]?.();
    this.update();
  }

  actions() {
    const { mask, settings, view } = this;
    return {
      undo: () => this.step(() => mask.undo()),
      redo: () => this.step(() => mask.redo()),
      invert: () => this.step(() => mask.invert()),
      grow: () => this.morph("grow", settings.radius),
      shrink: () => this.morph("grow", -settings.radius),
      feather: () => this.morph("feather", settings.softness),
      learnAll: () => this.step(() => mask.fill(255)),
      ignoreAll: () => this.step(() => mask.fill(0)),
      smaller: () => this.set({ size: nextSize(settings.size, -1) }),
      larger: () => this.set({ size: nextSize(settings.size, 1) }),
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
  step(work) {
    if (this.busy || this.mask.history.open) return;
    work();
  }

  /** A change of the whole mask that may take seconds. */
  async morph(name, amount) {
    if (!amount || this.mask.history.open) return;
    const levels = await this.compute(() => morphed(name, this.mask, amount));
    // The editor may have been closed meanwhile.
    if (levels && this.parent.open) this.mask.replace(levels);
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
    this.say(text(`editor.hint.${tool}`));
  }

  /** Takes back what a tool has begun; whether there was something. */
  giveUp() {
    const begun = Boolean(this.pending || this.mask?.history.open || this.marks?.shape.length);
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
    const radius = tipRadius(this.settings.size, { ...STAMP, pointerType: event.pointerType, pressure: event.pressure }, this.settings.pressure);
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
    if (this.busy || this.mask.history.open) return;
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
    this.mask.replace(levels);
    this.say(text("editor.previousIsBack"));
  }

  /** Saves; where the mask was changed elsewhere the person decides. Whether it is saved. */
  async save(over = false) {
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
