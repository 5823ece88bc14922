import assert from "node:assert/strict";
import { test } from "node:test";
import { fitting, FrameLoader } from "../../web/clips/loader.mjs?v=0.1.0";
import { ahead, frameAt, lasts, latentOf, stepOf, stepped, stretches } from "../../web/clips/pace.mjs?v=0.1.0";
import { Player } from "../../web/clips/player.mjs?v=0.1.0";
import { frameWords } from "../../web/clips/timeline.mjs?v=0.1.0";
import "./english.mjs?v=0.1.0";

const UNEVEN = [0, 0.1, 0.2, 0.5, 0.6];

test("the frame at a time is the last that has begun, also in a clip of uneven ones", () => {
  assert.deepEqual([-1, 0, 0.09, 0.1, 0.3, 0.4999, 0.5, 9].map((at) => frameAt(UNEVEN, at)), [0, 0, 0, 1, 2, 2, 3, 4]);
  assert.ok(Math.abs(lasts(UNEVEN) - 0.75) < 1e-9);
  assert.equal(lasts([0]), 1);
});

test("frames become latent frames as the VAE takes them: the first of a part alone, then groups", () => {
  const parts = [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10]];
  assert.deepEqual(latentOf({ parts, step: 4 }, 12), [0, 1, 1, 1, 1, -1, 2, 3, 3, 3, 3, -1]);
  assert.deepEqual(latentOf({ parts: [[0, 2, 4]], step: 1 }, 5), [0, -1, 1, -1, 2]);
  // A frame that is shown twice is in the latent frame of the first time.
  assert.deepEqual(latentOf({ parts: [[0, 0, 1, 1, 2]], step: 2 }, 3), [0, 1, 2]);
  assert.deepEqual(stretches([1, 1, null, 2]), [[0, 2, 1], [2, 3, null], [3, 4, 2]]);
});

test("what comes next goes round, a step does not", () => {
  assert.deepEqual(ahead(3, 5, 3), [4, 0, 1]);
  assert.deepEqual(ahead(0, 2, 9), [1]);
  assert.deepEqual(ahead(0, 1, 9), []);
  assert.deepEqual([stepped(3, 10, 5), stepped(3, -10, 5), stepped(3, -Infinity, 5), stepped(3, 1, 5)], [4, 0, 0, 4]);
});

test("frames are stepped with Alt alone: the plain arrows lead from picture to picture", () => {
  const key = (name, held = {}) => stepOf({ key: name, altKey: true, ...held });
  assert.deepEqual([key("ArrowLeft"), key("ArrowRight"), key("ArrowRight", { shiftKey: true }), key("Home"), key("End")], [-1, 1, 10, -Infinity, Infinity]);
  assert.deepEqual([key("ArrowLeft", { altKey: false }), key("ArrowLeft", { ctrlKey: true }), key("ArrowUp"), key("a")], [null, null, null, null]);
});

/** A player whose clock is turned by hand. */
function playing(times, ready) {
  const shown = [];
  let call = null;
  const player = new Player({ times, isReady: (number) => ready.has(number), show: (number) => shown.push(number), frame: (next) => (call = next) });
  const at = (now) => {
    const next = call;
    next(now);
  };
  return { player, shown, at };
}

test("a clip is played at its own rate and begins anew at its end", () => {
  const { player, shown, at } = playing(UNEVEN, new Set([0, 1, 2, 3, 4]));
  player.start(0);
  for (const now of [1000, 1050, 1110, 1210, 1400, 1510, 1610, 1700, 1760]) at(now);
  assert.deepEqual(shown, [1, 2, 3, 4, 0]);
  player.stop();
  at(1900);
  assert.equal(shown.length, 5);
});

test("a frame that is not there yet is waited for, and the rest keeps its pace", () => {
  const ready = new Set([0, 1]);
  const { player, shown, at } = playing([0, 0.1, 0.2, 0.3], ready);
  player.start(0);
  for (const now of [0, 110, 220, 900]) at(now);
  assert.deepEqual(shown, [1]);
  ready.add(2).add(3);
  at(910);
  assert.deepEqual(shown, [1, 2]);
  at(980);
  assert.deepEqual(shown, [1, 2]);
  at(1015);
  assert.deepEqual(shown, [1, 2, 3]);
});

/** A loader whose frames come when they are told to. */
function loading(options) {
  const asked = new Map();
  const closed = [];
  const loader = new FrameLoader(
    (number, signal) =>
      new Promise((resolve, reject) => {
        asked.set(number, { come: () => resolve({ number, close: () => closed.push(number) }), fail: reject, signal });
        signal.addEventListener("abort", () => reject(new Error("aborted")));
      }),
    options,
  );
  return { loader, asked, closed, settle: () => new Promise((done) => setTimeout(done)) };
}

test("what comes next is loaded nearest first, a few at a time, and given up where the way leads elsewhere", async () => {
  const { loader, asked, settle } = loading();
  loader.ahead(0, [1, 2, 3, 4, 5]);
  assert.deepEqual([...asked.keys()], [1, 2, 3]);
  asked.get(1).come();
  await settle();
  assert.deepEqual([...asked.keys()], [1, 2, 3, 4]);
  assert.equal(loader.ready(1).number, 1);
  loader.ahead(9, [10]);
  assert.ok(asked.get(2).signal.aborted && asked.get(3).signal.aborted);
  await settle();
  assert.ok(asked.has(10));
  assert.equal(loader.settled(2), false);
  // What failed is passed over by who plays, and asked for anew by who looks.
  asked.get(10).fail(new Error("damaged"));
  await settle();
  assert.ok(loader.settled(10) && loader.ready(10) === null);
  const again = loader.get(10);
  asked.get(10).come();
  assert.equal((await again).number, 10);
});

test("of large frames fewer are kept", () => {
  assert.deepEqual([[832, 480], [1920, 1080], [3840, 2160], [7680, 4320]].map((size) => fitting(size, 14)), [14, 14, 9, 4]);
});

test("frames are kept within a bound, the ones seen last, and what is shown stays", async () => {
  const { loader, asked, closed, settle } = loading({ most: 2, isShown: (found) => found.number === 0 });
  for (const number of [0, 1, 2]) {
    loader.ahead(number, []);
    const coming = loader.get(number);
    asked.get(number).come();
    await coming;
    await settle();
  }
  assert.deepEqual([0, 1, 2].map((number) => Boolean(loader.ready(number))), [false, true, true]);
  assert.deepEqual(closed, []);
  loader.empty();
  assert.deepEqual(closed.sort(), [1, 2]);
});

test("a frame is told by its number and time, and by its number alone where the rate is unknown", () => {
  assert.equal(frameWords(3, 5, UNEVEN, 8), "Frame 3 of 4 · 0.50 s");
  assert.equal(frameWords(3, 5, UNEVEN, 0), "Frame 3 of 4");
});
