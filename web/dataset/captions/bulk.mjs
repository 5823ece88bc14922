// One change to many captions: written down, previewed, carried out while one watches, and taken back.
import { button, make, say } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";
import { dropDown } from "../controls.mjs?v=0.1.0";
import { difference } from "./tags.mjs?v=0.1.0";
import { told } from "../../page/told.mjs?v=0.1.0";

const ACTIONS = ["add at start", "add at end", "remove tag", "replace tag", "replace text"];
const REPLACES = ["replace tag", "replace text"];
const ADDS = ["add at start", "add at end"];
const TICK = 300;
// Letters around what changes that show where it is.
const CONTEXT = 24;

export class BulkChange {
  /**
   * @param source a DatasetSource.
   * @param {{shown: () => number[], before: () => Promise<boolean>}} options shown gives the indices of the pictures
   *   that are listed; before saves what is being written by hand, and gives false where that cannot be done.
   */
  constructor(source, { shown, before }) {
    Object.assign(this, { source, shown, before });
    this.action = dropDown(text("dataset.bulk.action"), ACTIONS.map((key) => [key, text(`dataset.bulk.actions.${key}`)]), ACTIONS[0], () => this.forget());
    this.words = this.field(text("dataset.bulk.text"));
    this.by = this.field(text("dataset.bulk.by"));
    this.scope = dropDown(text("dataset.bulk.scope"), [["all", ""], ["shown", ""]], "all", () => this.forget());
    this.look = button(text("dataset.bulk.preview"), text("dataset.bulk.previewHint"), () => this.preview());
    this.back = button("", text("dataset.bulk.undoHint"), () => this.start("undo", {}));
    this.halt = button(text("dataset.bulk.stop"), text("dataset.bulk.stopHint"), () => this.send("stop", {}));
    this.bar = make("progress", { className: "mlt-bulk-bar", max: 1, value: 0, "aria-label": text("dataset.bulk.title") });
    this.state = make("div", { className: "mlt-bulk-state", role: "status" });
    this.found = make("div", { className: "mlt-bulk-found" });
    this.element = make(
      "section",
      { className: "mlt-bulk", "aria-label": text("dataset.bulk.title") },
      make("strong", {}, text("dataset.bulk.title")),
      this.action,
      this.words,
      this.by,
      this.scope,
      make("div", { className: "mlt-row" }, this.look, this.back, this.halt),
      this.bar,
      this.state,
      this.found,
    );
    this.work = { running: false, undo: 0 };
    this.update();
  }

  field(label) {
    const field = make("input", { type: "text", className: "mlt-field", "aria-label": label, placeholder: label });
    field.addEventListener("input", () => this.forget());
    field.addEventListener("keydown", (event) => event.key === "Enter" && !this.look.disabled && this.preview());
    return field;
  }

  /** Takes a tag that was clicked for the one to remove or replace, unless another was written down. */
  offer(tag) {
    if (ADDS.includes(this.action.value) || (this.words.value && this.words.value !== this.offered)) return;
    this.words.value = this.offered = tag;
    this.forget();
  }

  /** Learns what is going on, also after the page was loaded anew. */
  async open() {
    try {
      this.work = await this.source.ask("/captions/work");
    } catch {
      // The list of the pictures tells why.
    }
    this.update();
    if (this.work.running) this.follow();
  }

  /** Other words or pictures need another preview. */
  forget() {
    if (this.plan) {
      this.plan = null;
      this.found.replaceChildren();
      say(this.state, "");
    }
    this.update();
  }

  update() {
    const { running, undo } = this.work;
    const [all, shown] = this.scope.options;
    const count = this.shown().length;
    all.textContent = text("dataset.bulk.all", { count: this.source.rows.length });
    shown.textContent = text("dataset.bulk.shown", { count });
    this.by.hidden = !REPLACES.includes(this.action.value);
    this.look.disabled = running || !this.words.value;
    this.back.hidden = !undo || running;
    this.back.textContent = text("dataset.bulk.undo", { count: undo });
    this.halt.hidden = this.bar.hidden = !running;
  }

  async preview() {
    this.forget();
    if (!(await this.before())) return;
    const pictures = this.scope.value === "all" ? null : this.shown();
    const body = { action: this.action.value, text: this.words.value, by: this.by.hidden ? "" : this.by.value, pictures };
    const plan = await this.send("preview", body);
    if (!plan) return;
    this.plan = plan;
    this.showPlan(plan);
  }

  showPlan({ plan, total, changes, new: made, examples, problems, failed }) {
    say(this.state, [text("dataset.bulk.summary", { count: total, changes }), made ? text("dataset.bulk.new", { count: made }) : ""].join(" "));
    const carry = button(text("dataset.bulk.apply", { count: changes }), text("dataset.bulk.applyHint"), () => this.start("apply", { plan }));
    carry.hidden = !changes;
    this.found.replaceChildren(
      make("div", { className: "mlt-row" }, carry),
      make("ul", { className: "mlt-bulk-examples" }, ...examples.map(example)),
      ...failures(problems, failed, text("dataset.bulk.cannot", { count: failed })),
    );
  }

  async start(route, body) {
    const work = await this.send(route, body);
    if (!work) return;
    this.work = work;
    this.forget();
    this.found.replaceChildren();
    await this.follow();
  }

  /** Shows how far the work is until it is done, and then what became of it. */
  async follow() {
    if (this.following) return;
    this.following = true;
    while (this.work.running && !this.closed) {
      this.bar.value = this.work.total ? this.work.done / this.work.total : 0;
      say(this.state, text("dataset.bulk.running", { done: this.work.done, total: this.work.total }));
      await new Promise((done) => setTimeout(done, TICK));
      this.work = (await this.source.ask("/captions/work").catch(() => null)) ?? this.work;
    }
    this.following = false;
    if (this.closed) return;
    await this.source.refresh();
    const { kind, changed, stopped, problems, failed } = this.work;
    say(this.state, [stopped ? text("dataset.bulk.stopped") : "", text(`dataset.bulk.done.${kind}`, { count: changed })].join(" ").trim());
    this.update();
    this.found.replaceChildren(...failures(problems, failed, text("dataset.bulk.failed", { count: failed })));
  }

  /** What the server answers; null where it refuses, which is told. */
  async send(route, body) {
    try {
      return await this.source.ask(`/captions/${route}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
    } catch (error) {
      say(this.state, error.message);
      return null;
    }
  }
}

function example({ name, before, after }) {
  const [head, gone, come, tail] = difference(before, after);
  const parts = [
    head.length > CONTEXT ? `…${head.slice(-CONTEXT)}` : head,
    gone && make("del", {}, gone),
    come && make("ins", {}, come),
    tail.length > CONTEXT ? `${tail.slice(0, CONTEXT)}…` : tail,
  ];
  const label = text("dataset.bulk.example", { before, after });
  return make("li", {}, make("div", { className: "mlt-note" }, name), make("div", { title: label }, ...parts.filter(Boolean)));
}

function failures(problems, failed, words) {
  if (!failed) return [];
  const more = failed > problems.length ? [make("li", {}, text("dataset.more", { count: failed - problems.length }))] : [];
  const lines = problems.map((one) => make("li", {}, told(one)));
  return [make("div", {}, words), make("ul", { className: "mlt-warnings" }, ...lines, ...more)];
}
