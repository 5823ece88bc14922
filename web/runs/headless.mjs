// The open graph as a file for train.py, which trains it from a terminal: in the format of ComfyUI's API.
import { button, give } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";

/** The name of the file for a LoRA's name, which may hold folders: "people/anna" gives "anna.json". */
export function graphFileName(lora) {
  const name = String(lora).split(/[\\/]/).at(-1).replace(/\.safetensors$/i, "").replace(/[^\p{L}\p{N} ._-]/gu, "").trim();
  return `${name.replace(/^\.+/, "") || "graph"}.json`;
}

/**
 * A button that gives the open graph to the browser's downloads, and says what it did to `tell`.
 * @param page tells the graph: {prompt()}, as the page sends it when it is queued.
 * @param {() => string} name the LoRA's.
 */
export function headlessButton(page, name, tell) {
  return button(text("runs.headless"), text("runs.headlessHint"), async () => {
    try {
      const file = graphFileName(name());
      give(new Blob([JSON.stringify(await page.prompt(), null, 2)], { type: "application/json" }), file);
      tell(text("runs.headlessSaved", { file }));
    } catch (error) {
      tell(text("runs.failed", { reason: error.message }));
    }
  });
}
