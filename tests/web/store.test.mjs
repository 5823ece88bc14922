import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { RunStore } from "../../web/runs/store.mjs?v=0.1.0";

const EVENT = "masked_lora.progress";
const rows = (first, last) => Array.from({ length: last - first + 1 }, (_, i) => ({ step: first + i, loss: first + i }));
const steps = (store) => store.rowsOf("a").map((row) => row.step);
const facts = (step, state = "running") => ({ id: "a", step, state });
const settled = () => new Promise((done) => setTimeout(done, 5));

/** A server whose answers about run `a` come when the test says so. */
class Api extends EventTarget {
  constructor() {
    super();
    this.now = { run: facts(0), rows: [] };
    this.held = [];
    this.hold = false;
  }

  /** What is true on the server from here on. */
  is(step, state) {
    this.now = { run: facts(step, state), rows: rows(1, step) };
  }

  async fetchApi(path) {
    const { run, rows: all } = this.now;
    const since = Number(path.split("since=")[1] ?? 0);
    const content = path.endsWith("/runs") ? { runs: [run] } : { run, rows: all.filter((row) => row.step >= since) };
    if (this.hold && path.includes("since=")) await new Promise((done) => this.held.push(done));
    return { ok: true, json: async () => structuredClone(content) };
  }

  tell(run, after, news) {
    this.dispatchEvent(Object.assign(new Event(EVENT), { detail: { run, after, rows: news } }));
  }
}

const stops = [];
afterEach(() => stops.splice(0).forEach((stop) => stop()));

/** A store that follows run `a`, which is at step 5. */
async function followed() {
  globalThis.document ??= { hidden: false };
  const api = new Api();
  api.is(5);
  const store = new RunStore(api);
  stops.push(store.listen(() => {}, () => ["a"]));
  await store.backfill("a");
  await settled();
  assert.deepEqual(steps(store), [1, 2, 3, 4, 5]);
  return { api, store };
}

test("rows that were told while the connection was broken are asked for when the next come", async () => {
  const { api, store } = await followed();
  api.is(9);
  api.tell(facts(9), 8, rows(9, 9));
  await settled();
  assert.deepEqual(steps(store), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("a run that ended while the connection was broken is asked for once it is back", async () => {
  const { api, store } = await followed();
  api.is(9, "stopped");
  api.dispatchEvent(new Event("reconnected"));
  await settled();
  assert.deepEqual([steps(store).at(-1), store.run("a").state], [9, "stopped"]);
});

test("an answer from before the end, that comes after it, leaves no gap at the end", async () => {
  const { api, store } = await followed();
  api.hold = true;
  const late = store.backfill("a");
  api.is(9, "stopped");
  api.tell(facts(9, "stopped"), 5, rows(6, 9));
  await settled();
  api.hold = false;
  api.held.forEach((answer) => answer());
  await late;
  // The list, which is asked for at the end of a run, may come last.
  await store.refresh();
  store.tick();
  await settled();
  assert.deepEqual([steps(store).at(-1), store.run("a").state], [9, "stopped"]);
});

test("a reconnect during a question that knows less asks once more", async () => {
  const { api, store } = await followed();
  api.hold = true;
  store.backfill("a");
  await settled();
  api.is(9, "stopped");
  api.dispatchEvent(new Event("reconnected"));
  await settled();
  api.hold = false;
  api.held.forEach((answer) => answer());
  await settled();
  store.tick();
  await settled();
  assert.deepEqual([steps(store).at(-1), store.run("a").state], [9, "stopped"]);
});

test("a held-out loss that was told while the connection was broken joins its step", async () => {
  const { api, store } = await followed();
  api.is(6);
  api.now.rows[4].validation = 2;
  api.dispatchEvent(new Event("reconnected"));
  api.tell(facts(6), 5, rows(6, 6));
  await settled();
  assert.equal(store.rowsOf("a")[4].validation, 2);
});

test("a run at rest is asked for once, and again when it has been trained on", async () => {
  const { api, store } = await followed();
  let asked = 0;
  const fetch = api.fetchApi;
  api.fetchApi = (path) => {
    asked += path.includes("since=");
    return fetch.call(api, path);
  };
  api.is(9, "stopped");
  api.tell(facts(9, "stopped"), 5, rows(6, 9));
  for (let i = 0; i < 5; i += 1) {
    store.tick();
    await settled();
  }
  assert.equal(asked, 1);
  api.is(12);
  api.tell(facts(12), 9, rows(10, 12));
  api.is(14, "finished");
  await store.refresh();
  for (let i = 0; i < 5; i += 1) {
    store.tick();
    await settled();
  }
  assert.deepEqual([asked, steps(store).at(-1)], [2, 14]);
});

test("each file that is written is told once, and none that was there before", async () => {
  const api = new Api();
  const told = [];
  const store = new RunStore(api, () => told.push(store.run("a").written));
  api.now.run = { ...facts(4, "finished"), written: "output/loras/old.safetensors" };
  stops.push(store.listen(() => {}));
  await settled();
  assert.deepEqual(told, []);
  const written = "output/loras/a.safetensors";
  api.now.run = { ...facts(9, "finished"), written };
  api.tell(api.now.run, 8, []);
  api.tell(api.now.run, 9, []);
  await store.refresh();
  await store.refresh();
  assert.deepEqual(told, [written]);
});

/** A server with a training apart, and a run of it that other nodes of its graph have written files of. */
class ApartApi extends Api {
  apart = { id: "x", name: "cat", state: "training", step: 3, run: "a", hidden: false, end: null };

  async fetchApi(path) {
    if (!path.endsWith("/apart")) return super.fetchApi(path);
    return { ok: true, json: async () => structuredClone({ cards: 0, start: this.apart }) };
  }

  end(state) {
    this.apart = { ...this.apart, state: "ended", end: { state, reasons: [] } };
  }
}

test("the nodes' lists are read once at the end of a training apart, in the background and without a panel", async () => {
  const hidden = globalThis.document;
  globalThis.document = { hidden: true };
  for (const [end, written] of [["finished", "output/loras/a.safetensors"], ["stopped", ""]]) {
    const api = new ApartApi(), heard = [];
    let lists = 0;
    api.is(3);
    const store = new RunStore(api, () => (lists += 1));
    store.apart.onHeard = (start, ended) => ended && heard.push(start.end.state);
    await store.apart.refresh();
    await settled();
    assert.deepEqual([store.listeners.size, lists], [1, 0]);
    api.now.run = { ...facts(9, "stopped"), written };
    api.end(end);
    store.apart.asked = -Infinity;
    store.tick();
    await settled();
    assert.deepEqual([heard, lists, store.listeners.size, store.timer], [[end], 1, 0, undefined]);
  }
  globalThis.document = hidden;
});

test("an end that is older than the page is no news", async () => {
  const api = new ApartApi(), heard = [];
  let lists = 0;
  api.end("finished");
  const store = new RunStore(api, () => (lists += 1));
  store.apart.onHeard = (start, ended) => heard.push(ended);
  await store.apart.refresh();
  await store.apart.refresh();
  assert.deepEqual([heard, lists, store.listeners.size], [[false, false], 0, 0]);
});
