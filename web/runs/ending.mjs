// How a run ended, as the last lines of its panel: the file that was written, or why there is none.
import { isLive } from "./describe.mjs?v=0.1.0";
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { told } from "../page/told.mjs?v=0.1.0";

const COPIED_MS = 1500;

/** The LoRA files of a run: none, one, or those of its two models. */
export function filesOf(run) {
  return [run?.written, run?.written_low].filter(Boolean);
}

/** Why a run wrote no LoRA and what can be done about it; empty where it did, may still, or is no run. */
export function loss(run) {
  if (!run || run.written || isLive(run)) return "";
  const step = run.checkpoints?.at(-1);
  const reason = run.failed ? `${text("runs.reason", { reason: told(run.failed) })} ` : "";
  if (!run.failed && run.state !== "open") return "";
  const rest = step !== undefined && run.exportable ? text("runs.canExport", { step }) : text("runs.noCheckpoint");
  return `${reason}${text("runs.nothingWritten")} ${rest}`;
}

export class Ending {
  /**
   * @param {boolean} roomy whether there is room for what was told at the start of the training.
   * @param {HTMLElement[]} buttons for what is done with the file.
   */
  constructor(roomy, buttons) {
    this.reason = make("div", { className: "mlt-bad", role: "status" });
    this.taken = make("div", { className: "mlt-bad" });
    this.file = make("output", { className: "mlt-file" });
    this.copy = button(text("runs.copy"), text("runs.copyHint"), () => this.copyFile());
    this.row = make("div", { className: "mlt-row mlt-written" }, this.file, this.copy, ...buttons);
    this.notes = make("ul", { className: "mlt-notes" });
    this.told = make("details", { className: "mlt-part", open: true }, make("summary", {}, text("runs.notes")), this.notes);
    this.element = make("div", { className: "mlt-ending" }, ...(roomy ? [this.told] : []), this.reason, this.taken, this.row);
  }

  update(run) {
    const written = filesOf(run).join("\n");
    say(this.reason, loss(run));
    say(this.taken, written && run.taken ? text("runs.taken", { wanted: run.taken, file: run.written.split("/").at(-1) }) : "");
    say(this.file, written ? text("runs.written", { file: filesOf(run).join(", ") }) : "");
    this.row.hidden = !written;
    if (written !== this.written) say(this.copy, text("runs.copy"));
    this.written = written;
    this.list(run?.notes ?? []);
    this.element.hidden = ![...this.element.children].some((one) => !one.hidden && one.textContent);
  }

  list(notes) {
    const key = JSON.stringify(notes);
    if (key === this.listed) return;
    this.listed = key;
    this.told.hidden = !notes.length;
    this.notes.replaceChildren(
      ...notes.map((one) => make("li", { className: one.level === "warning" ? "mlt-bad" : "" }, told(one.text))),
    );
  }

  async copyFile() {
    try {
      await navigator.clipboard.writeText(this.written);
    } catch {
      // Only pages of a safe address may use the clipboard; what is selected can be copied by hand.
      getSelection().selectAllChildren(this.file);
      return;
    }
    say(this.copy, text("runs.copied"));
    setTimeout(() => say(this.copy, text("runs.copy")), COPIED_MS);
  }
}
