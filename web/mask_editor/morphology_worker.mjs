// Runs the operations on a whole mask beside the page: a large one takes seconds, and the page must not stand still.
import { feather, grow } from "./morphology.mjs?v=0.1.0";

const WORKS = { grow, feather };

// ComfyUI loads every module of a pack into its page too; there this one does nothing.
if (typeof WorkerGlobalScope !== "undefined") {
  self.onmessage = ({ data: { name, levels, width, height, amount } }) => {
    const changed = WORKS[name](levels, width, height, amount);
    self.postMessage(changed, [changed.buffer]);
  };
}
