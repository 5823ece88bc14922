// The pack's only extension; features live in modules beside it, without side effects of their own.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { fitHeight, hideAdvanced } from "./advanced.mjs?v=0.1.0";
import { LOADER } from "./dataset/maskless.mjs?v=0.1.0";
import { addNodeBrowser, INSPECT_NODE } from "./dataset/node_browser.mjs?v=0.1.0";
import { addFolderButton } from "./folders/loader.mjs?v=0.1.0";
import { followGoal } from "./goals.mjs?v=0.1.0";
import { followGuides } from "./guides/dialog.mjs?v=0.1.0";
import { openEditor } from "./mask_editor/editor.mjs?v=0.1.0";
import { translateCore } from "./page/core_messages.mjs?v=0.1.0";
import { addStyles } from "./page/elements.mjs?v=0.1.0";
import { Names } from "./page/names.mjs?v=0.1.0";
import { chain } from "./page/nodes.mjs?v=0.1.0";
import { addReport, linesOf, restoreReport } from "./page/report.mjs?v=0.1.0";
import { useTexts } from "./page/strings.mjs?v=0.1.0";
import { followTheme } from "./page/theme.mjs?v=0.1.0";
import { bracketed, readMessages, useMessages } from "./page/told.mjs?v=0.1.0";
import { keepClear } from "./room.mjs?v=0.1.0";
import { Announcer } from "./runs/announce.mjs?v=0.1.0";
import { addNodePanel, makeRoom, NODE } from "./runs/node_panel.mjs?v=0.1.0";
import { SampleGrid } from "./runs/samples/grid.mjs?v=0.1.0";
import { sidebarTab } from "./runs/sidebar.mjs?v=0.1.0";
import { EVENT, RunStore } from "./runs/store.mjs?v=0.1.0";
import { PictureTable } from "./runs/table/dialog.mjs?v=0.1.0";
import { followUses } from "./uses.mjs?v=0.1.0";

// By then a workflow that is being loaded has given its nodes their sizes.
const SETTLED_MS = 150;
const STYLES = [
  "vendor/uplot/uPlot.min.css", "page/page.css", "page/report.css", "runs/panel.css", "runs/apart/apart.css", "runs/samples/gallery.css",
  "runs/samples/grid.css", "runs/table/table.css", "clips/clips.css", "dataset/dataset.css", "dataset/captions/captions.css",
  "mask_editor/editor.css", "folders/folders.css", "guides/guides.css",
];

// Of the nodes in a graph that compares pictures. As it opens it is wide enough for titles, which a small scale hides.
const ROLE_WIDTH = 280, LEAST_WIDTH = 230, COLUMN_GAP = 60;
// Nodes whose report ends with the LoRA file that they wrote, other than the training's, whose runs are followed.
const WRITERS = ["MLT_ExportLoRA", "MLT_LoadRun"];

let store = null;
// ComfyUI reports messages that nobody knows as errors, and those of a training come before the page is set up.
api.addEventListener(EVENT, () => {});

/** The page's one store. */
function runs() {
  store ??= new RunStore(api, readLists);
  return store;
}

/** So that the nodes' lists of files hold what has just been written; unlike R, without a word about it. */
function readLists() {
  // Where it fails, R is left.
  return app.reloadNodeDefs().catch(() => {});
}

/** Opens the mask editor for a picture that the data set browser shows. */
function editMask(picture, source, walk) {
  const canSelect = Boolean(source.facts?.selects);
  return openEditor({ api, dataset: source.id, picture, canSelect, onSaved: () => source.refresh(), walk });
}

