// What a node found, said on the node: lines that stay after the job, and after the page was loaded anew.
import { keepKeys, make } from "./elements.mjs?v=0.1.0";
import { chain } from "./nodes.mjs?v=0.1.0";
import { text } from "./strings.mjs?v=0.1.0";
import { told } from "./told.mjs?v=0.1.0";

const OUTPUT = "masked_lora_report";
const NAME = "masked_lora_report";
// ComfyUI's own line with the progress of a node; once there is a report, it would say the same again.
const PROGRESS = "$$node-text-preview";
const MOST_HEIGHT = 168;
// What the classic canvas leaves free around it.
const MARGIN = 8;
const LONG = 8;
const STORE = "masked_lora.reports";
const MOST_KEPT = 60;
const NO_ID = "00000000-0000-0000-0000-000000000000";

/** The lines with the warnings first, as they are shown where one would have to scroll to some of them. */
export function warningsFirst(lines) {
  const isWarning = (line) => line.level === "warning";
  return [...lines.filter(isWarning), ...lines.filter((line) => !isWarning(line))];
}

/** The lines of a node's output that can be shown; null if it reports nothing. */
export function linesOf(output) {
  const given = output?.[OUTPUT];
  if (!Array.isArray(given)) return null;
  return given.filter((line) => typeof line?.text === "string" && line.text.trim());
}

class Report {
  constructor(node) {
    this.node = node;
    this.element = make("section", {
      className: "mlt mlt-report", "aria-label": text("report.title"), tabIndex: 0, "data-capture-wheel": "true",
    });
    keepKeys(this.element);
    // Text is selected and copied here; the canvas would move the node, and copy it.
    for (const name of ["pointerdown", "mousedown", "copy"]) {
      this.element.addEventListener(name, (event) => event.stopPropagation());
    }
    this.height = 0;
    this.width = 0;
  }

  show(lines) {
    this.fill(lines);
    if (lines.length >= LONG || this.height === MOST_HEIGHT) this.fill(warningsFirst(lines));
  }

  fill(lines) {
    this.element.replaceChildren(
      ...lines.map((line) => make("p", { "data-level": line.level === "warning" ? "warning" : "note" }, told(line.text))),
    );
    this.width = 0;
    this.measure();
  }

  /** The height that the lines need at the node's width; measured apart, because a node may be hidden now. */
  measure() {
    const width = Math.round(this.node.size[0]);
    if (width === this.width) return this.height;
    this.width = width;
    const copy = this.element.cloneNode(true);
    copy.style.cssText = `position: fixed; visibility: hidden; height: auto; width: ${Math.max(80, width - 2 * MARGIN)}px`;
    document.body.append(copy);
    this.height = Math.min(MOST_HEIGHT, Math.ceil(copy.getBoundingClientRect().height));
    copy.remove();
    return this.height;
  }
}

const reports = new WeakMap();

/** Shows lines on a node, which grows or shrinks by what they need; no lines take the report away. */
export function showReport(node, lines, { restored = false } = {}) {
  const before = node.computeSize()[1];
  removeWidget(node, PROGRESS);
  if (!lines.length) removeWidget(node, NAME);
  else (reports.get(node) ?? add(node)).show(lines);
  const after = node.computeSize()[1];
  // A node that is loaded has the size that it was saved with.
  const height = restored ? Math.max(node.size[1], after) : Math.max(node.size[1] + after - before, after);
  if (height !== node.size[1]) node.setSize([node.size[0], height]);
  node.setDirtyCanvas?.(true, true);
}

function add(node) {
  const report = new Report(node);
  const widget = node.addDOMWidget(NAME, "masked_lora.report", report.element, {
    serialize: false,
    getMinHeight: () => report.measure() + 2 * MARGIN,
    getMaxHeight: () => report.measure() + 2 * MARGIN,
    margin: MARGIN,
  });
  widget.serialize = false;
  reports.set(node, report);
  return report;
}

function removeWidget(node, name) {
  const widget = node.widgets?.find((one) => one.name === name);
  if (widget) node.removeWidget(widget);
  if (name === NAME) reports.delete(node);
}

/** Lets a node show what it reports, and what it reported before the page was loaded anew. */
export function addReport(node) {
  chain(node, "onExecuted", (output) => {
    const lines = linesOf(output);
    if (!lines) return;
    showReport(node, lines);
    keep(keyOf(node), lines);
  });
}

/** Shows again what this tab's node of this workflow reported last. */
export function restoreReport(node) {
  const lines = linesOf({ [OUTPUT]: kept()[keyOf(node)] });
  if (lines?.length) showReport(node, lines, { restored: true });
}

/** A node in its workflow; null where the workflow has no name that would be found again. */
function keyOf(node) {
  const graph = node.graph?.id;
  return graph && graph !== NO_ID ? `${graph} ${node.id} ${node.comfyClass}` : null;
}

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(STORE)) ?? {};
  } catch {
    return {};
  }
}

function keep(key, lines) {
  if (!key) return;
  const { [key]: _, ...others } = kept();
  const all = [...Object.entries(others), [key, lines]].slice(-MOST_KEPT);
  try {
    sessionStorage.setItem(STORE, JSON.stringify(Object.fromEntries(all)));
  } catch {
    // It stays on the node until the page is closed.
  }
}
