// What widgets of ours need to know of LiteGraph's nodes.

/** Whether a node is on a graph: copying one makes another that never gets there, and is never removed either. */
export function isInGraph(node) {
  return node.graph?.getNodeById(node.id) === node;
}

/** Calls `then` after what a node does at an event such as "onAdded". */
export function chain(node, name, then) {
  const before = node[name];
  node[name] = function (...given) {
    const result = before?.apply(this, given);
    then(...given);
    return result;
  };
}

/** The nodes around a graph, outermost first; none for the outermost graph. */
function around(graph, root = graph?.rootGraph ?? graph) {
  if (!graph || graph === root) return [];
  for (const node of root.nodes ?? []) {
    if (node.subgraph === graph) return [node];
    const deeper = node.subgraph ? around(graph, node.subgraph) : [];
    if (deeper.length) return [node, ...deeper];
  }
  return [];
}

/** The id by which the server knows a node: inside of subgraphs behind those of the nodes around it. */
export function serverId(node) {
  return [...around(node.graph), node].map((one) => one.id).join(":");
}

/** A widget and its node; where it stands for one of a node inside of a subgraph, those outside. Undefined without one. */
export function widgetOf(node, name) {
  const own = node.widgets?.find((widget) => widget.name === name);
  const whole = around(node.graph).at(-1);
  const slot = node.inputs?.findIndex((one) => one.name === name) ?? -1;
  const link = whole && slot >= 0 ? node.getInputLink?.(slot) : undefined;
  const outer = link && node.graph.getNodeById(link.origin_id) ? undefined : node.graph?.inputs?.[link?.origin_slot];
  const widget = whole?.widgets?.find((one) => one.name === outer?.name);
  return widget ? { node: whole, widget } : { node, widget: own };
}

/** What a widget holds, also where it stands on the node around the subgraph that its node lies in. */
export function widgetValue(node, name) {
  return widgetOf(node, name).widget?.value;
}

/** Sets a widget as a person does: others are told, and it can be undone. */
export function setWidget(node, name, value) {
  const { node: owner, widget } = widgetOf(node, name);
  if (!widget) return;
  // What is shown is the graph of the node itself, whose canvas takes down what can be undone.
  const tell = (event) => node.graph?.canvasAction?.((canvas) => canvas[event]?.());
  tell("emitBeforeChange");
  widget.value = value;
  widget.callback?.(value, undefined, owner);
  tell("emitAfterChange");
  owner.setDirtyCanvas?.(true, true);
}
