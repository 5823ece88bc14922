// What the editor asks of a clip: its frames, and the draft of its masks, which the server keeps until it is saved.
import { decodeGrey, encodeGrey } from "../png.mjs?v=0.1.0";
import { MaskServer } from "../server.mjs?v=0.1.0";

export class ClipServer extends MaskServer {
  /** Which frame is meant where the server looks at a picture. */
  at = 0;

  /** {times, rate, moves, stamp, …} of the clip; whether its saved masks move. */
  async facts() {
    return (await this.ask("/frames", { cache: "no-store" })).json();
  }

  /** A frame of the clip as it is. */
  async picture(number, stamp, signal) {
    const answer = await this.ask(`/frame/${number}/image?${new URLSearchParams({ stamp })}`, { signal });
    return createImageBitmap(await answer.blob());
  }

  /** The state of the draft; the saved masks become one where there is none. */
  async draft() {
    return (await this.ask("/draft", { cache: "no-store" })).json();
  }

  /** The levels of a frame's mask in the draft. */
  async levels(number, stamp, signal) {
    const answer = await this.ask(`/draft/${number}?stamp=${stamp}`, { signal });
    return (await decodeGrey(new Uint8Array(await answer.arrayBuffer()))).levels;
  }

  /** Sets the mask of a frame that had the stamp `seen`: the state after it. */
  async setFrame(number, { levels, width, height }, seen) {
    const body = new Blob([await encodeGrey(levels, width, height)], { type: "image/png" });
    return this.send(`/draft/${number}`, body, "image/png", seen);
  }

  /** One of copy, apply, still, undo, redo, previous, track, track/stop, save, over, discard. */
  change(what, values, revision) {
    return this.send(`/draft/${what}`, JSON.stringify(values), "application/json", revision);
  }

  async send(path, body, type, revision) {
    const headers = { "Content-Type": type, "If-Match": `"${revision}"` };
    return (await this.ask(path, { method: "POST", body, headers })).json();
  }

  compute(path, values) {
    return super.compute(`${path}?frame=${this.at}`, values);
  }
}
