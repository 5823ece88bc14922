import assert from "node:assert/strict";
import { test } from "node:test";
import {
  atStrength, prompts, query, stepsOf, stepToShow, strengths, strengthToShow, toldStep,
} from "../../web/runs/samples/pictures.mjs?v=0.1.0";

const LIST = {
  prompts: ["a cat", "a dog", "a house"],
  steps: [{ step: 0, numbers: [0, 1] }, { step: 100, numbers: [0, 1] }, { step: 200, numbers: [0] }],
};

test("only prompts with a picture are offered", () => {
  assert.deepEqual(prompts(LIST), [{ number: 0, prompt: "a cat" }, { number: 1, prompt: "a dog" }]);
  assert.deepEqual(prompts(null), []);
});

test("each prompt has its own steps", () => {
  assert.deepEqual([0, 1, 2].map((number) => stepsOf(LIST, number)), [[0, 100, 200], [0, 100], []]);
});

test("the newest step is shown until another is chosen, and a chosen one that is gone gives way to the one before", () => {
  assert.equal(stepToShow([0, 100, 200], null), 200);
  assert.equal(stepToShow([0, 100, 200], 100), 100);
  assert.equal(stepToShow([0, 100, 200], 150), 100);
  assert.equal(stepToShow([100], 0), 100);
  assert.equal(stepToShow([], null), null);
});

const SEVERAL = {
  ...LIST,
  look: "abc",
  strengths: { "1.50": [{ step: 200, numbers: [1] }], "-0.50": [{ step: 100, numbers: [0] }], "0.60": [{ step: 300, numbers: [0] }] },
};

test("strengths come weakest first, the training's among them where it has drawn", () => {
  assert.deepEqual(strengths(SEVERAL), ["-0.50", "0.60", "1.00", "1.50"]);
  assert.deepEqual(strengths({ ...SEVERAL, steps: [{ step: 0, numbers: [0] }] }), ["-0.50", "0.60", "1.50"]);
  assert.deepEqual(strengths(LIST), ["1.00"]);
  assert.deepEqual(strengths(null), []);
});

test("a strength that is gone gives way to the training's, and that to the strongest", () => {
  assert.equal(strengthToShow(SEVERAL, "0.60"), "0.60");
  assert.equal(strengthToShow(SEVERAL, "0.80"), "1.00");
  assert.equal(strengthToShow({ ...SEVERAL, steps: [] }, "0.80"), "1.50");
  assert.equal(strengthToShow(null, "0.80"), "1.00");
});

test("each strength has its own steps, and the base model's pictures", () => {
  assert.equal(atStrength(SEVERAL, "1.00"), SEVERAL);
  assert.deepEqual(atStrength(SEVERAL, "0.60").steps, [{ step: 0, numbers: [0, 1] }, { step: 300, numbers: [0] }]);
  assert.deepEqual(stepsOf(atStrength(SEVERAL, "1.50"), 1), [0, 200]);
  assert.equal(atStrength(null, "0.60"), null);
});

test("a picture's address tells its strength where it is not the training's; the base model has none", () => {
  assert.equal(query(SEVERAL, 100, "1.00"), "?look=abc");
  assert.equal(query(SEVERAL, 300, "0.60"), "?look=abc&strength=0.60");
  assert.equal(query(SEVERAL, 0, "0.60"), "?look=abc");
  assert.deepEqual(["1.00", "0.60"].map((one) => toldStep(300, one)), ["300", "300 × 0.60"]);
});
