import assert from "node:assert/strict";
import { test } from "node:test";
import { starredFirst, titleOf } from "../../web/runs/kept/marks.mjs?v=0.1.0";

test("starred runs come first, and among equals the newest", () => {
  const runs = [{ id: "new" }, { id: "star", starred: true }, { id: "old" }, { id: "older star", starred: true }];
  assert.deepEqual(starredFirst(runs).map((run) => run.id), ["star", "older star", "new", "old"]);
});

test("a run is called as its person calls it", () => {
  assert.deepEqual([titleOf({ name: "a", label: "b" }), titleOf({ name: "a", label: "" }), titleOf(null)], ["b", "a", ""]);
});
