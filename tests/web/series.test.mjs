import assert from "node:assert/strict";
import { test } from "node:test";
import { columns, curvesIn, lastStep, mergeRows, newest, scaleOf, smooth, thin, valuesAt } from "../../web/runs/series.mjs?v=0.1.0";

const row = (step, loss = step) => ({ step, loss });
const steps = (rows) => rows.map((one) => one.step);

test("merging keeps every step once, in order", () => {
  assert.deepEqual(steps(mergeRows([row(1), row(3)], [row(2), row(3, 9), row(4)])), [1, 2, 3, 4]);
  assert.equal(mergeRows([row(3)], [row(3, 9)])[0].loss, 9);
  assert.deepEqual(mergeRows([], []), []);
});

test("a held-out loss joins the step that it belongs to", () => {
  assert.deepEqual(mergeRows([row(5)], [{ step: 5, validation: 2 }]), [{ step: 5, loss: 5, validation: 2 }]);
});

test("a run that went back to a checkpoint loses its later steps", () => {
  assert.deepEqual(steps(mergeRows([row(1), row(2), row(3)], [], 1)), [1]);
});

test("thinning takes means, leaves short lists alone and keeps the last step", () => {
  const rows = [1, 2, 3, 4, 5].map((step) => row(step));
  assert.equal(thin(rows, 5), rows);
  assert.deepEqual(thin(rows, 3), [row(2, 1.5), row(4, 3.5), row(5)]);
  assert.equal(thin(Array.from({ length: 100_001 }, (_, i) => row(i)), 2000).length <= 2000, true);
});

test("a long training that is followed row by row keeps its early part as dense as its late one", () => {
  let rows = [];
  for (let step = 1; step <= 1000; step += 1) rows = thin(mergeRows(rows, [row(step)]), 100);
  const early = rows.filter(({ step }) => step <= 500);
  assert.ok(rows.length > 50 && Math.abs(early.length - rows.length / 2) <= 0.2 * rows.length, `${early.length} of ${rows.length}`);
  assert.ok(early.every(({ step, loss }) => Math.abs(loss - step) <= 20));
  assert.equal(rows.at(-1).step, 1000);
});

test("smoothing with weight 0 changes nothing, and gaps stay gaps", () => {
  assert.deepEqual(smooth([1, 2, 3], [5, null, 7], 0), [5, null, 7]);
  assert.deepEqual(smooth([1, 2, 3], [4, 8, 8], 0.5), [4, 6, 7]);
  const level = smooth([1, 5, 9], [2, 2, 2], 0.99);
  assert.ok(level.every((value) => Math.abs(value - 2) < 1e-12));
});

test("the past fades by steps, not by rows", () => {
  const each = smooth([0, 1, 2, 3, 4], [1, 0, 0, 0, 0], 0.9).at(-1);
  assert.ok(Math.abs(smooth([0, 4], [1, 0], 0.9).at(-1) - each) < 1e-12);
});

test("columns of two runs share their steps", () => {
  const data = columns([[row(1), row(3)], [row(2)]], { curves: ["loss"] });
  assert.deepEqual(data, [[1, 2, 3], [1, null, 3], [null, 2, null]]);
});

test("a log scale leaves out zero, and the learning rate is never smoothed", () => {
  const rows = [{ step: 1, loss: 0, learning_rate: 1 }, { step: 2, loss: 4, learning_rate: 0.5 }];
  const data = columns([rows], { curves: ["loss", "learning_rate"], weight: 0.5, log: true });
  assert.deepEqual(data, [[1, 2], [null, 2], [1, 0.5]]);
});

test("what is measured now and then is shown as it was measured", () => {
  const rows = [{ step: 4, loss: 4, leak: 0, validation: 2 }, { step: 8, loss: 8, leak: 1, validation: 4 }];
  const data = columns([rows], { curves: ["loss", "leak", "validation"], weight: 0.9 });
  assert.deepEqual(data.slice(2), [[0, 1], [2, 4]]);
  const { loss, ...rest } = newest(rows, 0.9);
  assert.deepEqual(rest, { leak: 1, validation: 4 });
  assert.ok(loss < 6);
});

test("figures of pictures have an axis of their own, which knows no log scale", () => {
  const rows = [{ step: 1, loss: 0, picture_leak: -0.1, picture_drift: 0 }, { step: 2, loss: 4, picture_leak: 0.2 }];
  const curves = ["loss", "picture_leak", "picture_drift"];
  assert.deepEqual(columns([rows], { curves, log: true }), [[1, 2], [null, 4], [-0.1, 0.2], [0, null]]);
  assert.deepEqual([...curves, "leak", "learning_rate"].map(scaleOf), ["y", "pictures", "pictures", "y", "rate"]);
});

test("the newest numbers and the curves that there are", () => {
  const rows = [{ step: 1, loss: 2, prior: 1 }, { step: 2, loss: 4 }];
  assert.deepEqual(curvesIn(rows), ["loss", "prior"]);
  assert.deepEqual(newest(rows, 0), { loss: 4, prior: 1 });
  assert.equal(lastStep(rows), 2);
  assert.equal(lastStep([]), 0);
});

test("the numbers at a step are those of the curve there", () => {
  const rows = [row(1, 8), row(2, 4), { ...row(3, 2), validation: 1 }];
  assert.deepEqual(valuesAt(rows, 0, 2), { loss: 4 });
  assert.deepEqual(valuesAt(rows, 0.5, 2), { loss: 6 });
  assert.deepEqual(valuesAt(rows, 0, 3), { loss: 2, validation: 1 });
});

test("two models that take turns have curves of their own, each smoothed over its own steps", () => {
  const rows = [{ step: 1, loss: 4 }, { step: 2, loss_low: 1 }, { step: 3, loss: 2 }, { step: 4, loss_low: 3 }];
  assert.deepEqual(curvesIn(rows), ["loss", "loss_low"]);
  assert.deepEqual(newest(rows, 0), { loss: 2, loss_low: 3 });
  const [, loss, low] = columns([rows], { curves: ["loss", "loss_low"] });
  assert.deepEqual(loss, [4, null, 2, null]);
  assert.deepEqual(low, [null, 1, null, 3]);
});
