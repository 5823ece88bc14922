// What the graph says about the masks before it is queued: the Transform Masks node that feeds a node. Pure.
const FIELDS = ["invert", "binarize", "threshold", "fill_holes", "min_area", "grow", "feather", "frame_union", "frame_feather"];
const OFF = { invert: false, binarize: false, threshold: 0.5, fill_holes: false, min_area: 0, grow: 0, feather: 0, frame_union: 0, frame_feather: 0 };
const TRANSFORM = "MLT_TransformMasks";
const BYPASSED = 4;
const FAR = 50;

// Pages of before have a link on the slot only.
function linkId(node, slot) {
  return node.inputs[slot].link ?? null;
}

/** The link into an input of a node, null without one. */
function linkInto(node, slot) {
  if (slot < 0 || !node.graph) return null;
  if (typeof node.getInputLink === "function") return node.getInputLink(slot) ?? null;
  return linkId(node, slot) === null ? null : (node.graph.getLink?.(linkId(node, slot)) ?? null);
}

function isConnected(node, slot) {
  if (slot < 0) return false;
  return typeof node.isInputConnected === "function" ? node.isInputConnected(slot) : linkId(node, slot) !== null;
}

function slotOf(node, name) {
  return node.inputs?.findIndex((one) => one.name === name) ?? -1;
}

/** Whether a widget's value comes from another node. */
export function isFed(node, name) {
  return isConnected(node, slotOf(node, name));
}

/** The node that feeds input `name`, reroutes passed over; null without one. */
export function feeder(node, name) {
  let slot = slotOf(node, name);
  for (let i = 0; i < FAR; i += 1) {
    const link = linkInto(node, slot);
    const origin = link ? node.graph.getNodeById(link.origin_id) : null;
    if (!origin) return null;
    if (origin.type !== "Reroute") return origin;
    [node, slot] = [origin, 0];
  }
  return null;
}

/** The mask transforms as the widgets stand, null where no Transform Masks feeds the node or one is fed itself. */
export function transformOf(node) {
  const origin = feeder(node, "dataset");
  if (origin?.type !== TRANSFORM) return null;
  // Two in a row are refused, so that behind a bypassed one there is at most one that acts.
  if (origin.mode === BYPASSED) return feeder(origin, "dataset")?.type === TRANSFORM ? transformOf(origin) : { ...OFF };
  const linked = origin.inputs?.some((input, slot) => input.widget && isConnected(origin, slot));
  if (linked) return null;
  const values = {};
  for (const name of FIELDS) {
    const widget = origin.widgets?.find((one) => one.name === name);
    if (!widget) return null;
    values[name] = widget.value;
  }
  return values;
}
