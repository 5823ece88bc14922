// The sample pictures of a run: a prompt, a step, and a slider between the base model and that step.
import { atStrength, FULL, prompts, query, stepsOf, stepToShow, toldStep } from "./pictures.mjs?v=0.1.0";
import { stepName } from "../kept/marks.mjs?v=0.1.0";
import { button, make, say } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";

export class Gallery {
  /**
   * @param store a RunStore.
   * @param {boolean} open whether it starts open.
   * @param {{samples: function}?} page opens the grid of a run's pictures; null where this is shown in it.
   * @param {(number: number, step: number) => void} onShow told of the prompt and the step that are shown.
   */
  constructor(store, open, page = null, onShow = () => {}) {
    Object.assign(this, { store, page, onShow });
    this.number = 0;
    this.wanted = null;
    this.strength = FULL;
    this.element = make(
      "details",
      { className: "mlt-part mlt-gallery", open },
      make("summary", {}, text("runs.samples")),
      this.build(),
    );
    this.element.addEventListener("toggle", () => this.update(this.run));
  }

  build() {
    this.prompt = make("select");
    this.prompt.addEventListener("change", () => {
      this.number = Number(this.prompt.value);
      this.update(this.run);
    });
    this.step = make("input", { type: "range", min: 0, max: 0, step: 1, value: 0 });
    this.step.addEventListener("input", () => {
      const at = Number(this.step.value);
      // The last one stays the newest when another comes.
      this.wanted = at === this.steps.length - 1 ? null : this.steps[at];
      this.update(this.run);
    });
    this.at = make("output", { className: "mlt-value" });
    this.none = make("p", { className: "mlt-note" });
    this.pictures = make(
      "div",
      {},
      make("div", { className: "mlt-row" }, make("label", {}, text("runs.prompt"), this.prompt), this.gridButton()),
      this.compare(),
      make("div", { className: "mlt-row" }, make("label", { className: "mlt-step" }, text("runs.step"), this.step, this.at)),
    );
    return make("div", {}, this.none, this.pictures);
  }

  gridButton() {
    return this.page ? button(text("runs.grid.button"), text("runs.grid.buttonHint"), () => this.page.samples(this.run)) : "";
  }

  /** Shows a prompt's picture of a step. */
  choose(number, step) {
    this.number = number;
    this.wanted = step;
    this.prompt.value = number;
    this.update(this.run);
  }

  compare() {
    this.after = make("img", { className: "mlt-after", decoding: "async" });
    this.before = make("img", { className: "mlt-before", decoding: "async" });
    this.wipe = make("input", { type: "range", className: "mlt-wipe", min: 0, max: 100, step: 1, value: 50 });
    this.wipe.addEventListener("input", () => this.cut());
    this.left = make("span", { className: "mlt-tag mlt-tag-left", "aria-hidden": "true" }, text("runs.base"));
    this.right = make("span", { className: "mlt-tag mlt-tag-right", "aria-hidden": "true" });
    this.line = make("span", { className: "mlt-line", "aria-hidden": "true" });
    this.frame = make(
      "div",
      { className: "mlt-compare" },
      this.after, this.before, this.line, this.left, this.right, this.wipe,
    );
    this.cut();
    return this.frame;
  }

  cut() {
    this.frame.style.setProperty("--mlt-cut", `${this.wipe.value}%`);
  }

  update(run) {
    this.run = run;
    const list = run?.pictures_mark ? atStrength(this.store.samplesOf(run), this.strength) : null;
    const offered = prompts(list);
    this.pictures.hidden = offered.length === 0;
    say(this.none, offered.length || run?.pictures_mark || run?.can_sample ? "" : text("runs.samplesNone"));
    if (!offered.length || !this.element.open) return;
    this.offer(offered);
    this.show(run, list, offered);
  }

  offer(offered) {
    const key = JSON.stringify(offered);
    if (key === this.offered) return;
    this.offered = key;
    if (!offered.some((one) => one.number === this.number)) this.number = offered[0].number;
    this.prompt.replaceChildren(...offered.map((one) => make("option", { value: one.number }, one.prompt)));
    this.prompt.value = this.number;
  }

  show(run, list, offered) {
    const words = offered.find((one) => one.number === this.number).prompt;
    this.steps = stepsOf(list, this.number);
    const step = stepToShow(this.steps, this.wanted);
    this.step.max = this.steps.length - 1;
    this.step.value = this.steps.indexOf(step);
    this.step.disabled = this.steps.length < 2;
    const told = step ? toldStep(step, this.strength) : step;
    const name = stepName(run, step, told);
    this.step.setAttribute("aria-valuetext", name);
    say(this.at, name);
    say(this.right, name);
    const hasBase = this.steps[0] === 0;
    this.before.hidden = this.wipe.hidden = this.line.hidden = this.left.hidden = !hasBase;
    this.wipe.setAttribute("aria-label", text("runs.wipe", { step }));
    this.frame.style.setProperty("aspect-ratio", `${list.width} / ${list.height}`);
    this.load(this.after, run, list, step, text("runs.pictureAlt", { prompt: words, step: told }));
    if (hasBase) this.load(this.before, run, list, 0, text("runs.baseAlt", { prompt: words }));
    this.onShow(this.number, step);
  }

  load(image, run, list, step, words) {
    const source = `${this.store.pictureUrl(run.id, step, this.number)}${query(list, step, this.strength)}`;
    if (image.dataset.source === source) return;
    image.dataset.source = image.src = source;
    image.alt = words;
  }
}
