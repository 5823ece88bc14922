// The browser on the node Inspect Dataset: thumbnails, and the way to the larger view.
import { button, keepKeys, make, say } from "../page/elements.mjs?v=0.1.0";
import { chain, isInGraph } from "../page/nodes.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { chooser, dropDown, offerPairs } from "./controls.mjs?v=0.1.0";
import { DatasetDialog, thumbnailLook } from "./dialog.mjs?v=0.1.0";
import { ThumbnailList } from "./list.mjs?v=0.1.0";
import { keepLook, loadLook } from "./look.mjs?v=0.1.0";
import { MasklessQuestion } from "./maskless.mjs?v=0.1.0";
import { choose, counts } from "./rows.mjs?v=0.1.0";
import { DatasetSource } from "./source.mjs?v=0.1.0";
import { isFed, transformOf } from "./upstream.mjs?v=0.1.0";
import { LARGE_VIEWS } from "./viewer.mjs?v=0.1.0";

export const INSPECT_NODE = "MLT_InspectDataset";
const OUTPUT = "masked_lora_dataset";
const PROPERTY = "masked_lora_dataset";
const HEIGHT = 340;
const WIDTH = 420;
const TILE = 92;
const WATCH_MS = 400;
const VIEWS = ["overlay", "mask", "cut-out", "latent grid", "picture", "pair"];

class NodeBrowser {
  constructor(node, api, edit) {
    Object.assign(this, { node, api, edit });
    this.source = null;
    this.look = loadLook(LARGE_VIEWS);
    this.state = make("div", { className: "mlt-note", role: "status" }, text("dataset.notYet"));
    this.larger = button(text("dataset.larger"), text("dataset.largerHint"), () => this.open(0));
    this.view = dropDown(text("dataset.views"), VIEWS.map((view) => [view, text(`dataset.view.${view}`)]), thumbnailLook(this.look).view, (view) => this.setView(view));
    this.chooser = chooser(() => this.filter());
    this.question = new MasklessQuestion(node, (index) => this.paint(index));
    this.list = new ThumbnailList({
      wanted: TILE,
      picture: (row) => this.source.thumbnail(row, thumbnailLook(this.look)),
      onOpen: (row) => this.open(row.index),
    });
    this.element = make(
      "section",
      { className: "mlt mlt-browser", "aria-label": text("dataset.title") },
      make("div", { className: "mlt-row" }, this.view, this.larger, this.state),
      this.question.element,
      this.chooser.element,
      this.list.element,
    );
    keepKeys(this.element);
    this.use(node.properties?.[PROPERTY]);
  }

  destroy() {
    this.sleep();
    this.list.destroy();
  }

  /** Shows the data set of an id, which a new run of the node may have opened anew. */
  use(id) {
    if (!/^[0-9a-f]{20}$/.test(id ?? "")) return;
    this.sent = undefined;
    if (this.source?.id === id) {
      this.source.refresh();
      return;
    }
    this.sleep();
    this.source = new DatasetSource(this.api, id);
    if (isInGraph(this.node)) this.wake();
  }

  update() {
    const { source } = this;
    if (source.rows !== this.rows) {
      this.rows = source.rows;
      this.chooser.count(counts(source.rows));
      offerPairs(this.view.options, source.rows);
      this.filter();
    }
    if (!source.measuring) this.question.update(source.rows);
    this.larger.disabled = !source.rows.length;
    say(this.state, this.words());
  }

  words() {
    const { facts, measuring, problem } = this.source;
    if (problem) return problem;
    if (measuring) return text("dataset.measuring", { done: facts.measured, count: facts.count });
    if (facts?.transform) return text("dataset.tryingOut");
    return text("dataset.count", { count: facts?.count ?? 0 });
  }

  filter() {
    if (this.source) this.list.show(choose(this.source.rows, this.chooser.state));
  }

  setView(view) {
    this.look = { ...this.look, view };
    keepLook(this.look);
    this.list.refresh();
  }

  open(index) {
    if (!this.source?.rows.length) return null;
    const { edit, source } = this;
    const dialog = new DatasetDialog({ source, index, edit }).open();
    dialog.element.addEventListener("close", () => this.list.element.focus());
    return dialog;
  }

  /** Opens the mask editor on a picture; in the large view behind it are those without a mask. */
  paint(index) {
    this.open(index)?.openEditor();
  }

  /** Tries out what the widgets say now, before the graph is queued. */
  compare() {
    const { facts } = this.source ?? {};
    if (!facts || !this.source.rows.length || document.hidden || !isInGraph(this.node)) return;
    const transform = transformOf(this.node);
    const widget = this.node.widgets?.find((one) => one.name === "resolution");
    const known = !facts.cached && widget && !isFed(this.node, "resolution");
    const resolution = known ? Number(widget.value) : facts.resolution;
    const wanted = JSON.stringify([transform, resolution]);
    if (wanted === this.sent) return;
    // Half-typed numbers pass; what stays for a moment is meant.
    if (wanted !== this.seen) {
      this.seen = wanted;
      return;
    }
    this.sent = wanted;
    this.source.tryOut(transform, resolution);
  }

  /** Looks only while the node is on a graph. */
  wake() {
    this.watch ??= setInterval(() => this.compare(), WATCH_MS);
    if (this.source) this.leave ??= this.source.listen(() => this.update());
  }

  sleep() {
    clearInterval(this.watch);
    this.leave?.();
    this.watch = this.leave = undefined;
  }
}

/** Adds the browser to a node; it only shows, and saves no more than an id with a workflow. */
export function addNodeBrowser(node, api, edit) {
  const browser = new NodeBrowser(node, api, edit);
  const widget = node.addDOMWidget("masked_lora_browser", "masked_lora.browser", browser.element, {
    serialize: false,
    getMinHeight: () => HEIGHT,
  });
  widget.serialize = false;
  chain(node, "onExecuted", (output) => {
    const [id] = output?.[OUTPUT] ?? [];
    if (!id) return;
    node.properties[PROPERTY] = id;
    browser.use(id);
  });
  chain(node, "onAdded", () => browser.wake());
  chain(node, "onConfigure", () => browser.use(node.properties?.[PROPERTY]));
  chain(node, "onRemoved", () => browser.destroy());
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width, WIDTH), Math.max(node.size[1], height)]);
}
