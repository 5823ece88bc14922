// The demo's graphs in the sidebar, where the pack was installed with its demo.
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";

const ROUTE = "/masked_lora/demo";

export class Demos {
  /**
   * @param store a RunStore, which asks the server.
   * @param page opens graphs: {open(graph, name), refresh()}.
   */
  constructor(store, page) {
    this.store = store;
    this.page = page;
    this.list = make("div", { className: "mlt-demos" });
    this.note = make("div", { className: "mlt-note", role: "status" });
    this.element = make(
      "details",
      { className: "mlt-part", hidden: true },
      make("summary", { title: text("runs.demosHint") }, text("runs.demos")),
      this.list,
      this.note,
    );
    this.offer();
  }

  async offer() {
    const { graphs } = await this.store.ask(ROUTE).catch(() => ({ graphs: [] }));
    this.list.replaceChildren(...graphs.map((name) => button(name, text("runs.demosHint"), () => this.open(name))));
    this.element.hidden = !graphs.length;
  }

  /** Opens a graph once the server has put its pictures and model into place, and the page knows of them. */
  async open(name) {
    say(this.note, text("runs.demosWait"));
    try {
      const { graph } = await this.store.post(ROUTE, { name });
      await this.page.refresh();
      await this.page.open({ workflow: graph }, name);
      say(this.note, "");
    } catch (error) {
      say(this.note, text("runs.failed", { reason: error.message }));
    }
  }
}
