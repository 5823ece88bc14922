// A widget that is left to the goal of the data set shows what that comes to, before anything is run.
import { feeder, isFed } from "./dataset/upstream.mjs?v=0.1.0"
import { chain } from "./page/nodes.mjs?v=0.1.0"

const DATASET = "MLT_DATASET"
const GOAL = "goal", OWN = "own"
const FAR = 50

/**
 * Shows on a node what its widgets that the goal decides are, and tells the other nodes where the goal is chosen.
 * @param {object} node of the graph.
 * @param {Record<string, [any, object?]>} inputs the schema's, by name; `by_goal` has a value for each goal.
 */
export function followGoal(node, inputs) {
  const chooses = node.widgets?.find(({ name }) => name === GOAL)
  const decided = Object.entries(inputs).filter(([, [, extra]]) => extra?.by_goal)
  if (!chooses && !decided.length) return
  const widgets = decided.map(([name, [, { by_goal: values }]]) => showing(node, name, values))
  node.mlt_lookAgain = () => widgets.forEach(nudge)
  const all = () => { for (const one of node.graph?.nodes ?? [node]) one.mlt_lookAgain?.() }
  if (chooses) chain(chooses, "callback", all)
  for (const event of ["onConfigure", "onConnectionsChange", "onAdded"]) chain(node, event, all)
}

/** The goal of the data sets that reach a node: null where the graph does not tell. */
export function goalOf(node, depth = 0) {
  const widget = node.widgets?.find(({ name }) => name === GOAL)
  if (widget) return isFed(node, GOAL) ? null : widget.value
  const sources = (node.inputs ?? []).filter(({ type }) => type === DATASET).map(({ name }) => feeder(node, name)).filter(Boolean)
  if (!sources.length || depth > FAR) return null
  const found = new Set(sources.map((source) => goalOf(source, depth + 1)))
  if (found.has(null)) return null
  return found.size === 1 ? [...found][0] : OWN
}

/** The widget of that name, which from now on shows what it comes to by the goal. */
function showing(node, name, values) {
  const widget = node.widgets.find((one) => one.name === name)
  const left = widget.options.values[0]
  widget.options.getOptionLabel = (option) => {
    // Read for the sake of `nudge`.
    void widget.label
    const value = option === left ? values[goalOf(node)] : undefined
    return value ? `${left}: ${value}` : option
  }
  return widget
}

/** Nodes 2.0 looks again at what it has read once something that it watches has changed; links are not of these. */
function nudge(widget) {
  const { label } = widget
  widget.label = `${label ?? widget.name} `
  widget.label = label
}
