import assert from "node:assert/strict";
import { test } from "node:test";
import { difference, listed, nextState, passing, WITH, WITHOUT } from "../../web/dataset/captions/tags.mjs?v=0.1.0";

const table = { names: ["sofa", "tag 10", "tag 2", "Cat"], counts: [3, 2, 1, 1], pictures: [[0, 1], [0, 3], [0, 1, 2], []] };
const passed = (wanted) => [0, 1, 2, 3].filter(passing(table, new Map(wanted)));

test("tags are listed as they come or by name, and found whatever the case", () => {
  assert.deepEqual(listed(table), [0, 1, 2, 3]);
  assert.deepEqual(listed(table, { order: "name" }), [3, 0, 2, 1]);
  assert.deepEqual(listed(table, { search: " cAt " }), [3]);
  assert.deepEqual(listed(table, { search: "zebra" }), []);
});

test("pictures pass with every wanted tag and without every unwanted one", () => {
  assert.deepEqual(passed([]), [0, 1, 2, 3]);
  assert.deepEqual(passed([["tag 10", WITH]]), [0, 2]);
  assert.deepEqual(passed([["tag 10", WITHOUT]]), [1, 3]);
  assert.deepEqual(passed([["sofa", WITH], ["tag 10", WITHOUT]]), [1]);
  assert.deepEqual(passed([["gone", WITH]]), []);
  assert.deepEqual([0, 9].filter(passing(table, new Map([["sofa", WITHOUT]]))), [9]);
});

test("a tag is clicked from with to without to all", () => {
  assert.deepEqual([undefined, WITH, WITHOUT].map(nextState), [WITH, WITHOUT, null]);
});

test("what a change does is shown between what stays, in whole words", () => {
  assert.deepEqual(difference("a red cat", "a blue cat"), ["a ", "red", "blue", " cat"]);
  assert.deepEqual(difference("cat", "zib, cat"), ["", "", "zib, ", "cat"]);
  assert.deepEqual(difference("a zibble, zibble", "a zibbel, zibbel"), ["a ", "zibble, zibble", "zibbel, zibbel", ""]);
  assert.deepEqual(difference("a, a", "a"), ["a", ", a", "", ""]);
  assert.deepEqual(difference("", "zib"), ["", "", "zib", ""]);
});
