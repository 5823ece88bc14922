// The sidebar tab: every run, and the panel of the one that is chosen.
import { begun, isLive, progress } from "./describe.mjs?v=0.1.0";
import { RunActions } from "./actions.mjs?v=0.1.0";
import { ApartPart } from "./apart/part.mjs?v=0.1.0";
import { Demos } from "./demos.mjs?v=0.1.0";
import { filesOf } from "./ending.mjs?v=0.1.0";
import { keepKeys, make, say } from "../page/elements.mjs?v=0.1.0";
import { RunPanel } from "./panel.mjs?v=0.1.0";
import { showStar, starButton, starredFirst, titleOf } from "./kept/marks.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { told } from "../page/told.mjs?v=0.1.0";

export class RunList {
  constructor(store, page) {
    this.store = store;
    this.chosen = null;
    this.list = make("ul", { className: "mlt-runs", "aria-label": text("runs.runs") });
    this.empty = make("p", { className: "mlt-note" }, text("runs.noRuns"));
    this.apart = new ApartPart(store.apart);
    this.panel = new RunPanel(store, () => this.run(), { roomy: true, pages: page });
    this.actions = new RunActions(store, page);
    this.demos = new Demos(store, page);
    this.element = make(
      "div",
      { className: "mlt mlt-sidebar" },
      this.apart.element, this.list, this.empty, this.actions.element, this.panel.element, this.demos.element,
    );
    keepKeys(this.apart.element);
    keepKeys(this.list);
    keepKeys(this.actions.element);
    this.leave = store.listen(() => this.update());
    this.panel.wake();
    this.update();
  }

  destroy() {
    this.leave();
    this.panel.destroy();
  }

  /** The chosen run; without a choice the one that trains, else the newest. */
  run() {
    const { runs } = this.store;
    return this.store.run(this.chosen) ?? runs.find(isLive) ?? runs[0] ?? null;
  }

  update() {
    const { runs } = this.store;
    const current = this.run();
    this.empty.hidden = runs.length > 0;
    this.panel.element.hidden = this.actions.element.hidden = runs.length === 0;
    this.apart.update();
    this.actions.update(current);
    // The buttons stay the same elements, so that the focus stays where it is.
    const wanted = starredFirst(runs).map((run) => this.item(run, run.id === current?.id));
    if (wanted.some((item, i) => this.list.children[i] !== item) || this.list.children.length !== wanted.length) {
      this.list.replaceChildren(...wanted);
    }
  }

  item(run, current) {
    this.items ??= new Map();
    let item = this.items.get(run.id);
    if (!item) {
      const open = make("button", { type: "button", className: "mlt-run" });
      open.addEventListener("click", () => {
        this.chosen = run.id;
        this.update();
        this.panel.update();
      });
      open.append(make("span"), make("span", { className: "mlt-note mlt-begun" }));
      const star = starButton(this.store, () => this.store.run(run.id), (words) => this.panel.tell(words));
      const row = make("div", { className: "mlt-run-row" }, open, star);
      item = make("li", {}, row, make("div", { className: "mlt-note mlt-outcome" }));
      this.items.set(run.id, item);
    }
    const [open, star] = item.firstChild.children;
    say(open.firstChild, `${titleOf(run)} · ${text(`runs.state.${run.state}`)} · ${progress(run)}`);
    say(open.lastChild, [begun(run), run.label && run.name].filter(Boolean).join(" · "));
    showStar(star, run);
    open.setAttribute("aria-pressed", String(current));
    say(item.lastChild, filesOf(run).join(", ") || told(run.failed) || "");
    return item;
  }
}

/** What registerSidebarTab takes. */
export function sidebarTab(makeStore, page) {
  let list = null;
  return {
    id: "masked_lora.runs",
    icon: "pi pi-chart-line",
    title: text("runs.sidebar"),
    // Below the icon there is no room for more.
    label: "Masked LoRA",
    tooltip: text("runs.sidebar"),
    type: "custom",
    render(container) {
      list?.destroy();
      list = new RunList(makeStore(), page);
      container.replaceChildren(list.element);
      list.panel.update();
    },
    destroy() {
      list?.destroy();
      list = null;
    },
  };
}
