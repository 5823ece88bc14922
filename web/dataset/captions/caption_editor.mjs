// The caption of the picture that the large view shows: read, written and saved beside the picture.
import { button, make, say } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";
import { CaptionFields } from "./caption_fields.mjs?v=0.1.0";

export class CaptionEditor {
  /** @param source a DatasetSource. */
  constructor(source) {
    this.source = source;
    this.raw = null;
    this.fields = new CaptionFields(() => this.update());
    this.save = button(text("dataset.caption.save"), text("dataset.caption.saveHint"), () => this.store());
    this.revert = button(text("dataset.caption.revert"), text("dataset.caption.revertHint"), () => this.restore());
    this.theirs = button(text("dataset.caption.theirs"), text("dataset.caption.theirsHint"), () => this.take());
    this.mine = button(text("dataset.caption.mine"), text("dataset.caption.mineHint"), () => this.overwrite());
    this.reading = make("div", { className: "mlt-note" });
    this.state = make("div", { className: "mlt-note", role: "status" });
    this.element = make(
      "div",
      { className: "mlt-caption-editor" },
      this.fields.element,
      this.reading,
      make("div", { className: "mlt-row" }, this.save, this.revert, this.theirs, this.mine),
      this.state,
    );
    this.fields.element.addEventListener("keydown", (event) => this.key(event));
    this.update();
  }

  get changed() {
    return this.raw !== null && this.fields.value.trim() !== this.kept;
  }

  /** Shows a picture's caption, anew where it is shown already and nothing was written. */
  async show(index) {
    if (this.index !== index) this.raw = null;
    else if (this.changed) return;
    this.index = index;
    await this.load();
  }

  async load() {
    const { index, raw: before } = this;
    try {
      const raw = await this.source.ask(`/pictures/${index}/caption`);
      if (index !== this.index || (before && (raw.token === before.token || before !== this.raw))) return;
      this.raw = this.first = raw;
      this.conflict = false;
      this.fields.show(raw.text, raw);
      this.kept = this.fields.value.trim();
      this.tell(text("dataset.caption.file", { file: raw.file }));
    } catch (error) {
      if (index !== this.index) return;
      this.fields.show(this.source.rows[index]?.caption ?? "", { reading: "", several: false });
      this.tell(error.message);
    }
  }

  /** What others have written meanwhile, in place of what was written here. */
  take() {
    this.raw = null;
    return this.load();
  }

  /** Saves what was written; true where nothing is left to save. */
  async store() {
    const { index, raw } = this;
    if (!this.changed) return true;
    const words = this.fields.value;
    try {
      const saved = await this.source.saveCaption(index, words, raw.token);
      if (index !== this.index) return true;
      this.raw = saved;
      this.kept = words.trim();
      this.conflict = false;
      this.tell(text("dataset.caption.saved", { file: saved.file }));
      return true;
    } catch (error) {
      if (index === this.index) {
        this.conflict = error.status === 412;
        this.tell(error.message);
      }
      return false;
    }
  }

  /** Saves over what others have written meanwhile, which is kept as a former version. */
  async overwrite() {
    const { index } = this;
    try {
      const { token } = await this.source.ask(`/pictures/${index}/caption`);
      if (index !== this.index) return false;
      this.raw = { ...this.raw, token };
    } catch (error) {
      this.tell(error.message);
      return false;
    }
    return this.store();
  }

  /** The caption as it was when its picture was opened. */
  restore() {
    this.fields.show(this.first.text, this.first);
    this.update();
    this.fields.focus();
  }

  focus() {
    this.fields.focus();
  }

  tell(words) {
    say(this.state, words);
    this.update();
  }

  update() {
    this.fields.readOnly = this.raw === null;
    this.save.disabled = !this.changed;
    this.revert.disabled = this.raw === null || (!this.changed && this.raw.text.trim() === this.first.text.trim());
    say(this.reading, this.raw?.reading ? text(`dataset.caption.reading.${this.raw.reading}`) : "");
    this.theirs.hidden = this.mine.hidden = !this.conflict;
  }

  key(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.store();
    else if (event.key === "Escape") event.target.blur();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
