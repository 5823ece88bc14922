// One opened data set as the server tells of it, kept up to date while somebody looks.
import { AUTOMATIC } from "../page/tint.mjs?v=0.1.0";
import { rowsOf } from "./rows.mjs?v=0.1.0";
import { told } from "../page/told.mjs?v=0.1.0";

const ROUTE = "/masked_lora/datasets";
const TICK = 700;
const IDLE = 5000;

/** Tells its listeners on every change. */
export class DatasetSource {
  /** @param api ComfyUI's scripts/api.js */
  constructor(api, id) {
    this.api = api;
    this.id = id;
    this.facts = null;
    this.rows = [];
    this.version = 0;
    this.problem = "";
    this.gone = false;
    this.listeners = new Set();
    this.details = new Map();
    this.tints = new Map();
    this.clips = new Map();
    this.frameFacts = new Map();
  }

  listen(listener) {
    this.listeners.add(listener);
    this.timer ??= setInterval(() => this.tick(), TICK);
    if (!this.facts) this.refresh();
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size) return;
      clearInterval(this.timer);
      this.timer = undefined;
    };
  }

  get measuring() {
    return Boolean(this.facts) && this.facts.measured < this.facts.count;
  }

  tick() {
    const due = this.measuring || Date.now() - (this.asked ?? 0) > IDLE;
    if (due && !document.hidden && !this.gone) this.refresh();
  }

  /** Asks how things are, and for the rows where they have changed. */
  async refresh() {
    if (this.asking) return this.asking;
    this.asking = this.look().finally(() => {
      this.asking = null;
      this.tell();
    });
    return this.asking;
  }

  async look() {
    this.asked = Date.now();
    try {
      const before = this.measuring;
      this.gone = false;
      this.facts = await this.ask("");
      this.problem = told(this.facts.problem);
      if (this.version !== this.facts.version || (before && !this.measuring)) {
        const columns = await this.ask("/pictures");
        this.rows = rowsOf(columns);
        this.version = columns.version;
        this.details.clear();
        this.tints.clear();
        this.clips.clear();
        this.frameFacts.clear();
      }
    } catch (error) {
      this.problem = error.message;
      this.gone = error.status === 404;
    }
  }

  /** Everything about one picture; remembered until something changes. */
  detail(index) {
    return this.once(this.details, index, `/pictures/${index}`);
  }

  /** The tints that stand out from one picture: {ignored, learned}, by what they lie on. */
  tint(index) {
    return this.once(this.tints, index, `/pictures/${index}/tint`);
  }

  /** When each frame of a clip is shown, and which are learned: {times, rate, keys, parts, step, cached, moves}. */
  frames(index) {
    return this.once(this.clips, index, `/pictures/${index}/frames`);
  }

  /** Coverage and weights of one frame of a clip: {number, frames, coverage, grid, weights}. */
  frame(index, number, stamp) {
    const path = `/pictures/${index}/frame/${number}?${new URLSearchParams({ stamp })}`;
    return this.once(this.frameFacts, path, path);
  }

  /** One frame of a clip ("image"), or its mask ("learned"), as an ImageBitmap; of `side` px at most, 0: as it is. */
  async frameBitmap(index, number, kind, { stamp, side, signal }) {
    const query = new URLSearchParams({ stamp, side });
    const answer = await this.answer(`/pictures/${index}/frame/${number}/${kind}?${query}`, { cache: "default", signal });
    return createImageBitmap(await answer.blob());
  }

  once(known, index, path) {
    if (!known.has(index)) {
      const question = this.ask(path);
      known.set(index, question);
      question.catch(() => known.delete(index));
      if (known.size > 50) known.delete(known.keys().next().value);
    }
    return known.get(index);
  }

  /** Tries mask transforms (null: the data set's own) and a resolution. */
  async tryOut(transform, resolution) {
    let refusal = "";
    try {
      this.facts = await this.ask("/look", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ transform, resolution }),
      });
    } catch (error) {
      refusal = error.message;
    }
    await this.refresh();
    if (!refusal) return;
    this.problem = refusal;
    this.tell();
  }

  /** Saves the caption of a picture: {text, token, file}. Rejects with the server's words, and `status` 412 in conflict. */
  async saveCaption(index, words, token) {
    const saved = await this.ask(`/pictures/${index}/caption`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: words, token }),
    });
    await this.refresh();
    return saved;
  }

  thumbnail(row, { view, side, colour, opacity }) {
    const query = new URLSearchParams({ view, side, stamp: row.stamp });
    if (view === "overlay") {
      // Without a colour the tint is the one that stands out.
      if (colour !== AUTOMATIC) query.set("colour", colour.slice(1));
      query.set("opacity", opacity);
    }
    return this.url(`/pictures/${row.index}/thumbnail?${query}`);
  }

  url(path) {
    return this.api.apiURL(`${ROUTE}/${this.id}${path}`);
  }

  tell() {
    for (const listener of this.listeners) listener();
  }

  async ask(path, options = {}) {
    return (await this.answer(path, options)).json().catch(() => ({}));
  }

  async answer(path, options) {
    const answer = await this.api.fetchApi(`${ROUTE}/${this.id}${path}`, { cache: "no-store", ...options });
    if (answer.ok) return answer;
    const content = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(told(content.error) ?? `${answer.status} ${answer.statusText}`), { status: answer.status });
  }
}
