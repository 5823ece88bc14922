// The mask editor: a dialog over everything, for one picture of an opened data set.
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { ask } from "../page/ask.mjs?v=0.1.0";
import { Controls, shortcutList } from "./controls.mjs?v=0.1.0";
import { actionOf, isCombination } from "./keys.mjs?v=0.1.0";
import { Pointers } from "./pointers.mjs?v=0.1.0";
import { ClipServer } from "./clip/server.mjs?v=0.1.0";
import { MaskServer } from "./server.mjs?v=0.1.0";
import { Session } from "./session.mjs?v=0.1.0";
import { loadSettings } from "./settings.mjs?v=0.1.0";

/**
 * Opens the mask of a picture for editing; resolves when the editor is closed.
 * @param {object} options
 * @param options.api ComfyUI's scripts/api.js.
 * @param {string} options.dataset id of the opened data set.
 * @param {{index: number, name: string, size: [number, number], clip: object?}} options.picture size: its width and height;
 *   clip: null of a picture that does not move.
 * @param {boolean} options.canSelect whether a SAM 3 model is wired.
 * @param {(answer: {index, changed, token, version}) => void} options.onSaved called after each save.
 * @param {object?} options.walk the list that the picture stands in, null where it stands alone: neighbour(index, by)
 *   gives the picture so many places on; placeOf(index) gives [its place from 1, how many there are], null where it is
 *   not in the list; arrived(index) is told which picture is opened instead.
 */
export function openEditor(options) {
  return new Editor(options).open();
}

class Editor {
  constructor({ api, dataset, picture, canSelect = false, onSaved = null, walk = null }) {
    this.walk = walk;
    this.message = make("div", { className: "mlt-editor-message", role: "status" });
    this.title = make("strong");
    this.dialog = make("dialog", { className: "mlt mlt-editor" });
    this.session = new Session({
      serverOf: ({ index, clip }) => new (clip ? ClipServer : MaskServer)(api, dataset, index),
      picture,
      settings: loadSettings(),
      canSelect,
      canTurn: walk !== null,
      onSaved,
      parent: this.dialog,
      say: (words, isProblem = false) => this.tell(words, isProblem),
      update: () => this.updateSoon(),
      turn: (by) => this.turn(by),
      leave: () => this.leave(),
      help: () => this.help(),
    });
    this.stage = make("div", { className: "mlt-editor-stage" }, this.session.canvas, this.session.marks.element);
    this.controls = new Controls(this.session);
    this.middle = make("div", { className: "mlt-editor-middle" }, this.stage);
    this.dialog.append(
      make("div", { className: "mlt-row mlt-editor-head" }, this.title, this.controls.head),
      make("div", { className: "mlt-editor-body" }, this.controls.toolbar, this.middle, this.controls.options),
      this.message,
    );
    this.space = null;
    this.unload = (event) => {
      if (this.session.unsaved) event.preventDefault();
    };
  }

  async open() {
    const { session } = this;
    const closed = new Promise((resolve) => this.dialog.addEventListener("close", resolve, { once: true }));
    document.body.append(this.dialog);
    this.dialog.showModal();
    // Also what a combination with Ctrl means is decided here: ComfyUI would undo or save its graph.
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("keyup", (event) => this.keyUp(event));
    this.dialog.addEventListener("cancel", (event) => this.cancel(event));
    window.addEventListener("beforeunload", this.unload);
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(this.stage);
    new Pointers(session.canvas, this.hand());
    session.canvas.focus();
    this.load(session.picture);
    await closed;
    observer.disconnect();
    session.view?.destroy();
    session.clip?.close();
    window.removeEventListener("beforeunload", this.unload);
    this.dialog.remove();
  }

  resize() {
    this.session.view?.resize(this.stage.clientWidth, this.stage.clientHeight);
  }

  /** Shows a picture, and says `before` with what there is to say of it. */
  async load(picture, before = "") {
    const { session } = this;
    this.name(picture);
    session.turning = true;
    session.setBusy(true);
    try {
      await session.load(picture);
      if (!this.dialog.open) {
        session.empty();
        return;
      }
      if (session.clip) this.middle.append(session.clip.panel.element);
      this.controls.update();
      this.resize();
      session.hint(before);
    } catch (error) {
      session.waiting = [];
      session.canvas.width = 0;
      this.tell(error.message, true);
    }
    session.turning = false;
    session.setBusy(false);
    this.controls.update();
    this.keepFocus();
  }

  name({ index, name, size }) {
    const words = [name, `${size[0]} × ${size[1]}`];
    const place = this.walk?.placeOf(index);
    if (place) words.push(text("editor.place", { at: place[0], count: place[1] }));
    say(this.title, words.join(" · "));
    this.dialog.setAttribute("aria-label", text("editor.title", { name }));
    this.session.canvas.setAttribute("aria-label", text("editor.canvas", { name: words.join(" · ") }));
  }

