// What the graph says about the masks before it is queued: the Transform Masks node that feeds a node. Pure.
const FIELDS = ["invert", "binarize", "threshold", "fill_holes", "min_area", "grow", "feather"];
const OFF = { invert: false, binarize: false, threshold: 0.5, fill_holes: false, min_area: 0, grow: 0, feather: 0 };
const TRANSFORM = "MLT_TransformMasks";
const BYPASSED = 4;
const FAR = 50;

/** Whether a widget's value comes from another node. */
export function isFed(node, name) {
  const input = node.inputs?.find((one) => one.name === name);
  return input?.link !== null && input?.link !== undefined;
}

/** The node that feeds input `name`, reroutes passed over; null without one. */
export function feeder(node, name) {
  let input = node.inputs?.find((one) => one.name === name);
  for (let i = 0; i < FAR; i += 1) {
    const link = input?.link === null || input?.link === undefined ? null : node.graph?.getLink?.(input.link);
    const origin = link ? node.graph.getNodeById(link.origin_id) : null;
    if (!origin) return null;
    if (origin.type !== "Reroute") return origin;
    [node, input] = [origin, origin.inputs[0]];
  }
  return null;
}

/** The mask transforms as the widgets stand, null where no Transform Masks feeds the node or one is fed itself. */
export function transformOf(node) {
  const origin = feeder(node, "dataset");
  if (origin?.type !== TRANSFORM) return null;
  // Two in a row are refused, so that behind a bypassed one there is at most one that acts.
  if (origin.mode === BYPASSED) return feeder(origin, "dataset")?.type === TRANSFORM ? transformOf(origin) : { ...OFF };
  const linked = origin.inputs?.some((input) => input.widget && input.link !== null && input.link !== undefined);
  if (linked) return null;
  const values = {};
  for (const name of FIELDS) {
    const widget = origin.widgets?.find((one) => one.name === name);
    if (!widget) return null;
    values[name] = widget.value;
  }
  return values;
}
