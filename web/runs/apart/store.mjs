// The training that the page has started as processes of its own: asked for while it goes on, told to who listens.
const ROUTE = "/masked_lora/apart";
// In a page that lies in the background nobody sees how far it is.
const EVERY = 2000, HIDDEN_EVERY = 10_000;

/** A training apart goes on until it has told its end, or is gone. */
export const goesOn = (start) => Boolean(start) && start.state !== "ended";

export class ApartStore {
  /** @param store a RunStore: it asks the server, and its listeners are told. */
  constructor(store) {
    this.store = store;
    // Cards, most and usual number of processes, whether the queue is at work; null while that is not known.
    this.choices = null;
    this.start = null;
    this.asked = -Infinity;
    // Told of each answer, and whether the training has ended with it.
    this.onHeard = () => {};
    this.leave = null;
  }

  /** What is shown: a training that goes on, or one that has ended and was not read yet. */
  get shown() {
    return this.start && (goesOn(this.start) || !this.start.hidden) ? this.start : null;
  }

  /** Called about once a second while somebody listens. */
  tick(now) {
    if (goesOn(this.start) && now - this.asked > (globalThis.document?.hidden ? HIDDEN_EVERY : EVERY)) this.refresh();
  }

  async refresh() {
    this.asked = Date.now();
    // The list of runs tells where ComfyUI does not answer.
    const answer = await this.store.ask(ROUTE).catch(() => null);
    if (!answer) return;
    const { start, ...choices } = answer;
    this.choices = choices;
    await this.take(start);
  }

  /** Takes over what the server tells; an end is told once its run rests, whose file the nodes' lists shall hold. */
  async take(start) {
    const was = this.start;
    this.start = start;
    const ended = goesOn(was) && !goesOn(start);
    if (goesOn(start)) {
      // Its end is told, and its file found, also where no panel is open.
      this.leave ??= this.store.listen(() => {});
    } else {
      this.leave?.();
      this.leave = null;
    }
    if (ended) await this.store.refreshFiles();
    this.onHeard(start, ended && start?.id === was.id);
    this.store.tell();
  }

  /** Starts so many processes on a graph: {prompt, workflow}. Rejects with the server's words. */
  async begin({ prompt, workflow }, count) {
    await this.post(ROUTE, { prompt, workflow: workflow ?? null, count });
  }

  /** Asks it to end with a checkpoint, and the second time at once. Rejects with the server's words. */
  cancel() {
    return this.post(`${ROUTE}/${this.start.id}/cancel`, {});
  }

  /** Its end was read. Rejects with the server's words. */
  hide() {
    return this.post(`${ROUTE}/${this.start.id}/hide`, {});
  }

  async post(path, body) {
    const { start } = await this.store.post(path, body);
    await this.take(start);
  }
}
