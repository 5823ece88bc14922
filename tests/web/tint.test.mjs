import assert from "node:assert/strict";
import { test } from "node:test";
import { DatasetSource } from "../../web/dataset/source.mjs?v=0.1.0";
import { AUTOMATIC, isTint, USUAL } from "../../web/page/tint.mjs?v=0.1.0";

test("a tint is a colour, or is left to the server", () => {
  assert.deepEqual([AUTOMATIC, USUAL, "red", "#DC1E3C", "", undefined].map(isTint), [true, true, false, false, false, false]);
});

test("a thumbnail's tint is left to the server unless a person has chosen one", () => {
  const source = new DatasetSource({ apiURL: (path) => path }, "a");
  const asked = (colour) => new URL(source.thumbnail({ index: 0, stamp: 1 }, { view: "overlay", side: 96, colour, opacity: 60 }), "http://a").searchParams.get("colour");
  assert.equal(asked(AUTOMATIC), null);
  assert.equal(asked("#00b84a"), "00b84a");
});
