// Widgets without an effect are hidden: the schema tells of each how it comes to have one. Their values are kept.
import { isFed } from "./dataset/upstream.mjs?v=0.1.0"
import { chain } from "./page/nodes.mjs?v=0.1.0"

/**
 * Shows of a node's widgets those that have an effect as the others stand, now and whenever one is changed.
 * @param {object} node of the graph.
 * @param {Record<string, [any, object?]>} inputs the schema's, by name.
 * @param {() => void} settle called after widgets came or went.
 */
export function followUses(node, inputs, settle) {
  const told = Object.entries(inputs).filter(([, [, extra]]) => extra?.used_when || extra?.first_when)
  if (!told.length) return
  // What decides about itself does so when a graph is opened: no widget goes away while a person empties it.
  const others = ([name, [, extra]]) => [...(extra.used_when ?? []), ...(extra.first_when ?? [])].flatMap(Object.keys).filter((one) => one !== name)
  const deciding = new Set(told.flatMap(others))
  const apply = () => {
    const changed = told.map(([name, [, extra]]) => show(node, name, extra)).includes(true)
    if (changed) settle()
  }
  for (const widget of node.widgets.filter(({ name }) => deciding.has(name))) chain(widget, "callback", apply)
  for (const event of ["onConfigure", "onConnectionsChange"]) chain(node, event, apply)
  apply()
}

/** Whether one of the ways holds, by what the widgets are set to; `unknown` tells for those that a link sets. */
export function isUsed(ways, values, unknown) {
  return ways.some((way) => Object.entries(way).every(([name, { is, not }]) => {
    if (!values.has(name)) return unknown
    return is ? is.includes(values.get(name)) : !not.includes(values.get(name))
  }))
}

/** Shows or hides one widget; true if that changed something. */
function show(node, name, { used_when: uses, first_when: first, advanced }) {
  const widget = node.widgets.find((one) => one.name === name)
  if (!widget) return false
  const values = new Map(node.widgets.filter((one) => !isFed(node, one.name)).map((one) => [one.name, one.value]))
  const hidden = Boolean(uses) && !isFed(node, name) && !isUsed(uses, values, true)
  const later = Boolean(advanced) && !(first && isUsed(first, values, false))
  if (Boolean(widget.hidden) === hidden && Boolean(widget.advanced) === later) return false
  // The classic canvas reads the widget's own, Nodes 2.0 its options.
  widget.hidden = hidden
  widget.advanced = later
  Object.assign(widget.options, { hidden, advanced: later })
  return true
}
