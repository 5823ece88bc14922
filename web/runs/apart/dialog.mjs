// The question before a training apart: by how many processes, and what that means.
import { buttonName, plan } from "./describe.mjs?v=0.1.0";
import { button, make } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";

/**
 * The number of processes that a person has chosen; null where that was no start.
 * @param {{cards: number, most: number, usual: number, queue: boolean}} choices as the server tells them.
 */
export function askCount(parent, choices) {
  return new Promise((resolve) => {
    const title = buttonName(choices);
    const field = make("input", {
      type: "number", className: "mlt-field mlt-apart-count", min: 1, max: choices.most, step: 1, value: choices.usual,
    });
    const lines = make("ul", { className: "mlt-notes", role: "status" });
    const answer = (count) => {
      dialog.close();
      dialog.remove();
      resolve(count);
    };
    const start = button(text("runs.apart.start"), text("runs.apart.start"), () => answer(Number(field.value)));
    const cancel = button(text("runs.apart.notNow"), `${text("runs.apart.notNow")} (Esc)`, () => answer(null));
    const show = () => {
      start.disabled = choices.queue || !field.value || !field.checkValidity();
      const told = choices.queue ? [text("runs.apart.queue")] : plan(choices, Number(field.value));
      lines.replaceChildren(...told.map((line) => make("li", {}, line)));
    };
    field.addEventListener("input", show);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !start.disabled) start.click();
    });
    const count = make("label", { className: "mlt-row" }, text(choices.cards ? "runs.apart.cards" : "runs.apart.processes"), field);
    count.hidden = choices.most < 2;
    const dialog = make(
      "dialog",
      { className: "mlt mlt-ask mlt-apart-ask", "aria-label": title },
      make("h2", {}, title), count, lines, make("div", { className: "mlt-row" }, start, cancel),
    );
    dialog.addEventListener("keydown", (event) => event.stopPropagation());
    dialog.addEventListener("cancel", (event) => event.stopPropagation());
    dialog.addEventListener("close", (event) => {
      event.stopPropagation();
      answer(null);
    });
    show();
    parent.append(dialog);
    dialog.showModal();
    (start.disabled ? cancel : start).focus();
  });
}
