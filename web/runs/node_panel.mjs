// The panel on the node Train Masked LoRA.
import { runOf } from "./describe.mjs?v=0.1.0";
import { chain, isInGraph, serverId, widgetValue } from "../page/nodes.mjs?v=0.1.0";
import { RunPanel } from "./panel.mjs?v=0.1.0";

// The canvas leaves room around what it is given to show.
const HEIGHT = 470, MOST_HEIGHT = 660, MARGINS = 36;
const WIDTH = 420;
export const NODE = "MLT_TrainLoRA";

/** Adds the panel to a node; it only shows, and is saved with no workflow. `page` opens graphs, see `useLora`. */
export function addNodePanel(node, store, page) {
  const name = () => widgetValue(node, "name");
  const told = () => ({ node: serverId(node), name: name() });
  const panel = new RunPanel(store, () => runOf(store.runs, told()), { page, name });
  const widget = node.addDOMWidget("masked_lora_training", "masked_lora.training", panel.element, {
    serialize: false,
    getMinHeight: () => Math.min(Math.max(HEIGHT, panel.tallest + MARGINS), MOST_HEIGHT) + panel.room(),
  });
  panel.onroom = () => makeRoom(node);
  widget.serialize = false;
  chain(node, "onAdded", () => panel.wake());
  chain(node, "onRemoved", () => panel.destroy());
  if (isInGraph(node)) panel.wake();
  makeRoom(node);
}

/** Makes a node large enough for what is on it; a saved size may come from before the panel. */
export function makeRoom(node) {
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width, WIDTH), Math.max(node.size[1], height)]);
}