// How a run's graph comes back into the page; each opens as a workflow of its own.
const graphs = {
  open: ({ workflow, prompt }, name) =>
    workflow ? app.loadGraphData(workflow, true, true, name) : app.loadApiJson(prompt, name),
  queue: () => app.queuePrompt(0, 1),
  prompt: async () => (await app.graphToPrompt()).output,
  async whole() {
    const { output, workflow } = await app.graphToPrompt();
    return { prompt: output, workflow };
  },
  refresh: () => app.reloadNodeDefs(),
  pictures: (run) => new PictureTable({ api, store: runs(), run, edit: editMask }).open(),
  samples: (run) => new SampleGrid({ store: runs(), run, page: graphs }).open(),
  /** Readies a graph that compares pictures; `roles` of its nodes by id, those that show are `base` and `withLora`. */
  compare(roles) {
    const { nodes } = app.graph;
    // Pictures that are compared differ by what they are compared for only, also when they are drawn again.
    const widgets = nodes.flatMap((node) => node.widgets ?? []);
    for (const one of widgets.filter(({ name }) => name === "control_after_generate")) one.value = "fixed";
    // Nodes 2.0 draws none narrower.
    for (const node of nodes) node.setSize([Math.max(node.size[0], LEAST_WIDTH), node.size[1]]);
    // Room for titles and pictures, which come later.
    const told = nodes.filter(({ id }) => roles[id]);
    for (const node of told) node.setSize([Math.max(node.size[0], ROLE_WIDTH), node.size[1]]);
    app.graph.arrange(COLUMN_GAP);
    const [base, withLora] = ["base", "withLora"].map((role) => told.find(({ id }) => roles[id] === role));
    for (const node of [base, withLora]) node.setSize([ROLE_WIDTH, ROLE_WIDTH + 60]);
    withLora.pos = [base.pos[0], base.pos[1] + base.size[1] + COLUMN_GAP];
    // The newest web frontend brings the view of a graph that was opened back afterwards.
    setTimeout(() => app.extensionManager.command.execute("Comfy.Canvas.FitView"), SETTLED_MS);
  },
};

app.registerExtension({
  name: "masked_lora",
  async init() {
    // Before any node is made, whose widgets show the texts, and would move while styles came.
    const language = app.extensionManager.setting.get("Comfy.Locale") ?? navigator.language.split("-")[0];
    const texts = api.fetchApi("/i18n").then((answer) => answer.json());
    const [all, messages] = await Promise.all([texts, readMessages(api, language), addStyles(import.meta.url, STYLES)]);
    useTexts(all, language);
    useMessages(messages, new Names(all.en?.nodeDefs, all[language]?.nodeDefs, bracketed(messages)));
    translateCore(api, app);
  },
  setup() {
    followTheme();
    followGuides();
    // From the start: a page that is opened during a training is told of it at once.
    app.ui.settings.addSetting(new Announcer(runs(), NODE).setting());
    // ComfyUI hears Ctrl+Z before any dialog does, unless it believes that its own mask editor is open.
    const isEditing = app.constructor.maskeditor_is_opended;
    app.constructor.maskeditor_is_opended = () => Boolean(isEditing?.()) || document.querySelector("dialog.mlt[open]") !== null;
    app.extensionManager.registerSidebarTab(sidebarTab(runs, graphs));
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("MLT_")) return;
    if (node.comfyClass === NODE) addNodePanel(node, runs(), graphs);
    if (node.comfyClass === LOADER) addFolderButton(node, api, (ids) => app.queuePrompt(0, 1, ids));
    if (node.comfyClass === INSPECT_NODE) addNodeBrowser(node, api, editMask);
    addReport(node);
    if (WRITERS.includes(node.comfyClass)) {
      chain(node, "onExecuted", (output) => runs().noteFiles([linesOf(output)?.at(-1)?.text]));
    }
    const hides = hideAdvanced(node);
    if (hides) keepClear(node);
    const { required, optional } = node.constructor.nodeData.input;
    followUses(node, { ...required, ...optional }, () => fitHeight(node));
    followGoal(node, { ...required, ...optional });
    if (!hides) return;
    fitHeight(node);
    // A node of a saved workflow is given a size afterwards, for everything that it could show.
    setTimeout(() => { if (!node.showAdvanced) fitHeight(node); }, SETTLED_MS);
  },
  loadedGraphNode(node) {
    if (node.comfyClass === NODE) makeRoom(node);
    if (node.comfyClass?.startsWith("MLT_")) restoreReport(node);
  },
});
