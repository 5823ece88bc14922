// The mask editor: a dialog over everything, for one picture of an opened data set.
import { button, make, say } from "../page/elements.js";
import { text } from "../page/strings.js";
import { ask } from "./ask.js";
import { Controls, shortcutList } from "./controls.js";
import { actionOf, isCombination } from "./keys.js";
import { Pointers } from "./pointers.js";
import { MaskServer } from "./server.js";
import { Session } from "./session.js";
import { loadSettings } from "./settings.js";

/**
 * Opens the mask of a picture for editing; resolves when the editor is closed.
 * @param {object} options
 * @param options.api ComfyUI's scripts/api.js.
 * @param {string} options.dataset id of the opened data set.
 * @param {number} options.picture index.
 * @param {string} options.name of the picture.
 * @param {[number, number]} options.size width and height of the picture.
 * @param {boolean} options.canSelect whether a SAM 3 model is wired.
 * @param {(answer: {index, changed, token, version}) => void} options.onSaved called after each save.
 */
export function openEditor(options) {
  return new Editor(options).open();
}

class Editor {
  constructor({ api, dataset, picture, name, size, canSelect = false, onSaved = null }) {
    this.message = make("div", { className: "mlt-editor-message", role: "status" });
    this.stage = make("div", { className: "mlt-editor-stage" });
    const title = text("editor.title", { name });
    this.dialog = make("dialog", { className: "mlt mlt-editor", "aria-label": title });
    this.session = new Session({
      server: new MaskServer(api, dataset, picture),
      name,
      settings: loadSettings(),
      canSelect,
      onSaved,
      parent: this.dialog,
      say: (words, isProblem = false) => this.tell(words, isProblem),
      update: () => this.updateSoon(),
      leave: () => this.leave(),
      help: () => this.help(),
    });
    this.controls = new Controls(this.session);
    this.titleWords = `${name} · ${size[0]} × ${size[1]}`;
    this.dialog.append(
      make("div", { className: "mlt-row mlt-editor-head" }, make("strong", {}, this.titleWords), this.controls.head),
      make("div", { className: "mlt-editor-body" }, this.controls.toolbar, this.stage, this.controls.options),
      this.message,
    );
    this.space = null;
    this.unload = (event) => {
      if (this.session.mask?.unsaved) event.preventDefault();
    };
  }

  async open() {
    const closed = new Promise((resolve) => this.dialog.addEventListener("close", resolve, { once: true }));
    document.body.append(this.dialog);
    this.dialog.showModal();
    // Also what a combination with Ctrl means is decided here: ComfyUI would undo or save its graph.
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("keyup", (event) => this.keyUp(event));
    this.dialog.addEventListener("cancel", (event) => this.cancel(event));
    window.addEventListener("beforeunload", this.unload);
    this.load();
    await closed;
    this.observer?.disconnect();
    this.session.view?.destroy();
    window.removeEventListener("beforeunload", this.unload);
    this.dialog.remove();
  }

  async load() {
    const { session } = this;
    session.setBusy(true);
    try {
      await session.load();
    } catch (error) {
      session.busy = false;
      this.tell(error.message, true);
      return;
    }
    session.setBusy(false);
    if (!this.dialog.open) {
      session.view.destroy();
      return;
    }
    this.tell(text(session.mask.levels.every((level) => level === 255) ? "editor.allWhite" : "editor.hint.brush"));
    const { canvas } = session.view;
    canvas.setAttribute("aria-label", text("editor.canvas", { name: this.titleWords }));
    this.stage.append(canvas, session.marks.element);
    this.observer = new ResizeObserver(() => session.view.resize(this.stage.clientWidth, this.stage.clientHeight));
    this.observer.observe(this.stage);
    new Pointers(canvas, this.hand());
    canvas.focus();
    this.controls.update();
  }

  /** What the pointers do, in pixels of the picture. */
  hand() {
    const { session } = this;
    const { port } = session.view;
    const tool = () => session.tools[session.tool];
    return {
      start: (x, y, event) => {
        session.cursor = null;
        session.marks.show({ cross: null });
        if (!session.busy) tool().start(port.toPicture(x, y), event);
      },
      move: (x, y, event) => tool().move(port.toPicture(x, y), event),
      end: (x, y, event) => {
        tool().end(port.toPicture(x, y), event);
        this.updateSoon();
      },
      cancel: () => tool().cancel(),
      hover: (x, y, event) => session.showRing(port.toPicture(x, y), event),
      leave: () => session.showRing(null),
      pan: (dx, dy) => {
        if (this.space) this.space.used = true;
        session.view.pan(dx, dy);
      },
      zoom: (factor, x, y) => session.view.zoom(factor, x, y),
      wantsPan: () => Boolean(this.space),
    };
  }

  key(event) {
    // Questions and help are dialogs of their own within this one.
    if (event.target.closest("dialog") !== this.dialog) return;
    event.stopPropagation();
    const field = event.target.closest("input:not([type=range]):not([type=checkbox]):not([type=color]), select");
    const onCanvas = event.target === this.session.view?.canvas;
    if (event.key === " " && onCanvas) {
      event.preventDefault();
      this.space ??= { used: false };
      return;
    }
    const action = actionOf(event);
    if (!action || (field && !isCombination(event) && action !== "close")) return;
    const ofCanvas = event.key.startsWith("Arrow") || event.key === "Enter";
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
    if (session.mask?.unsaved) {
      this.asking = true;
      const choices = ["saveAndClose", "discard", "keepEditing"].map((name) => [name, text(`editor.leave.${name}`)]);
      const choice = await ask(this.dialog, text("editor.leave.question"), choices);
      this.asking = false;
      if (choice === "keepEditing" || (choice === "saveAndClose" && !(await session.save()))) return;
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

  /** Many strokes' pieces come between two frames. */
  updateSoon() {
    this.updating ??= requestAnimationFrame(() => {
      this.updating = null;
      this.controls.update();
    });
  }
}
