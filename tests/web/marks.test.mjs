import assert from "node:assert/strict";
import { test } from "node:test";
import { starredFirst, stepName, titleOf } from "../../web/runs/kept/marks.mjs?v=0.1.0";
import "./english.mjs?v=0.1.0";

test("starred runs come first, and among equals the newest", () => {
  const runs = [{ id: "new" }, { id: "star", starred: true }, { id: "old" }, { id: "older star", starred: true }];
  assert.deepEqual(starredFirst(runs).map((run) => run.id), ["star", "older star", "new", "old"]);
});

test("a run is called as its person calls it", () => {
  assert.deepEqual([titleOf({ name: "a", label: "b" }), titleOf({ name: "a", label: "" }), titleOf(null)], ["b", "a", ""]);
});

test("the step that a run's measures favour says so, the base model never", () => {
  const run = { favoured: 300 };
  assert.equal(stepName(run, 300), "step 300 · favoured");
  assert.equal(stepName(run, 300, "300 × 0.60"), "step 300 × 0.60 · favoured");
  assert.equal(stepName(run, 200), "step 200");
  assert.equal(stepName({ favoured: null }, 0), "step 0");
  assert.equal(stepName(undefined, 5), "step 5");
});
