// One run: its state, its curves, and the buttons that act on it.
import { useButton } from "./actions.mjs?v=0.1.0";
import { apartButton, ApartPart } from "./apart/part.mjs?v=0.1.0";
import { Chart, colourOf } from "./chart.mjs?v=0.1.0";
import { Current } from "./current.mjs?v=0.1.0";
import { Ending } from "./ending.mjs?v=0.1.0";
import { begun, isLive, memory, number, progress, safeName } from "./describe.mjs?v=0.1.0";
import { Gallery } from "./samples/gallery.mjs?v=0.1.0";
import { headlessButton } from "./headless.mjs?v=0.1.0";
import { button, keepKeys, make, say } from "../page/elements.mjs?v=0.1.0";
import { CURVES, curvesIn, newest, OF_PICTURES, valuesAt } from "./series.mjs?v=0.1.0";
import { titleOf } from "./kept/marks.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { tableButton } from "./table/dialog.mjs?v=0.1.0";
import { verdict } from "./verdict.mjs?v=0.1.0";
import { told } from "../page/told.mjs?v=0.1.0";

const SHOWN_FIRST = new Set([
  "loss", "inside", "outside", "loss_low", "inside_low", "outside_low", "validation", ...OF_PICTURES,
]);
const CURRENT_HEIGHT = 330;
const GALLERY_HEIGHT = 540;
const CHART_HEIGHT = 160;
// Of the panel's style sheet: between its parts, and around them with the border.
const GAP = 6, PADDING = 18;
let panels = 0;

export class RunPanel {
  /**
   * Shows nothing before it is woken.
   * @param store a RunStore.
   * @param choose gives the run to show, or null; asked on every change.
   * @param {{roomy?: boolean, page?: object, pages: object}} options whether the pictures are shown from the start; what
   *   opens graphs, see `useLora`, where the panel shall offer to use the LoRA; what opens dialogs, by default the same;
   *   what gives the LoRA's name in the open graph, where the panel belongs to one of its nodes.
   */
  constructor(store, choose, { roomy = false, page = null, pages = page, name = null } = {}) {
    this.store = store;
    this.choose = choose;
    this.shown = new Set(SHOWN_FIRST);
    this.weight = 0.9;
    this.log = false;
    this.other = "";
    this.id = `mlt-panel-${(panels += 1)}`;
    this.hovered = null;
    this.tallest = 0;
    this.chart = new Chart((step) => {
      this.hovered = step;
      this.later();
    });
    this.current = new Current(store, roomy);
    this.gallery = new Gallery(store, roomy, pages);
    const use = page && useButton(store, page, choose, (words) => this.tell(words));
    this.ending = new Ending(roomy, use ? [use] : []);
    this.table = page && tableButton(page, () => this.choose());
    this.trainApart = name && apartButton(store.apart, page, (words) => this.tell(words));
    // Of another graph's training the side bar tells, and of all.
    this.apart = name && new ApartPart(store.apart, (start) => !name || safeName(start.name) === safeName(name()));
    this.headless = name && headlessButton(page, name, (words) => this.tell(words));
    this.element = this.build();
    keepKeys(this.element);
    for (const { element } of [this.current, this.gallery]) element.addEventListener("toggle", () => this.onroom?.());
    this.theme = new MutationObserver(() => this.later());
    // A panel that was not drawn when its lines came, or is narrower now.
    this.size = new ResizeObserver(() => this.makeRoom());
  }

  /** Follows its run from here on, until it sleeps. */
  wake() {
    if (this.leave) return;
    this.leave = this.store.listen(() => this.later(), () => this.wanted());
    for (const one of [document.documentElement, document.body]) {
      this.theme.observe(one, { attributes: true, attributeFilter: ["style", "class"] });
    }
    this.size.observe(this.element);
    this.chart.wake();
    this.update();
  }

  sleep() {
    this.leave?.();
    this.leave = undefined;
    this.theme.disconnect();
    this.size.disconnect();
    this.chart.sleep();
    cancelAnimationFrame(this.frame);
    this.frame = 0;
  }

  /** Lets go of what it holds; waking makes it anew. */
  destroy() {
    this.sleep();
    this.chart.destroy();
    this.current.destroy();
  }

  /** Height that the opened parts need besides, px. */
  room() {
    const open = (part, height) => (part.element.open ? height : 0);
    return open(this.current, CURRENT_HEIGHT) + open(this.gallery, GALLERY_HEIGHT);
  }

