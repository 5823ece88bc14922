// A question in a dialog of its own: the answer is the name of the chosen button.
import { button, make } from "./elements.mjs?v=0.1.0";

/**
 * @param {[string, string][]} choices name and label; Escape means the last one.
 * @param {number} first which of them Enter means at once.
 */
export function ask(parent, words, choices, first = 0) {
  return new Promise((resolve) => {
    const message = make("p", {}, words);
    const dialog = make("dialog", { className: "mlt mlt-ask", role: "alertdialog", "aria-label": words });
    // At once, not with the event that follows a close by and by: a person may press the next key before it. Closing
    // gives the focus back.
    const answer = (name) => {
      dialog.close();
      dialog.remove();
      resolve(name);
    };
    const buttons = choices.map(([name, label]) => button(label, label, () => answer(name)));
    dialog.append(message, make("div", { className: "mlt-row" }, ...buttons));
    dialog.addEventListener("keydown", (event) => event.stopPropagation());
    dialog.addEventListener("cancel", (event) => event.stopPropagation());
    dialog.addEventListener("close", (event) => {
      event.stopPropagation();
      answer(choices[choices.length - 1][0]);
    });
    parent.append(dialog);
    dialog.showModal();
    buttons[first].focus();
  });
}
