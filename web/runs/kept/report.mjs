// The report on a run for somebody who helps, on the clipboard; where a page may not use that, to be copied by hand.
import { button, make } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";

/** Shows a text so that it can be copied by hand; it is selected. */
function show(parent, words) {
  const field = make("textarea", { className: "mlt-field mlt-report-text", readOnly: true, value: words });
  field.setAttribute("aria-label", text("runs.report"));
  const dialog = make("dialog", { className: "mlt mlt-ask" }, make("p", {}, text("runs.reportByHand")), field);
  dialog.append(make("div", { className: "mlt-row" }, button(text("dataset.close"), `${text("dataset.close")} (Esc)`, () => dialog.close())));
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  dialog.addEventListener("close", () => dialog.remove());
  parent.append(dialog);
  dialog.showModal();
  field.focus();
  field.select();
}

/** A button that copies the report on the run that `choose` gives, and says what it did to `tell`. */
export function reportButton(store, choose, tell) {
  const copy = async () => {
    let words;
    try {
      words = await store.reportOf(choose().id);
    } catch (error) {
      tell(text("runs.failed", { reason: error.message }));
      return;
    }
    try {
      await navigator.clipboard.writeText(words);
      tell(text("runs.reportCopied"));
    } catch {
      show(copied.parentElement, words);
    }
  };
  const copied = button(text("runs.report"), text("runs.reportHint"), copy);
  return copied;
}
