// What the page knows of the runs: from events while one trains here, by asking for everything else.
import { ApartStore, goesOn } from "./apart/store.mjs?v=0.1.0";
import { isLive } from "./describe.mjs?v=0.1.0";
import { lastStep, mergeRows, thin } from "./series.mjs?v=0.1.0";
import { told } from "../page/told.mjs?v=0.1.0";

/** The message by which the server tells of a training. */
export const EVENT = "masked_lora.progress";
const ROUTE = "/masked_lora/runs";
const TICK = 1000;
// A run whose events go to another browser is asked for this often, and the list while something is queued.
const SILENCE = 2000;

/** How a run rests: another one has been trained on, or ended, since. */
const rest = (run) => `${run?.state} at ${run?.step}`;

/**
 * Tells its listeners whenever a run or the list has changed. It asks the server only while somebody listens.
 * @param api ComfyUI's scripts/api.js
 * @param onFile called when LoRA files were written, once for each.
 */
export class RunStore {
  constructor(api, onFile = () => {}) {
    this.api = api;
    this.onFile = onFile;
    // Told of each event about a run.
    this.onHeard = () => {};
    this.files = new Set();
    // The files of the first list the page has found by itself.
    this.fresh = true;
    this.runs = [];
    this.online = true;
    this.rows = new Map();
    this.heard = new Map();
    this.samples = new Map();
    this.asking = new Map();
    this.failed = new Map();
    // How a run rested when its rows were asked for: all that it has are here.
    this.whole = new Map();
    this.listeners = new Map();
    this.listed = 0;
    this.queued = false;
    this.apart = new ApartStore(this);
    api.addEventListener(EVENT, (event) => this.hear(event.detail));
    api.addEventListener("status", (event) => this.noteQueue(event.detail));
    api.addEventListener("reconnected", () => this.refresh(true));
    // From a terminal, where a training may have been started.
    globalThis.addEventListener?.("focus", () => this.glance());
  }

