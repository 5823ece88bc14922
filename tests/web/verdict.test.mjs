import assert from "node:assert/strict";
import { test } from "node:test";
import { change, LEAKS, verdict } from "../../web/runs/verdict.mjs?v=0.1.0";

/** Rows of a training whose curves go in a line from one value to another, with jumps as large as their mean. */
function rows(curves, steps = 600, seed = 1) {
  let state = seed;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  return Array.from({ length: steps }, (_, i) => {
    const jump = 0.5 + random();
    const values = Object.entries(curves).map(([key, [from, to]]) => [key, (from + ((to - from) * i) / steps) * jump * (0.9 + 0.2 * random())]);
    return { step: i + 1, ...Object.fromEntries(values) };
  });
}

const FALLS = [1, 0.6], LEVEL = [1, 1], RISES = [1, 1.3];

test("a mask works where the inside falls and the outside does not", () => {
  for (const seed of [1, 2, 3, 4, 5]) {
    assert.equal(verdict(rows({ inside: FALLS, outside: LEVEL }, 600, seed)), "works");
    assert.equal(verdict(rows({ inside: FALLS, outside: RISES }, 600, seed)), "works");
  }
});

test("each other row of the help page has its words", () => {
  for (const seed of [1, 2, 3, 4, 5]) {
    assert.equal(verdict(rows({ inside: FALLS, outside: FALLS }, 600, seed)), "outsideFalls");
    assert.equal(verdict(rows({ inside: LEVEL, outside: LEVEL }, 600, seed)), "notLearning");
    assert.equal(verdict(rows({ inside: RISES, outside: LEVEL }, 600, seed)), "notLearning");
    assert.equal(verdict(rows({ inside: FALLS, outside: LEVEL, drift: [0.01, 0.02] }, 600, seed)), "driftRises");
    assert.equal(verdict(rows({ inside: FALLS }, 600, seed)), "noMask");
  }
});

test("an outside that falls a little beside the inside is no fault of the mask", () => {
  assert.equal(verdict(rows({ inside: [1, 0.5], outside: [1, 0.9] })), "works");
});

test("a drift that rises a little is that of every training", () => {
  assert.equal(verdict(rows({ inside: FALLS, outside: LEVEL, drift: [0.01, 0.012] })), "works");
});

test("nothing is said before there are enough steps, and nothing of a run without an inside", () => {
  assert.equal(verdict(rows({ inside: FALLS, outside: LEVEL }, 150)), "");
  assert.equal(verdict([]), "");
  assert.equal(verdict(rows({ loss: FALLS })), "");
});

test("rows that were put together say the same as long as there are enough of them", () => {
  const whole = rows({ inside: FALLS, outside: LEVEL }, 8000);
  const few = whole.filter((_, i) => i % 80 === 79);
  assert.equal(verdict(few), verdict(whole));
  assert.equal(change(few.slice(0, 20), "inside"), null);
});

test("a jump that cannot be told from chance is no change, and gaps and what is no number are passed over", () => {
  assert.equal(change(rows({ inside: LEVEL }), "inside"), 0);
  const holes = rows({ inside: FALLS }).map((row, i) => (i % 3 ? row : { step: row.step, inside: i % 2 ? NaN : undefined }));
  assert.ok(change(holes, "inside") < -0.2);
});

test("a measured leak decides, however the losses look, and the last one counts", () => {
  const ended = (leak, curves, steps = 600) => [...rows(curves, steps), { step: steps + 1, leak }];
  const works = { inside: FALLS, outside: LEVEL };
  assert.equal(verdict(ended(2 * LEAKS, works)), "leaks");
  assert.equal(verdict(ended(2 * LEAKS, works, 100)), "leaks");
  assert.equal(verdict(ended(0.5 * LEAKS, works)), "noLeak");
  assert.equal(verdict(ended(0.5 * LEAKS, works, 100)), "noLeak");
  assert.equal(verdict(ended(-2 * LEAKS, works)), "noLeak");
  assert.equal(verdict([{ step: 0, leak: 2 * LEAKS }, ...ended(0, works)]), "noLeak");
});

test("a small leak is no praise for a training that learns nothing, falls outside or drifts", () => {
  const none = (curves) => [...rows(curves), { step: 700, leak: 0 }];
  assert.equal(verdict(none({ inside: LEVEL, outside: LEVEL })), "notLearning");
  assert.equal(verdict(none({ inside: FALLS, outside: FALLS })), "outsideFalls");
  assert.equal(verdict(none({ inside: FALLS, outside: LEVEL, drift: [0.01, 0.02] })), "driftRises");
});
