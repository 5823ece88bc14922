import assert from "node:assert/strict";
import { test } from "node:test";
import { falls, sorted } from "../../web/runs/table/rows.mjs?v=0.1.0";

const rows = [
  { name: "10.png", relative: 1.5, loss: 0.1, showings: 3 },
  { name: "9.png", relative: null, loss: null, showings: 0 },
  { name: "b.png", relative: 2, loss: 0.05, showings: 3 },
];
const names = (column, down) => sorted(rows, column, down).map((row) => row.name);

test("rows are ordered by any column, and what has no number stands last either way", () => {
  assert.deepEqual(names("relative", true), ["b.png", "10.png", "9.png"]);
  assert.deepEqual(names("relative", false), ["10.png", "b.png", "9.png"]);
  assert.deepEqual(names("loss", true), ["10.png", "b.png", "9.png"]);
  assert.deepEqual(names("showings", false), ["9.png", "10.png", "b.png"]);
  assert.equal(rows[0].name, "10.png");
});

test("names are ordered as people count", () => {
  assert.deepEqual(names("name", false), ["9.png", "10.png", "b.png"]);
  assert.ok(!falls("name") && falls("showings"));
});
