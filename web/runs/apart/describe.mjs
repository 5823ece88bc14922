// A training apart in words. Pure functions.
import { goesOn } from "./store.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";
import { told } from "../../page/told.mjs?v=0.1.0";

/** The name of the button: by cards only where there are several. */
export function buttonName(choices) {
  return text(choices?.cards > 1 ? "runs.apart.allCards" : "runs.apart.ownProcess");
}

/** What it is doing, or how it ended, in a line. */
export function stateLine(start) {
  if (!goesOn(start)) return text(`runs.apart.end.${start.end.state}`);
  if (start.cancelled) return text(start.step ? "runs.apart.cancelling" : "runs.apart.cancellingEarly");
  return text(`runs.apart.${start.state}`, { count: start.count });
}

/** What follows the line: the node at work, or the reasons of an end. */
export function details(start) {
  if (!goesOn(start)) return start.end.reasons.map(told).join("\n");
  const at = start.progress;
  if (!at || start.cancelled) return "";
  const far = at.total ? `${Math.round(at.done)} / ${Math.round(at.total)}` : "";
  return [at.title, far, told(at.text)].filter(Boolean).join(" · ");
}

/** The warnings and errors that it has told, each once, the last ones. */
export function warnings(start, most = 6) {
  const found = start.said.filter(({ level }) => level !== "note").map((one) => `${one.title}: ${told(one.text)}`);
  return [...new Set(found)].slice(-most);
}

/** What a person is told before the start, line by line. */
export function plan(choices, count) {
  const lines = [text("runs.apart.about")];
  if (count > 1) lines.push(text("runs.apart.together", { count }));
  if (choices.cards > 1 && count < choices.cards) lines.push(text("runs.apart.fewer", { cards: choices.cards }));
  if (choices.cards === 1) lines.push(text("runs.apart.oneCard"));
  if (choices.cards === 0) lines.push(text(count > 1 ? "runs.apart.noCards" : "runs.apart.noCard"));
  if (choices.cards > 0) lines.push(text("runs.apart.unloads"));
  return lines;
}
