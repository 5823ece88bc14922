import assert from "node:assert/strict";
import { test } from "node:test";
import { prompts, stepsOf, stepToShow } from "../../web/runs/samples/pictures.js";

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
