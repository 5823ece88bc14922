// The way in on the node Load Dataset: a button below its folder, and files that are dropped on it.
import { INSPECT_NODE } from "../dataset/node_browser.mjs?v=0.1.0";
import { loaderOf } from "../dataset/maskless.mjs?v=0.1.0";
import { isFed } from "../dataset/upstream.mjs?v=0.1.0";
import { ask } from "../page/ask.mjs?v=0.1.0";
import { chain, serverId, setWidget, widgetOf, widgetValue } from "../page/nodes.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { FolderDialog } from "./dialog.mjs?v=0.1.0";
import { carriesFiles, entriesOf } from "./given.mjs?v=0.1.0";

const WIDGET = "folder";
const BUTTON = "masked_lora_choose_folder";
const ACTIVE = 0;
// What needs a model, or hours, before it shows pictures.
const SLOW = ["vae", "cache", "sam3"];

/**
 * Adds the button and takes drops.
 * @param {(ids: string[]) => Promise} run queues these nodes and what they need.
 */
export function addFolderButton(node, api, run) {
  const open = (entries) => {
    if (isFixed(node)) return ask(document.body, text("folders.fixed"), [["close", text("folders.close")]]);
    const dialog = new FolderDialog({
      api,
      current: widgetValue(node, WIDGET),
      choose: (name) => setWidget(node, WIDGET, name),
      sent: () => look(node, run),
    });
    return dialog.open(entries);
  };
  addButton(node, () => open());
  node.onDragOver = (event) => carriesFiles(event.dataTransfer);
  node.onDragDrop = (event) => {
    const entries = entriesOf(event.dataTransfer);
    // A workflow that is dropped anywhere is opened.
    if (!entries.length || entries.every(({ name }) => name.endsWith(".json"))) return false;
    open(entries);
    return true;
  };
}

function addButton(node, onclick) {
  const widget = node.addWidget("button", BUTTON, null, onclick, { serialize: false });
  widget.label = text("folders.choose");
  widget.tooltip = widget.options.tooltip = text("folders.chooseHint");
  widget.serialize = false;
  const at = node.widgets.findIndex(({ name }) => name === WIDGET) + 1;
  node.widgets.splice(node.widgets.indexOf(widget), 1);
  node.widgets.splice(at, 0, widget);
  // Saved graphs know widgets by their place, and LiteGraph leaves a hole for one that is not saved.
  chain(node, "onSerialize", ({ widgets_values: values }) => {
    if (Array.isArray(values) && !(at in values)) values.splice(at, 1);
  });
}

/** Whether another node says which folder it is. */
function isFixed(node) {
  return isFed(node, WIDGET) && widgetOf(node, WIDGET).node === node;
}

/** Queues the browsers that show this node's pictures and need no model for it. */
function look(node, run) {
  const shows = (one) => one.type === INSPECT_NODE && one.mode === ACTIVE && loaderOf(one) === node;
  const quick = (one) => !SLOW.some((name) => isFed(one, name));
  const ids = (node.graph?.nodes ?? []).filter((one) => shows(one) && quick(one)).map(serverId);
  if (ids.length) run(ids);
}
