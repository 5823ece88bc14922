// What a person notes on a run: a name of their own, and a star.
import { button, make, say } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";

const MOST_LETTERS = 80;

/** The name of a run for people: their own for it, else the one it was asked for under. */
export const titleOf = (run) => run?.label || run?.name || "";

/** A step of a run as it is named, `told` where it is told otherwise; the one that its measures favour says so. */
export const stepName = (run, step, told = step) =>
  text(step && step === run?.favoured ? "runs.atFavoured" : "runs.atStep", { step: told });

/** Starred runs first, else as they are. */
export const starredFirst = (runs) => [...runs.filter((run) => run.starred), ...runs.filter((run) => !run.starred)];

/** A star that can be given and taken away; `choose` gives its run, `fail` is told what went wrong. */
export function starButton(store, choose, fail) {
  const star = button("☆", "", async () => {
    const run = choose();
    await store.mark(run.id, { starred: !run.starred }).catch((error) => fail(text("runs.failed", { reason: error.message })));
  });
  star.classList.add("mlt-star");
  return star;
}

export function showStar(star, run) {
  say(star, run?.starred ? "★" : "☆");
  star.setAttribute("aria-pressed", String(Boolean(run?.starred)));
  star.title = text(run?.starred ? "runs.unstarHint" : "runs.starHint");
  star.setAttribute("aria-label", text("runs.starOf", { name: titleOf(run) }));
}

/** A button that turns into a field for a run's name: Enter keeps it, Escape and leaving it do not. */
export class Renaming {
  constructor(store, choose, fail) {
    Object.assign(this, { store, choose, fail });
    this.button = button(text("runs.rename"), text("runs.renameHint"), () => this.begin());
    this.field = make("input", { type: "text", className: "mlt-field", maxLength: MOST_LETTERS, hidden: true });
    this.field.setAttribute("aria-label", text("runs.renameHint"));
    this.field.addEventListener("keydown", (event) => this.key(event));
    this.field.addEventListener("blur", () => this.end(false));
    this.element = make("span", { className: "mlt-rename" }, this.button, this.field);
  }

  begin() {
    this.run = this.choose();
    this.field.value = titleOf(this.run);
    this.field.placeholder = this.run.name;
    this.button.hidden = true;
    this.field.hidden = false;
    this.field.focus();
    this.field.select();
  }

  key(event) {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    this.end(event.key === "Enter");
    this.button.focus();
  }

  end(keeps) {
    if (this.field.hidden) return;
    const { run } = this;
    const wanted = this.field.value.trim();
    this.button.hidden = false;
    this.field.hidden = true;
    if (!keeps || wanted === titleOf(run)) return;
    // Its first name is no name of the person's own.
    const label = wanted === run.name ? "" : wanted;
    this.store.mark(run.id, { label }).catch((error) => this.fail(text("runs.failed", { reason: error.message })));
  }
}
