import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import "./english.mjs?v=0.1.0";
import { Announcer } from "../../web/runs/announce.mjs?v=0.1.0";

const going = { id: "x", name: "my cat", count: 1, state: "training", cancelled: false, said: [], progress: null, run: "a", step: 30, end: null };
const ended = (state, id = "x") => ({ ...going, id, state: "ended", end: { state, reasons: [] } });
const run = { id: "a", name: "my_cat", state: "running", step: 30, total: 200, written: "output/loras/my cat.safetensors" };
const LONG = 60_000;
let notified, kept;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout"] });
  [notified, kept] = [[], new Map()];
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
  Object.defineProperty(globalThis, "localStorage", { configurable: true, get: () => storage });
  globalThis.document = { title: "graph - ComfyUI", hidden: true, querySelector: () => ({}) };
  globalThis.MutationObserver = class { observe() {} };
  globalThis.Notification = class {
    static permission = "granted";
    constructor(name, { body }) {
      notified.push([name, body]);
    }
  };
});
afterEach(() => mock.timers.reset());

/** A page that wishes to be notified, with the part of a RunStore that it uses. */
function page() {
  const store = { apart: { start: null, refresh() {} }, run: (id) => (id === run.id ? run : null) };
  const announcer = new Announcer(store, "MLT_TrainLoRA");
  announcer.setting().onChange(true);
  const hear = (start, end = false) => {
    store.apart.start = start;
    store.apart.onHeard(start, end);
  };
  return { announcer, hear };
}

test("however a training apart ends, a page in the background tells it once, by the LoRA's name", () => {
  const { hear } = page();
  const words = [["finished", "Written: output/loras/my cat.safetensors"], ["failed", "The training failed."], ["stopped", /^Cancelled/]];
  for (const [state, body] of words) {
    hear({ ...going, id: state });
    hear(ended(state, state), true);
    mock.timers.tick(LONG);
    hear(ended(state, state), true);
    mock.timers.tick(LONG);
    const [name, told] = notified.pop();
    assert.deepEqual([name, notified], ["my cat", []]);
    assert.match(told, new RegExp(body));
  }
});

test("of several pages one tells it, and none where one is looked at", () => {
  const pages = [page(), page()];
  for (const { hear } of pages) hear(ended("finished"), true);
  mock.timers.tick(LONG);
  assert.equal(notified.length, 1);
  pages[0].hear(ended("finished", "y"), true);
  document.hidden = false;
  pages[1].hear(ended("finished", "y"), true);
  document.hidden = true;
  mock.timers.tick(LONG);
  assert.equal(notified.length, 1);
});

test("what is no end, and an end nobody wished to hear of, is not told", () => {
  const { announcer, hear } = page();
  hear(ended("finished"));
  announcer.setting().onChange(false);
  hear(ended("finished"), true);
  mock.timers.tick(LONG);
  assert.deepEqual(notified, []);
});

test("a training apart stands before whatever the page's title is, while it goes on", () => {
  const { announcer, hear } = page();
  hear({ ...going, run: "", step: 0 });
  assert.equal(document.title, "my cat · graph - ComfyUI");
  hear(going);
  assert.equal(document.title, "[15%] my cat · graph - ComfyUI");
  // ComfyUI writes it anew for what is queued meanwhile.
  document.title = "[10%] MLT_TrainLoRA";
  announcer.hear({ id: "b", name: "dog", state: "running" });
  assert.equal(document.title, "[15%] my cat · [10%] dog");
  hear(ended("finished"), true);
  assert.equal(document.title, "[10%] dog");
});
