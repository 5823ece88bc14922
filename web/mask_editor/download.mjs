// The mask as a file of the browser's own: it needs no server, so that nothing painted is lost without one.
import { give } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { encodeGrey } from "./png.mjs?v=0.1.0";

/** "cats/cat 1.png" gives "cat 1_mask.png". */
export function maskFileName(picture) {
  const name = picture.split(/[\\/]/).at(-1);
  const dot = name.lastIndexOf(".");
  return `${dot > 0 ? name.slice(0, dot) : name}_mask.png`;
}

/**
 * Gives a session's mask to the browser's downloads, as a grey PNG of 8 bits; also while the server is asked for
 * something, which may take long or fail.
 */
export async function downloadMask({ mask, picture, say }) {
  if (mask.history.open) return;
  try {
    const file = new Blob([await encodeGrey(mask.levels, mask.width, mask.height)], { type: "image/png" });
    const name = maskFileName(picture.name);
    give(file, name);
    say(text("editor.downloaded", { file: name }));
  } catch (error) {
    say(text("editor.notComputed", { reason: error.message }), true);
  }
}
