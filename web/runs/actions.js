// What can be done with an old run: export a checkpoint, open its graph, train on.
import { isLive } from "./describe.js";
import { button, make, say } from "../page/elements.js";
import { text } from "../page/strings.js";

export class RunActions {
  /**
   * @param store a RunStore.
   * @param page opens graphs: {open(graph, name), queue()}.
   */
  constructor(store, page) {
    this.store = store;
    this.page = page;
    this.open = button(text("runs.open"), text("runs.openHint"), () => this.load(false));
    this.goOn = button(text("runs.goOn"), text("runs.goOnHint"), () => this.load(true));
    this.save = button(text("runs.export"), text("runs.exportHint"), () => this.write());
    this.steps = make("select", { className: "mlt-field" });
    this.note = make("div", { className: "mlt-note", role: "status" });
    this.element = make(
      "div",
      { className: "mlt-actions", role: "group", "aria-label": text("runs.chosen") },
      make("div", { className: "mlt-row" }, this.open, this.goOn),
      make("div", { className: "mlt-row" }, make("label", {}, text("runs.checkpoint"), this.steps), this.save),
      this.note,
    );
  }

  update(run) {
    if (run?.id !== this.run?.id) say(this.note, "");
    this.run = run;
    const rests = Boolean(run) && !isLive(run);
    this.open.disabled = !run?.graph;
    this.goOn.disabled = !run?.graph || !rests || run.state === "finished";
    const steps = run?.checkpoints ?? [];
    this.save.disabled = this.steps.disabled = !run?.exportable || !steps.length;
    const key = `${run?.id} ${steps.join()}`;
    if (key === this.offered) return;
    this.offered = key;
    this.steps.replaceChildren(
      ...steps.toReversed().map((step, i) =>
        make("option", { value: step }, text(i ? "runs.atStep" : "runs.newest", { step })),
      ),
    );
  }

  async write() {
    const step = Number(this.steps.value);
    await this.attempt(async (run) => text("runs.exported", { file: await this.store.exportRun(run.id, step) }));
  }

  async load(queue) {
    await this.attempt(async (run) => {
      await this.page.open(await this.store.graph(run.id), run.name);
      if (queue) await this.page.queue();
      return text(queue ? "runs.queued" : "runs.opened");
    });
  }

  async attempt(act) {
    const run = this.run;
    try {
      say(this.note, await act(run));
    } catch (error) {
      say(this.note, text("runs.failed", { reason: error.message }));
    }
  }
}