  /** Leads to another picture. What is unsaved is saved first; where that fails, this one stays. */
  async turn(by) {
    const { session, walk } = this;
    const to = walk?.neighbour(session.picture.index, by);
    if (!to || session.mask?.history.open) return;
    if (to.index === session.picture.index) {
      this.tell(text("editor.onlyOne"));
      return;
    }
    session.giveUp();
    // Keys that are pressed from here on are meant for the other picture.
    session.turning = true;
    const { name } = session.picture;
    const { unsaved } = session;
    if (unsaved && !(await session.save())) {
      session.turning = false;
      session.waiting = [];
      return;
    }
    walk.arrived(to.index);
    await this.load(to, unsaved ? text("editor.savedOf", { name }) : "");
  }

  /** What the pointers do, in pixels of the picture. */
  hand() {
    const { session } = this;
    const tool = () => session.tools[session.tool];
    const place = (x, y) => session.view.port.toPicture(x, y);
    const does = {
      start: (x, y, event) => {
        session.cursor = null;
        session.marks.show({ cross: null });
        if (!session.mayChange()) return;
        session.clip?.pause();
        tool().start(place(x, y), event);
      },
      move: (x, y, event) => tool().move(place(x, y), event),
      end: (x, y, event) => {
        tool().end(place(x, y), event);
        this.updateSoon();
      },
      cancel: () => tool().cancel(),
      hover: (x, y, event) => session.showRing(place(x, y), event),
      leave: () => session.showRing(null),
      pan: (dx, dy) => {
        if (this.space) this.space.used = true;
        session.view.pan(dx, dy);
      },
      zoom: (factor, x, y) => session.view.zoom(factor, x, y),
      wantsPan: () => Boolean(this.space),
    };
    // Before there is a picture, and where it cannot be shown, there is nothing to do anything with.
    return Object.fromEntries(Object.entries(does).map(([name, act]) => [name, (...how) => session.mask && act(...how)]));
  }

  key(event) {
    // Questions and help are dialogs of their own within this one.
    if (event.target.closest("dialog") !== this.dialog) return;
    event.stopPropagation();
    const field = event.target.closest("input:not([type=range]):not([type=checkbox]):not([type=color]), select");
    const onCanvas = event.target === this.session.canvas;
    if (event.key === " " && onCanvas) {
      event.preventDefault();
      this.space ??= { used: false };
      return;
    }
    const action = actionOf(event);
    // In a field, too, a browser would take Alt and an arrow for the page before.
    const always = isCombination(event) || (event.altKey && event.key.startsWith("Arrow")) || action === "close";
    if (!action || (field && !always)) return;
    const ofCanvas = (event.key.startsWith("Arrow") && !event.altKey) || event.key === "Enter";
    if (ofCanvas && !onCanvas) return;
    event.preventDefault();
    this.session.do(action);
  }

  keyUp(event) {
    event.stopPropagation();
    if (event.key !== " " || !this.space) return;
    const { used } = this.space;
    this.space = null;
    if (!used && this.session.cursor) this.session.do("stamp");
  }

  cancel(event) {
    if (event.target !== this.dialog) return;
    event.preventDefault();
    this.leave();
  }

  /** Closes, after asking where something is unsaved; what a tool has begun is given up first. */
  async leave() {
    const { session } = this;
    if (this.asking || session.giveUp()) return;
    if (session.unsaved) {
      this.asking = true;
      const choices = ["saveAndClose", "discard", "keepEditing"].map((name) => [name, text(`editor.leave.${name}`)]);
      const choice = await ask(this.dialog, text("editor.leave.question"), choices);
      this.asking = false;
      if (choice === "keepEditing" || (choice === "saveAndClose" && !(await session.save()))) return;
      if (choice === "discard") await session.clip?.discard();
    }
    this.dialog.close();
  }

  help() {
    const dialog = make("dialog", { className: "mlt mlt-ask", "aria-label": text("editor.shortcuts") });
    const close = button(text("editor.action.close"), text("editor.action.close"), () => dialog.close());
    dialog.append(make("h2", {}, text("editor.shortcuts")), shortcutList(), close);
    dialog.addEventListener("keydown", (event) => event.stopPropagation());
    dialog.addEventListener("cancel", (event) => event.stopPropagation());
    dialog.addEventListener("close", (event) => {
      event.stopPropagation();
      dialog.remove();
    });
    this.dialog.append(dialog);
    dialog.showModal();
    close.focus();
  }

  tell(words, isProblem) {
    say(this.message, words);
    this.message.classList.toggle("mlt-editor-problem", Boolean(isProblem));
  }

  /** What is gone, hidden or switched off would leave the keys to the page behind, its graph. */
  keepFocus() {
    const { activeElement } = document;
    const lost = !this.dialog.contains(activeElement) || activeElement.closest("[hidden], :disabled");
    if (lost && this.dialog.open) this.session.canvas.focus();
  }

  /** Many strokes' pieces come between two frames. */
  updateSoon() {
    this.updating ??= requestAnimationFrame(() => {
      this.updating = null;
      this.controls.update();
      this.keepFocus();
    });
  }
}
