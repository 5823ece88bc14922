// What the editor asks of the server: the picture, its mask, saving, and masks that are computed there.
import { decodeGrey, encodeGrey } from "./png.mjs?v=0.1.0";
import { told } from "../page/told.mjs?v=0.1.0";

/** The mask was changed elsewhere; the message is the server's sentence. */
export class Conflict extends Error {}

export class MaskServer {
  /** @param api ComfyUI's scripts/api.js; @param {string} dataset id; @param {number} picture index. */
  constructor(api, dataset, picture) {
    this.api = api;
    this.base = `/masked_lora/datasets/${dataset}/pictures/${picture}`;
    this.token = null;
  }

  async image() {
    const answer = await this.ask("/image", { cache: "no-store" });
    return createImageBitmap(await answer.blob());
  }

  /** The tints that stand out from the picture, by what they lie on: {ignored, learned}. */
  async tints() {
    return (await this.ask("/tint?mask=file", { cache: "no-store" })).json();
  }

  /** {levels, width, height} of the mask; from here on saving means over this one. */
  async mask() {
    const answer = await this.ask("/mask", { cache: "no-store" });
    const mask = await pixels(answer);
    this.token = answer.headers.get("ETag");
    return mask;
  }

  /** The levels before the last save; throws the server's sentence if none are kept. */
  async previous() {
    return (await pixels(await this.ask("/mask/previous", { cache: "no-store" }))).levels;
  }

  /** Saves over the mask that was loaded or saved last; throws a `Conflict` if somebody else was faster. */
  async save(levels, width, height) {
    const body = new Blob([await encodeGrey(levels, width, height)], { type: "image/png" });
    const headers = { "Content-Type": "image/png", "If-Match": this.token };
    const answer = await (await this.ask("/mask", { method: "POST", body, headers })).json();
    this.token = `"${answer.token}"`;
    return answer;
  }

  /** Saves over whatever is there. */
  async saveOver(levels, width, height) {
    const answer = await this.ask("/mask", { cache: "no-store" });
    this.token = answer.headers.get("ETag");
    return this.save(levels, width, height);
  }

  grabcut(box) {
    return this.compute("/grabcut", { box });
  }

  /** @param prompts {points} or {box}. */
  select(prompts) {
    return this.compute("/select", prompts);
  }

  /** A region of the whole picture. */
  async compute(path, values) {
    const headers = { "Content-Type": "application/json" };
    const { levels, width, height } = await pixels(await this.ask(path, { method: "POST", body: JSON.stringify(values), headers }));
    return { left: 0, top: 0, width, height, data: levels };
  }

  async ask(path, options = {}) {
    const answer = await this.api.fetchApi(this.base + path, options);
    if (answer.ok) return answer;
    let words = `${answer.status} ${answer.statusText}`;
    try {
      words = told((await answer.json()).error) ?? words;
    } catch {
      // Not ours: a proxy's page, say.
    }
    throw answer.status === 412 ? new Conflict(words) : new Error(words);
  }
}

async function pixels(answer) {
  return decodeGrey(new Uint8Array(await answer.arrayBuffer()));
}
