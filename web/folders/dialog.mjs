// The dialog of a Load Dataset node: the folders to choose from, and files that are sent into a new one.
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { carriesFiles, entriesOf } from "./given.mjs?v=0.1.0";
import { FolderList } from "./list.mjs?v=0.1.0";
import { askFolders } from "./sending.mjs?v=0.1.0";
import { UploadPart } from "./upload.mjs?v=0.1.0";

export class FolderDialog {
  /**
   * @param {{api, current: string, choose: (name: string) => void, sent: () => void}} options current: what the widget
   *   holds; choose sets it; sent is called after files have come into the folder that it holds by then.
   */
  constructor({ api, current, choose, sent }) {
    Object.assign(this, { api, current, choose, sent });
    this.list = new FolderList((name) => this.pick(name));
    this.upload = new UploadPart({ api, onSent: (name) => this.arrived(name) });
    this.state = make("span", { className: "mlt-note", role: "status" }, text("folders.looking"));
    this.element = this.build();
  }

  build() {
    this.close = button(text("folders.close"), `${text("folders.close")} (Esc)`, () => this.leave());
    const dialog = make(
      "dialog",
      { className: "mlt mlt-dialog mlt-folders", "aria-label": text("folders.title") },
      make("div", { className: "mlt-row mlt-dialog-head" }, make("strong", { className: "mlt-title" }, text("folders.title")), this.state, this.close),
      this.list.element,
      this.upload.element,
    );
    // What is typed and dropped here is meant for the dialog, not for the graph behind it.
    dialog.addEventListener("keydown", (event) => event.stopPropagation());
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.leave();
    });
    dialog.addEventListener("close", () => dialog.remove());
    for (const name of ["dragenter", "dragover"]) dialog.addEventListener(name, (event) => this.over(event));
    dialog.addEventListener("dragleave", (event) => dialog.contains(event.relatedTarget) || this.mark(false));
    dialog.addEventListener("drop", (event) => this.dropped(event));
    return dialog;
  }

  /** @param entries of a drop on the node, to be sent. */
  async open(entries = []) {
    document.body.append(this.element);
    this.element.showModal();
    this.list.search.focus();
    this.ready = this.look();
    await this.take(entries);
    return this;
  }

  async look() {
    try {
      const told = await askFolders(this.api);
      this.upload.setTerms(told);
      this.list.show(told.folders, told.complete, this.current);
      say(this.state, "");
    } catch (error) {
      say(this.state, text("folders.failed", { reason: error.message }));
    }
  }

  pick(name) {
    if (this.upload.isSending) return;
    this.choose(name);
    this.element.close();
  }

  async arrived(name) {
    if (name !== null) {
      this.current = name;
      this.choose(name);
      this.sent();
      this.close.focus();
    }
    await this.look();
  }

  /** Closes; while files are sent, stops these first. */
  leave() {
    if (this.upload.isSending) this.upload.cancel();
    else this.element.close();
  }

  over(event) {
    if (!carriesFiles(event.dataTransfer)) return;
    event.preventDefault();
    event.stopPropagation();
    this.mark(true);
  }

  dropped(event) {
    event.preventDefault();
    event.stopPropagation();
    this.mark(false);
    this.take(entriesOf(event.dataTransfer));
  }

  /** Offers to send what was dropped, once it is known what is taken. */
  async take(entries) {
    await this.ready;
    if (this.upload.terms) await this.upload.take(entries);
  }

  mark(isOver) {
    this.element.toggleAttribute("data-over", isOver);
  }
}
