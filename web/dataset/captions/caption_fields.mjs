// The fields of a caption file: one for its text, or one for each of several captions, numbered.
import { button, make } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";

const ROWS = 4, ROWS_OF_SEVERAL = 2;

/** The captions of a file that holds one in each line. */
export function captionsOf(words) {
  return words.split("\n").map((row) => row.trim()).filter(Boolean);
}

export class CaptionFields {
  /** @param {() => void} onInput called with every change by hand. */
  constructor(onInput) {
    this.onInput = onInput;
    this.rows = make("div", { className: "mlt-caption-rows" });
    this.add = button(text("dataset.caption.add"), text("dataset.caption.addHint"), () => this.another());
    this.element = make("div", { className: "mlt-caption-fields" }, this.rows, this.add);
    this.show("", { reading: "", several: false });
  }

  /** Shows a file's text; what its lines are, and whether they may be captions, is the server's to say. */
  show(words, { reading, several }) {
    this.several = reading === "captions";
    this.add.hidden = !several || !["", "captions"].includes(reading);
    this.fill(this.several ? captionsOf(words) : [words]);
  }

  get fields() {
    return [...this.rows.querySelectorAll("textarea")];
  }

  /** What the file is to hold. */
  get value() {
    const values = this.fields.map((field) => field.value);
    // A line break inside a caption would make two of it.
    return this.several ? values.map((words) => words.split(/\s*\n\s*/).join(" ").trim()).filter(Boolean).join("\n") : values[0];
  }

  set readOnly(is) {
    for (const field of this.fields) field.readOnly = is;
    this.add.disabled = is;
  }

  focus(at = 0) {
    this.fields[at]?.focus();
  }

  fill(captions) {
    this.rows.replaceChildren(...(captions.length ? captions : [""]).map((words, at) => this.row(words, at)));
  }

  another() {
    const captions = this.several ? this.fields.map((field) => field.value) : [this.value.trim()];
    this.several = true;
    this.fill([...captions, ""]);
    this.focus(captions.length);
    this.onInput();
  }

  remove(at) {
    this.fill(this.fields.map((field) => field.value).filter((_, i) => i !== at));
    this.focus(Math.max(0, at - 1));
    this.onInput();
  }

  row(words, at) {
    const label = this.several ? text("dataset.caption.numbered", { number: at + 1 }) : text("dataset.caption.field");
    const field = make("textarea", { className: "mlt-caption", rows: this.several ? ROWS_OF_SEVERAL : ROWS, "aria-label": label, spellcheck: true });
    field.value = words;
    field.placeholder = text("dataset.noCaption");
    field.addEventListener("input", () => this.onInput());
    if (!this.several) return field;
    const remove = button("✕", text("dataset.caption.removeHint", { number: at + 1 }), () => this.remove(at));
    remove.setAttribute("aria-label", text("dataset.caption.removeHint", { number: at + 1 }));
    return make("div", { className: "mlt-caption-row" }, make("span", { className: "mlt-note" }, `${at + 1}`), field, remove);
  }
}