  /** Height that everything but what is opened needs, px; 0 while nothing is drawn. */
  height() {
    const opened = [this.current.element, this.gallery.element];
    const rows = [...this.element.children].filter((one) => one !== this.chart.element && one.getClientRects().length);
    const lines = rows.map((one) => (opened.includes(one) ? one.firstElementChild : one).offsetHeight + GAP);
    return lines.length ? CHART_HEIGHT + PADDING + lines.reduce((sum, line) => sum + line, 0) : 0;
  }

  wanted() {
    return [this.choose()?.id, this.other].filter(Boolean);
  }

  /** At most one drawing for each frame, however many messages come. */
  later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.update();
    });
  }

  build() {
    this.title = make("strong", { className: "mlt-title" });
    this.state = make("span", { className: "mlt-state", role: "status" });
    this.numbers = make("div", { className: "mlt-numbers" });
    this.verdict = make("div", { className: "mlt-verdict", role: "status" });
    this.note = make("div", { className: "mlt-note", role: "status" });
    this.chart.element.setAttribute("role", "img");
    this.legend = make("div", { className: "mlt-row mlt-legend", role: "group", "aria-label": text("runs.curves") });
    this.boxes = new Map(CURVES.map((key) => [key, this.curveBox(key)]));
    this.reading = make("span", { className: "mlt-value" });
    this.ofPictures = make("div", { className: "mlt-row mlt-legend", role: "group", "aria-label": text("runs.samples"), hidden: true });
    for (const [key, { label }] of this.boxes) (OF_PICTURES.includes(key) ? this.ofPictures : this.legend).append(label);
    this.legend.append(this.reading);
    return make(
      "section",
      { className: "mlt mlt-panel", "aria-label": text("runs.panel") },
      make("div", { className: "mlt-row mlt-head" }, this.title, this.state),
      ...(this.apart ? [this.apart.element] : []),
      this.numbers,
      this.chart.element,
      this.legend,
      this.ofPictures,
      this.verdict,
      this.settings(),
      this.buttons(),
      this.note,
      this.current.element,
      this.gallery.element,
      this.ending.element,
    );
  }

  curveBox(key) {
    const value = make("span", { className: "mlt-value" });
    const input = make("input", { type: "checkbox", checked: this.shown.has(key) });
    input.addEventListener("change", () => {
      if (input.checked) this.shown.add(key);
      else this.shown.delete(key);
      this.update();
    });
    const swatch = make("span", { className: "mlt-swatch", "aria-hidden": "true" });
    swatch.style.background = colourOf(key);
    const hint = text(`runs.curveHint.${key}`);
    const label = make("label", { className: "mlt-curve", title: hint }, input, swatch, text(`runs.curve.${key}`), value);
    return { label, value };
  }

  settings() {
    const log = make("input", { type: "checkbox" });
    log.addEventListener("change", () => {
      this.log = log.checked;
      this.update();
    });
    const range = make("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: this.weight });
    range.addEventListener("input", () => {
      this.weight = Number(range.value);
      this.update();
    });
    this.compare = make("select");
    this.compare.addEventListener("change", () => {
      this.other = this.compare.value;
      if (this.other) this.store.backfill(this.other);
      this.update();
    });
    return make(
      "div",
      { className: "mlt-row mlt-settings" },
      make("label", {}, log, text("runs.log")),
      make("label", {}, text("runs.smoothing"), range),
      make("label", {}, text("runs.compare"), this.compare),
    );
  }

  buttons() {
    this.stop = button(text("runs.stop"), text("runs.stopHint"), () => this.act("stop"));
    this.save = button(text("runs.save"), text("runs.saveHint"), () => this.act("save"));
    this.pause = button(text("runs.pause"), text("runs.pauseHint"), () =>
      this.act(this.choose()?.state === "paused" ? "resume" : "pause"));
    this.sample = button(text("runs.sample"), text("runs.sampleHint"), () => this.act("sample"));
    const more = [this.table, this.headless, this.trainApart?.element].filter(Boolean);
    return make("div", { className: "mlt-row mlt-buttons" }, this.stop, this.save, this.sample, this.pause, ...more);
  }

  async act(action) {
    const run = this.choose();
    if (!run) return;
    try {
      await this.store.act(run.id, action);
      this.tell(["stop", "save", "sample"].includes(action) ? text("runs.wished") : "", run);
    } catch (error) {
      this.tell(text("runs.failed", { reason: error.message }), run);
    }
  }

  /** Words about a run, shown until there are others. */
  tell(words, run = this.choose()) {
    Object.assign(this, { words, wordsOf: run?.id, wordsWhileLive: isLive(run) });
    this.update();
  }

  update() {
    const run = this.choose();
    if (run && !this.store.rows.has(run.id)) this.store.backfill(run.id);
    const rows = run ? this.store.rowsOf(run.id) : [];
    say(this.title, titleOf(run));
    say(this.state, run ? text(`runs.state.${run.state}`) : "");
    this.state.dataset.state = run?.state ?? "";
    say(this.numbers, run ? [progress(run), memory(run)].filter(Boolean).join(" · ") : "");
    this.judge(rows);
    this.apart?.update();
    say(this.note, this.message(run, rows));
    this.offer(run);
    this.trainApart?.update();
    this.stop.disabled = !isLive(run) || run.state === "stopping";
    this.save.disabled = this.pause.disabled = this.stop.disabled;
    if (this.table) this.table.disabled = !run;
    this.sample.disabled = this.stop.disabled || !run.can_sample;
    this.sample.title = text(isLive(run) && !run.can_sample ? "runs.sampleMissing" : "runs.sampleHint");
    say(this.pause, text(run?.state === "paused" ? "runs.resume" : "runs.pause"));
    const curves = curvesIn(rows);
    const last = this.hovered === null ? newest(rows, this.weight) : valuesAt(rows, this.weight, this.hovered);
    for (const [key, box] of this.boxes) {
      box.label.hidden = !curves.includes(key);
      say(box.value, number(last[key]));
    }
    this.ofPictures.hidden = !OF_PICTURES.some((key) => curves.includes(key));
    this.legend.dataset.hovered = this.hovered ?? "";
    say(this.reading, this.hovered === null ? "" : text("runs.hovered", { step: this.hovered }));
    this.current.update(run);
    this.gallery.update(run);
    this.ending.update(run);
    this.makeRoom();
    this.drawChart(run, rows, curves.filter((key) => this.shown.has(key)));
  }

  /** Asks for more height where a line has come or has grown. */
  makeRoom() {
    const height = this.height();
    if (height > this.tallest) {
      this.tallest = height;
      this.onroom?.();
    }
  }

  /** What the curves say about the mask, in words; nothing until they say something. */
  judge(rows) {
    const found = verdict(rows);
    say(this.verdict, found && text(`runs.verdict.${found}`));
    this.verdict.dataset.verdict = found;
    this.verdict.title = found && text("runs.verdictHint");
  }

  drawChart(run, rows, curves) {
    const names = curves.map((key) => text(`runs.curve.${key}`)).join(", ");
    const second = titleOf(this.store.run(this.other));
    const words = text(second ? "runs.chartOfTwo" : "runs.chart", { name: titleOf(run), other: second, curves: names });
    this.chart.element.setAttribute("aria-label", run ? words : "");
    if (!this.element.isConnected) return;
    const other = this.other ? [this.store.rowsOf(this.other)] : [];
    this.chart.draw([rows, ...other], { curves, weight: this.weight, log: this.log });
  }

  message(run, rows) {
    if (!this.store.online) return text("runs.offline");
    const begins = this.apart && !this.apart.element.hidden;
    if (!run) return (this.wordsOf === undefined && this.words) || (begins ? "" : text("runs.noRun"));
    if (isLive(run) && run.drawing) return text("runs.drawing", { ...run.drawing, done: run.drawing.done + 1 });
    if (isLive(run) && rows.length === 0) return text("runs.waiting");
    if (this.words && this.wordsOf === run.id && this.wordsWhileLive === isLive(run)) return this.words;
    const saved = run.checkpoints?.length ? text("runs.saved", { step: run.checkpoints.at(-1) }) : "";
    return [isLive(run) && told(run.message), saved].filter(Boolean).join(" · ");
  }

  /** The other runs in the list to compare with; rebuilt only when they have changed. */
  offer(run) {
    const others = this.store.runs.filter((one) => one.id !== run?.id);
    const key = others.map((one) => `${one.id} ${titleOf(one)}`).join();
    if (key === this.offered) return;
    this.offered = key;
    if (!others.some((one) => one.id === this.other)) this.other = "";
    this.compare.replaceChildren(
      make("option", { value: "" }, text("runs.nothing")),
      ...others.map((one) => make("option", { value: one.id }, `${titleOf(one)} (${begun(one)})`)),
    );
    this.compare.value = this.other;
  }
}
