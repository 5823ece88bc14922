import assert from "node:assert/strict";
import { test } from "node:test";
import { isTint, standingOut, TINTS } from "../../web/page/tint.mjs?v=0.1.0";

const numbers = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const pixels = (...colours) => Uint8ClampedArray.from(colours.flatMap((colour) => [...numbers(colour), 255]));

test("no picture is tinted in its own colour", () => {
  for (const tint of TINTS) assert.notEqual(standingOut(pixels(tint, tint, "#808080"), null), tint);
});

test("a picture with all colours but one is tinted in that", () => {
  for (const tint of TINTS) assert.equal(standingOut(pixels(...TINTS.filter((one) => one !== tint)), null), tint);
});

test("what the tint lies on counts most, what it lies beside somewhat", () => {
  for (const [under, beside] of [[0, 1], [1, 0], [2, 4]]) {
    const found = (tints, learned) => standingOut(pixels(TINTS[under], TINTS[beside]), Uint8Array.from(learned), tints);
    assert.notEqual(found("ignored", [0, 255]), TINTS[under]);
    assert.equal(found("ignored", [0, 255]), found("learned", [255, 0]));
    assert.notEqual(found("ignored", [0, 255]), TINTS[beside]);
  }
  // Of many colours nearly all are beside it: only those under it are the same.
  const many = pixels(TINTS[0], ...TINTS.slice(1));
  assert.notEqual(standingOut(many, Uint8Array.from([0, 255, 255, 255, 255, 255])), TINTS[0]);
  assert.equal(standingOut(many, Uint8Array.from([255, 0, 0, 0, 0, 0])), TINTS[0]);
});

test("a tint is a colour, or is left to the page", () => {
  assert.deepEqual(["automatic", "#dc1e3c", "red", "#DC1E3C", "", undefined].map(isTint), [true, true, false, false, false, false]);
  for (const tint of TINTS) assert.equal(isTint(tint), true);
});
