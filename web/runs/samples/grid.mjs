// All sample pictures of a run at once, steps by prompts, at a strength: one is seen large, a step becomes the LoRA.
import { useLora } from "../actions.mjs?v=0.1.0";
import { isLive } from "../describe.mjs?v=0.1.0";
import { stepName, titleOf } from "../kept/marks.mjs?v=0.1.0";
import { button, make, say } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";
import { Gallery } from "./gallery.mjs?v=0.1.0";
import { atStrength, FULL, prompts, query, strengths, strengthToShow, toldStep } from "./pictures.mjs?v=0.1.0";

export class SampleGrid {
  /** @param {{store: RunStore, run: object, page: object}} options page opens graphs, see `useLora`. */
  constructor({ store, run, page }) {
    Object.assign(this, { store, page, id: run.id });
    this.cells = new Map();
    this.marked = [];
    this.large = new Gallery(store, true, null, (number, step) => this.mark(number, step));
    this.strength = FULL;
    this.element = this.build(run);
    this.element.addEventListener("close", () => this.leave());
    // What is typed here is meant for the pictures, not for the graph behind them.
    this.element.addEventListener("keydown", (event) => event.stopPropagation());
  }

  open() {
    document.body.append(this.element);
    this.element.showModal();
    this.ends = this.store.listen(() => this.update());
    this.update();
    return this;
  }

  leave() {
    this.ends?.();
    this.element.remove();
  }

  build(run) {
    const title = text("runs.grid.title", { name: titleOf(run) });
    const close = button(text("dataset.close"), `${text("dataset.close")} (Esc)`, () => this.element.close());
    this.note = make("p", { className: "mlt-note", role: "status" });
    this.use = button(text("runs.useLora"), text("runs.useHint"), () => this.attempt(async () => {
      await useLora(this.store, this.page, this.run());
      this.element.close();
    }));
    this.choice = this.strengthChoice();
    this.head = make("tr");
    this.body = make("tbody");
    const table = make("table", {}, make("thead", {}, this.head), this.body);
    this.space = make("div", { className: "mlt-grid-space", tabIndex: 0 }, table);
    return make(
      "dialog",
      { className: "mlt mlt-dialog mlt-sample-grid", "aria-label": title },
      make("div", { className: "mlt-row mlt-dialog-head" }, make("strong", { className: "mlt-title" }, title), this.choice, this.use, close),
      make("p", { className: "mlt-note" }, text("runs.grid.about")),
      this.note,
      make("div", { className: "mlt-grid-sides" }, this.space, make("div", { className: "mlt-grid-large" }, this.large.element)),
    );
  }

  /** The strengths to choose from; hidden where the training's pictures are all there are. */
  strengthChoice() {
    this.select = make("select");
    this.select.addEventListener("change", () => {
      this.strength = this.select.value;
      this.update();
    });
    return make("label", { title: text("runs.grid.strengthHint"), hidden: true }, text("runs.grid.strength"), this.select);
  }

  /** Offers the strengths at which there are pictures, and takes the wanted one of them. */
  offer(list) {
    const all = strengths(list);
    this.choice.hidden = all.every((one) => one === FULL);
    if (`${all}` !== this.offered) this.select.replaceChildren(...all.map((one) => make("option", { value: one }, one)));
    this.offered = `${all}`;
    this.strength = this.large.strength = strengthToShow(list, this.strength);
    this.select.value = this.strength;
  }

  run() {
    return this.store.run(this.id);
  }

  update() {
    const run = this.run();
    if (!run) return;
    const known = run.pictures_mark ? this.store.samplesOf(run) : null;
    if (known) this.offer(known);
    const list = atStrength(known, this.strength);
    const offered = prompts(list), steps = list?.steps ?? [];
    this.use.disabled = !run.written;
    this.large.update(run);
    const key = JSON.stringify([list?.look, this.strength, steps, run.checkpoints, run.favoured, run.written, run.exportable, isLive(run)]);
    if (key === this.drawn) return;
    this.drawn = key;
    if (!offered.length) say(this.note, text("runs.samplesNone"));
    this.head.replaceChildren(
      make("th", { scope: "col" }, text("runs.grid.step")),
      ...offered.map(({ prompt }) => make("th", { scope: "col", title: prompt }, make("span", {}, prompt))),
    );
    const inside = this.space.contains(document.activeElement);
    this.body.replaceChildren(...steps.map((one) => this.row(run, list, one, offered)));
    this.mark(...this.marked);
    // A button that is gone takes the keys' way into the dialog with it.
    if (inside && !this.space.contains(document.activeElement)) this.space.focus();
  }

  row(run, list, { step, numbers }, offered) {
    const name = step ? stepName(run, step) : text("runs.base");
    const hint = step && step === run.favoured ? text("runs.favouredHint") : "";
    const cells = offered.map(({ number, prompt }) =>
      make("td", {}, numbers.includes(number) ? this.cell(run, list, step, number, prompt) : ""));
    return make("tr", { ariaCurrent: this.isPicked(run, step) ? "true" : null }, make("th", { scope: "row", title: hint }, name, this.pick(run, step)), ...cells);
  }

  /** A picture, which is made once and stays when others come. */
  cell(run, list, step, number, prompt) {
    const source = `${this.store.pictureUrl(run.id, step, number)}${query(list, step, this.strength)}`;
    if (!this.cells.has(source)) {
      const alt = step ? text("runs.pictureAlt", { prompt, step: toldStep(step, this.strength) }) : text("runs.baseAlt", { prompt });
      const image = make("img", { src: source, alt, loading: "lazy", decoding: "async", width: list.width, height: list.height });
      const open = make("button", { type: "button", className: "mlt-grid-cell", title: text("runs.grid.large") }, image);
      open.addEventListener("click", () => this.large.choose(number, step));
      this.cells.set(source, { open, number, step });
    }
    return this.cells.get(source).open;
  }

  /** Frames what is shown large; each strength has cells of its own. */
  mark(number, step) {
    this.marked = [number, step];
    for (const one of this.cells.values()) one.open.ariaPressed = String(one.number === number && one.step === step);
  }

  /** What makes a step the run's LoRA: a button where its checkpoint was kept. */
  pick(run, step) {
    if (!step) return "";
    if (this.isPicked(run, step)) return make("span", { className: "mlt-note" }, text("runs.grid.picked"));
    if (!run.checkpoints.includes(step)) {
      return make("span", { className: "mlt-note", title: text("runs.grid.notKeptHint") }, text("runs.grid.notKept"));
    }
    const choose = button(text("runs.grid.pick"), text("runs.grid.pickHint", { step }), () => this.attempt(async () => {
      say(this.note, text("runs.written", { file: await this.store.pickStep(run.id, step) }));
    }));
    choose.disabled = isLive(run) || !run.exportable;
    return choose;
  }

  /** Whether the run's LoRA is that of a step: its file's name ends so, or it is the whole run's. */
  isPicked(run, step) {
    const file = run.written ?? "";
    const told = /-step0*(\d+)\.safetensors$/.exec(file);
    if (told) return Number(told[1]) === step;
    return Boolean(file) && step === run.step;
  }

  async attempt(act) {
    try {
      say(this.note, "");
      await act();
    } catch (error) {
      say(this.note, text("runs.failed", { reason: error.message }));
    }
  }
}
