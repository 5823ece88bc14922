// Asks the worker for an operation on a whole mask.
import { text } from "../page/strings.mjs?v=0.1.0";

/**
 * New levels of a mask; the given ones stay.
 * @param {"grow" | "feather"} name of a function in morphology.js, with its `amount` in pixels.
 */
export async function morphed(name, { levels, width, height }, amount) {
  const worker = new Worker(new URL("./morphology_worker.mjs?v=0.1.0", import.meta.url), { type: "module" });
  try {
    return await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => reject(new Error(text("editor.notComputed", { reason: event.message ?? "" })));
      worker.postMessage({ name, levels, width, height, amount });
    });
  } finally {
    worker.terminate();
  }
}
