// What can be done with an old run: use its LoRA, export a checkpoint, open its graph, train on, delete it.
import { ask } from "../page/ask.mjs?v=0.1.0";
import { isLive, size } from "./describe.mjs?v=0.1.0";
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { Renaming, stepName, titleOf } from "./kept/marks.mjs?v=0.1.0";
import { reportButton } from "./kept/report.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { tableButton } from "./table/dialog.mjs?v=0.1.0";

/**
 * Opens a graph that draws with and without a run's LoRA. Rejects with the server's words.
 * @param page opens graphs: {open(graph, name), refresh(), compare(roles)}.
 */
export async function useLora(store, page, run) {
  const { prompt, roles } = await store.useGraph(run.id);
  for (const [id, role] of Object.entries(roles)) prompt[id]._meta = { title: text(`runs.use.${role}`) };
  // The file may be younger than the page.
  await page.refresh();
  await page.open({ prompt }, text("runs.useTab", { name: run.name }));
  page.compare(roles);
}

/** A button that does so for the run that `choose` gives, and tells a failure to `fail`. */
export function useButton(store, page, choose, fail) {
  return button(text("runs.useLora"), text("runs.useHint"), () =>
    useLora(store, page, choose()).then(() => fail(""), (error) => fail(text("runs.failed", { reason: error.message }))));
}

export class RunActions {
  /**
   * @param store a RunStore.
   * @param page opens graphs: {open(graph, name), queue()}, and see `useLora`; `pictures(run)` the table of pictures.
   */
  constructor(store, page) {
    this.store = store;
    this.page = page;
    this.open = button(text("runs.open"), text("runs.openHint"), () => this.load(false));
    this.goOn = button(text("runs.goOn"), text("runs.goOnHint"), () => this.load(true));
    this.save = button(text("runs.export"), text("runs.exportHint"), () => this.write());
    this.drop = button(text("runs.delete"), text("runs.deleteHint"), () => this.remove());
    this.use = useButton(store, page, () => this.run, (words) => say(this.note, words));
    this.table = tableButton(page, () => this.run);
    this.renaming = new Renaming(store, () => this.run, (words) => say(this.note, words));
    this.report = reportButton(store, () => this.run, (words) => say(this.note, words));
    this.steps = make("select", { className: "mlt-field" });
    this.note = make("div", { className: "mlt-note", role: "status" });
    this.element = make(
      "div",
      { className: "mlt-actions", role: "group", "aria-label": text("runs.chosen") },
      make("div", { className: "mlt-row" }, this.use, this.table, this.open, this.goOn),
      make("div", { className: "mlt-row" }, make("label", {}, text("runs.checkpoint"), this.steps), this.save),
      make("div", { className: "mlt-row" }, this.renaming.element, this.report, this.drop),
      this.note,
    );
  }

  update(run) {
    if (run?.id !== this.run?.id) say(this.note, "");
    this.run = run;
    const rests = Boolean(run) && !isLive(run);
    this.drop.disabled = !rests || run.starred;
    this.drop.title = text(run?.starred ? "runs.deleteStarred" : "runs.deleteHint");
    this.use.disabled = !run?.written;
    this.open.disabled = !run?.graph;
    this.goOn.disabled = !run?.graph || !rests || run.state === "finished";
    const steps = run?.checkpoints ?? [];
    this.save.disabled = this.steps.disabled = !run?.exportable || !steps.length;
    const key = `${run?.id} ${steps.join()} ${run?.favoured}`;
    if (key === this.offered) return;
    this.offered = key;
    this.steps.replaceChildren(
      ...steps.toReversed().map((step, i) =>
        make("option", { value: step }, i || step === run.favoured ? stepName(run, step) : text("runs.newest", { step })),
      ),
    );
  }

  async write() {
    const step = Number(this.steps.value);
    await this.attempt(async (run) => text("runs.exported", { file: await this.store.exportRun(run.id, step) }));
  }

  /** Deletes the run, once a person has read what that frees and what stays. */
  async remove() {
    await this.attempt(async (run) => {
      const { bytes, written } = await this.store.sizeOf(run.id);
      const values = { name: titleOf(run), size: size(bytes), file: written };
      const words = [text("runs.deleteAsk", values), text(written ? "runs.fileStays" : "runs.fileNone", values)].join(" ");
      const choices = [["delete", text("runs.delete")], ["keep", text("runs.keep")]];
      if ((await ask(this.element, words, choices, 1)) !== "delete") return "";
      const freed = await this.store.deleteRun(run.id);
      return text("runs.deleted", { name: titleOf(run), size: size(freed) });
    });
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