  /** Calls `listener` on every change until the returned function is called; `wanted()` gives ids of shown runs. */
  listen(listener, wanted = () => []) {
    this.listeners.set(listener, wanted);
    this.timer ??= setInterval(() => this.tick(), TICK);
    this.refresh();
    this.apart.refresh();
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size) return;
      clearInterval(this.timer);
      this.timer = undefined;
    };
  }

  run(id) {
    return this.runs.find((run) => run.id === id) ?? null;
  }

  rowsOf(id) {
    return this.rows.get(id) ?? [];
  }

  /** Sends a wish: stop, save, sample, pause or resume. Rejects with the server's words. */
  async act(id, action) {
    const answer = await this.post(`${ROUTE}/${id}/${action}`, {});
    this.know(answer.run);
    this.tell();
  }

  /** Writes a LoRA file of a checkpoint: its name below the output folder. Rejects with the server's words. */
  async exportRun(id, step) {
    const { files } = await this.post(`${ROUTE}/${id}/export`, { step });
    this.noteFiles(files);
    return files.join(", output/");
  }

  /** Makes the checkpoint of a step a run's LoRA: the file that was written. Rejects with the server's words. */
  async pickStep(id, step) {
    const { run } = await this.post(`${ROUTE}/${id}/pick`, { step });
    this.know(run);
    this.tell();
    return run.written;
  }

  /** What deleting a run would free, and its file, which stays: {bytes, written}. Rejects with the server's words. */
  sizeOf(id) {
    return this.ask(`${ROUTE}/${id}/size`);
  }

  /** Deletes a run: the bytes that were freed. Rejects with the server's words. */
  async deleteRun(id) {
    try {
      return (await this.post(`${ROUTE}/${id}/delete`, {})).bytes;
    } finally {
      await this.refresh();
    }
  }

  /** Notes a name or a star on a run: {label} or {starred}. Rejects with the server's words. */
  async mark(id, marks) {
    const kept = await this.post(`${ROUTE}/${id}/marks`, marks);
    const run = this.run(id);
    if (run) this.know({ ...run, ...kept });
    this.tell();
  }

  /** What somebody who helps must know of a run, as text. Rejects with the server's words. */
  async reportOf(id) {
    return (await this.ask(`${ROUTE}/${id}/report`)).text;
  }

  /** The graph that queued a run. Rejects with the server's words. */
  graph(id) {
    return this.ask(`${ROUTE}/${id}/graph`);
  }

  /** The table of a run's pictures: {rows, recent}. Rejects with the server's words. */
  picturesOf(id) {
    return this.ask(`${ROUTE}/${id}/pictures`);
  }

  /** A small picture of the data set's picture of a number. */
  runPictureUrl(id, number) {
    return this.api.apiURL(`${ROUTE}/${id}/pictures/${number}/thumbnail`);
  }

  /** A graph that uses a run's LoRA: {prompt, roles}. Rejects with the server's words. */
  useGraph(id) {
    return this.ask(`${ROUTE}/${id}/use`);
  }

  /** What sample pictures a run has, as far as it is known; asks again when there are others. */
  samplesOf(run) {
    const known = this.samples.get(run.id) ?? { mark: "", list: null };
    if (known.mark !== run.pictures_mark && !known.asked) {
      known.asked = true;
      this.samples.set(run.id, known);
      const mark = run.pictures_mark;
      this.ask(`${ROUTE}/${run.id}/samples`)
        .then((list) => this.samples.set(run.id, { mark, list }))
        // Asked again when there are others, or after a reconnect.
        .catch(() => this.samples.set(run.id, { mark, list: known.list }))
        .finally(() => this.tell());
    }
    return known.list;
  }

  pictureUrl(id, step, number) {
    return this.api.apiURL(`${ROUTE}/${id}/samples/${step}/${number}`);
  }

  /** The current sample of a run: {blob, name, step}, null where it shows none. */
  async current(id, frame = 0) {
    const answer = await this.api.fetchApi(`${ROUTE}/${id}/current?frame=${frame}`, { cache: "no-store" });
    if (answer.status !== 200) return null;
    const name = decodeURIComponent(answer.headers.get("X-Sample-Name") ?? "");
    const [step, frames] = ["X-Sample-Step", "X-Frames"].map((header) => Number(answer.headers.get(header)));
    return { blob: await answer.blob(), name, step, frames };
  }

  async refresh(everything = false) {
    this.listed = Date.now();
    if (everything) this.failed.clear();
    const curves = everything ? [...this.rows.keys()].map((id) => this.catchUp(id)) : [];
    try {
      const known = new Map(this.runs.map((run) => [run.id, run]));
      const { runs } = await this.ask(ROUTE);
      this.runs = runs.map((run) => ({ ...known.get(run.id), ...run }));
      this.noteRuns();
      this.online = true;
      if (everything) this.samples.clear();
      await Promise.all(curves);
    } catch {
      this.online = false;
    }
    this.tell();
  }

  /** Asks for everything after a training of which no event has told: other nodes of its graph may have written files. */
  async refreshFiles() {
    const known = this.files.size;
    await this.refresh(true);
    if (this.files.size === known) this.onFile();
  }

  /** Asks for the rows after those that are there; one question at a time. */
  backfill(id) {
    return this.asking.get(id) ?? this.question(id, lastStep(this.rowsOf(id)));
  }

  /** Asks for what was told after the last row that is there, even if a question is under way, which may know less. */
  catchUp(id) {
    // Before newer rows come: the held-out loss of that step may be what was missed.
    const since = lastStep(this.rowsOf(id));
    const asked = this.asking.get(id);
    return asked ? asked.then(() => this.question(id, since)) : this.question(id, since);
  }

  question(id, since) {
    // Whoever draws asks again at once; a run that is gone must not be asked for without end.
    if (Date.now() - (this.failed.get(id) ?? 0) < SILENCE) return Promise.resolve();
    const question = this.ask(`${ROUTE}/${id}?since=${since}`)
      .then(({ run, rows }) => {
        this.online = true;
        this.know(run);
        this.take(run, rows);
        if (!isLive(run)) this.whole.set(id, rest(run));
      })
      .catch(() => this.failed.set(id, Date.now()))
      .finally(() => {
        this.asking.delete(id);
        this.heard.set(id, Date.now());
        this.tell();
      });
    this.asking.set(id, question);
    return question;
  }

  hear({ run, after, rows }) {
    const known = this.rows.get(run.id);
    const isNew = !this.run(run.id);
    this.know(run);
    this.heard.set(run.id, Date.now());
    // Rows of a run that nobody has opened, or after a gap, come with the next backfill.
    if (known && lastStep(known) >= after) this.take(run, rows);
    else if (known) this.backfill(run.id);
    if (isNew || !isLive(run)) this.refresh();
    this.onHeard(this.run(run.id));
    this.tell();
  }

  know(run) {
    const at = this.runs.findIndex((one) => one.id === run.id);
    if (at < 0) this.runs = [run, ...this.runs];
    else this.runs = this.runs.with(at, { ...this.runs[at], ...run });
    if (!this.fresh) this.noteRuns();
  }

  /** Takes note of the files of the runs that are known. */
  noteRuns() {
    this.noteFiles(this.runs.map((run) => run.written), this.fresh);
    this.fresh = false;
  }

  /** @param {string[]} files LoRA files that were written, by whatever name; those that are known are no news. */
  noteFiles(files, silent = false) {
    const news = files.filter((file) => file && !this.files.has(file));
    news.forEach((file) => this.files.add(file));
    if (news.length && !silent) this.onFile();
  }

  take(run, rows) {
    this.rows.set(run.id, thin(mergeRows(this.rowsOf(run.id), rows, run.step)));
  }

  /** A person has come back to the page. */
  glance() {
    if (!this.listeners.size || Date.now() - this.listed < SILENCE) return;
    this.refresh();
    this.apart.refresh();
  }

  noteQueue(status) {
    this.queued = (status?.exec_info?.queue_remaining ?? 0) > 0;
    if (this.listeners.size) this.refresh();
  }

  tick() {
    const now = Date.now();
    // In the background, too: no event tells of its end.
    this.apart.tick(now);
    if (document.hidden) return;
    // Of what other processes train no event tells.
    const followed = this.queued || goesOn(this.apart.start) || this.runs.some((run) => run.elsewhere && isLive(run));
    if ((followed || !this.online) && now - this.listed > SILENCE) this.refresh();
    const shown = new Set([...this.listeners.values()].flatMap((wanted) => wanted()));
    for (const id of shown) {
      const run = this.run(id);
      const silent = now - (this.heard.get(id) ?? 0) > SILENCE;
      // Rows of a run's end can be lost, and an older answer can come after them.
      const due = isLive(run) ? silent : this.whole.get(id) !== rest(run);
      if (due || !this.rows.has(id)) this.backfill(id);
    }
  }

  tell() {
    for (const listener of this.listeners.keys()) listener();
  }

  post(path, body) {
    return this.ask(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  async ask(path, options = {}) {
    const answer = await this.api.fetchApi(path, { cache: "no-store", ...options });
    const content = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(told(content.error) ?? `${answer.status} ${answer.statusText}`);
    return content;
  }
}
