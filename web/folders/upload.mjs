// Files that were dropped or picked: what is sent under which name, its progress, and what became of it.
import { ask } from "../page/ask.mjs?v=0.1.0";
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { size } from "../runs/describe.mjs?v=0.1.0";
import { filesOf, pickedFiles, underOneFolder } from "./given.mjs?v=0.1.0";
import { Sending } from "./sending.mjs?v=0.1.0";
import { faultOfAll, freeName, sortOut } from "./sorting.mjs?v=0.1.0";

const TOLD = 12;
const TAKEN = 409;
const USUAL = "pictures";

export class UploadPart {
  /**
   * @param {{api, onSent: (name: string | null) => void}} options onSent is called after a sending, with what the
   *   widget takes for the folder that the files have come into; null where it was stopped, or nothing came.
   */
  constructor({ api, onSent }) {
    Object.assign(this, { api, onSent });
    this.terms = null;
    this.picker = this.input({ multiple: true });
    this.folderPicker = this.input({ webkitdirectory: true });
    this.hint = make("p", {}, text("folders.drop"));
    this.limits = make("p", { className: "mlt-note" });
    this.begin = make(
      "div",
      { className: "mlt-upload-begin" },
      this.hint,
      make(
        "div",
        { className: "mlt-row" },
        button(text("folders.pickFiles"), text("folders.pickFilesHint"), () => this.picker.click()),
        button(text("folders.pickFolder"), text("folders.pickFolderHint"), () => this.folderPicker.click()),
      ),
      this.limits,
    );
    // Until it is known what is taken.
    this.begin.inert = true;
    this.name = make("input", { className: "mlt-field", type: "text", "aria-label": text("folders.name"), spellcheck: false });
    this.name.addEventListener("keydown", (event) => event.key === "Enter" && this.start());
    this.send = button(text("folders.upload"), text("folders.uploadHint"), () => this.start());
    this.drop = button(text("folders.cancel"), text("folders.cancelHint"), () => this.cancel());
    this.bar = make("progress", { hidden: true, "aria-label": text("folders.progress") });
    this.state = make("p", { role: "status" });
    this.told = make("ul", { className: "mlt-told" });
    this.ready = make(
      "div",
      { className: "mlt-upload-ready", hidden: true },
      make("label", {}, text("folders.name"), this.name),
      this.bar,
      make("div", { className: "mlt-row" }, this.send, this.drop),
    );
    this.element = make(
      "section",
      { className: "mlt-upload", "aria-label": text("folders.uploadTitle") },
      this.state, this.told, this.begin, this.ready, this.picker, this.folderPicker,
    );
  }

  get isSending() {
    return Boolean(this.sending) && !this.sending.stop.signal.aborted;
  }

  /** @param terms what the server lists and takes, see `askFolders`. */
  setTerms(terms) {
    this.terms = terms;
    this.begin.inert = false;
    say(this.limits, text("folders.limits", { size: size(terms.takes[".png"]), clip: size(terms.takes[".mp4"]), room: size(terms.room), files: terms.most_files.toLocaleString() }));
  }

  /** Takes files and folders of a drop, see `entriesOf`. */
  async take(entries) {
    if (this.isSending || !entries.length) return;
    say(this.state, text("folders.reading"));
    try {
      this.offer(await filesOf(entries, this.terms.most_files));
    } catch (error) {
      this.tell(text("folders.unreadable", { reason: error.message }), []);
    }
  }

  /** Shows what would be sent. */
  offer(given) {
    const { name, files } = underOneFolder(given);
    const sorted = sortOut(files, this.terms);
    const { taken, bytes, refused } = sorted;
    const fault = faultOfAll(sorted, this.terms);
    this.files = fault ? [] : taken;
    this.begin.hidden = !fault;
    this.ready.hidden = Boolean(fault);
    this.name.value = freeName(name || USUAL, this.terms.folders);
    const values = { count: taken.length, size: size(bytes), room: size(this.terms.room), files: this.terms.most_files };
    this.tell(text(fault ? `folders.fault.${fault}` : "folders.ready", values), refused.map(refusal));
    if (fault) return;
    this.name.focus();
    this.name.select();
  }

  async start(add = false) {
    if (this.isSending || !this.files?.length) return;
    const sending = new Sending(this.api, this.files, () => this.progress());
    this.sending = sending;
    this.lock(true);
    try {
      await sending.begin(this.name.value, add);
      this.progress();
      await sending.send();
      this.finish(sending);
    } catch (error) {
      this.stopped();
      if (error.status === TAKEN && !add) await this.askToAdd(error.message);
      else this.tell(error.message, []);
    }
  }

  async askToAdd(words) {
    const choices = [["add", text("folders.add")], ["other", text("folders.otherName")]];
    if ((await ask(this.element, words, choices, 1)) === "add") await this.start(true);
    else this.name.focus();
  }

  progress() {
    const { done, files } = this.sending;
    Object.assign(this.bar, { max: files.length, value: done });
    say(this.state, text("folders.sending", { done, count: files.length }));
  }

  /** Stops what is on its way, or takes back what was offered. */
  cancel() {
    if (this.isSending) this.sending.cancel();
    else this.clear();
  }

  finish(sending) {
    this.stopped();
    const { kept, failed, cancelled, files } = sending;
    const renamed = kept.filter(({ path, name }) => path !== name);
    const told = [
      ...failed.map(({ reason }) => reason),
      ...renamed.map(({ path, name }) => text("folders.renamed", { path, name })),
    ];
    const all = !cancelled && kept.length === files.length;
    const values = { count: kept.length, all: files.length, name: sending.name };
    const words = text(all ? "folders.sent" : cancelled ? "folders.cancelled" : "folders.sentPartly", values);
    if (kept.length) this.clear();
    this.tell(words, told);
    // Where all was there before, the folder is chosen too: it is the one that the person wanted.
    const isThere = kept.length > 0 || failed.every(({ taken }) => taken);
    this.onSent(!cancelled && isThere ? sending.name : null);
  }

  stopped() {
    this.sending = null;
    this.lock(false);
  }

  lock(isSending) {
    this.send.disabled = this.name.disabled = isSending;
    this.bar.hidden = !isSending;
    this.bar.removeAttribute("value");
  }

  clear() {
    this.files = [];
    this.begin.hidden = false;
    this.ready.hidden = true;
    this.tell("", []);
  }

  tell(words, lines) {
    say(this.state, words);
    const more = lines.length > TOLD ? [text("folders.more", { count: lines.length - TOLD })] : [];
    this.told.replaceChildren(...[...lines.slice(0, TOLD), ...more].map((line) => make("li", {}, line)));
  }

  input(options) {
    const field = make("input", { type: "file", hidden: true, ...options });
    field.addEventListener("change", () => {
      if (field.files.length) this.offer(pickedFiles(field.files));
      field.value = "";
    });
    return field;
  }
}

function refusal({ path, reason, most }) {
  return text(`folders.refused.${reason}`, { path, size: size(most) });
}
