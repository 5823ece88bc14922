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
