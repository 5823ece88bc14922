// The pack's only extension; features live in modules beside it, without side effects of their own.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { fitHeight, hideAdvanced } from "./advanced.js";
import { addNodeBrowser, INSPECT_NODE } from "./dataset/node_browser.js";
import { openEditor } from "./mask_editor/editor.js";
import { addStyles } from "./page/elements.js";
import { addReport, restoreReport } from "./page/report.js";
import { useTexts } from "./page/strings.js";
import { followTheme } from "./page/theme.js";
import { addNodePanel, makeRoom, NODE } from "./runs/node_panel.js";
import { sidebarTab } from "./runs/sidebar.js";
import { RunStore } from "./runs/store.js";

// By then a workflow that is being loaded has given its nodes their sizes.
const SETTLED_MS = 150;
const STYLES = [
  "vendor/uplot/uPlot.min.css", "page/page.css", "page/report.css", "runs/panel.css", "runs/gallery.css",
  "dataset/dataset.css", "mask_editor/editor.css",
];

let store = null;

/** The page's one store, made when something is shown. */
function runs() {
  store ??= new RunStore(api);
  return store;
}

/** Opens the mask editor for a picture that the data set browser shows. */
function editMask({ index, name, size }, source) {
  const canSelect = Boolean(source.facts?.selects);
  return openEditor({ api, dataset: source.id, picture: index, name, size, canSelect, onSaved: () => source.refresh() });
}

// How a run's graph comes back into the page; each opens as a workflow of its own.
const graphs = {
  open: ({ workflow, prompt }, name) =>
    workflow ? app.loadGraphData(workflow, true, true, name) : app.loadApiJson(prompt, name),
  queue: () => app.queuePrompt(0, 1),
  // So that the lists of files hold what has just been put there.
  refresh: () => app.refreshComboInNodes(),
};

app.registerExtension({
  name: "masked_lora",
  async init() {
    // Before any node is made, whose widgets show the texts, and would move while styles came.
    const [answer] = await Promise.all([api.fetchApi("/i18n"), addStyles(import.meta.url, STYLES)]);
    useTexts(await answer.json(), app.extensionManager.setting.get("Comfy.Locale") ?? navigator.language.split("-")[0]);
  },
  setup() {
    followTheme();
    // ComfyUI hears Ctrl+Z before any dialog does, unless it believes that its own mask editor is open.
    const isEditing = app.constructor.maskeditor_is_opended;
    app.constructor.maskeditor_is_opended = () => Boolean(isEditing?.()) || document.querySelector("dialog.mlt[open]") !== null;
    app.extensionManager.registerSidebarTab(sidebarTab(runs, graphs));
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("MLT_")) return;
    if (node.comfyClass === NODE) addNodePanel(node, runs());
    if (node.comfyClass === INSPECT_NODE) addNodeBrowser(node, api, editMask);
    addReport(node);
    if (!hideAdvanced(node)) return;
    fitHeight(node);
    // A node of a saved workflow is given a size afterwards, for everything that it could show.
    setTimeout(() => { if (!node.showAdvanced) fitHeight(node); }, SETTLED_MS);
  },
  loadedGraphNode(node) {
    if (node.comfyClass === NODE) makeRoom(node);
    if (node.comfyClass?.startsWith("MLT_")) restoreReport(node);
  },
});
