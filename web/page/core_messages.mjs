// What ComfyUI itself shows of our nodes: why one failed, and how far it is. Both come as events, which are heard first here.
import { told } from "./told.mjs?v=0.1.0";

const OURS = "MLT_";

/** Has ComfyUI show errors and progress of our nodes in the page's language. */
export function translateCore(api, app) {
  // Before ComfyUI's own listeners, which show what they are given.
  const first = { capture: true };
  api.addEventListener("execution_error", ({ detail }) => {
    if (detail?.node_type?.startsWith(OURS)) detail.exception_message = told(detail.exception_message);
  }, first);
  api.addEventListener("progress_text", ({ detail }) => {
    if (typeOf(app, detail?.nodeId)?.startsWith(OURS)) detail.text = told(detail.text);
  }, first);
}

/** The type of a node by the id that the server has for it, which leads through the subgraphs around it. */
function typeOf(app, id) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of String(id ?? "").split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node?.type;
}
