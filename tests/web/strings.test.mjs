import assert from "node:assert/strict";
import { test } from "node:test";
import { text, useTexts } from "../../web/page/strings.js";

const messages = {
  en: { masked_lora: { runs: { stop: "Stop", left: "{time} left" } }, other: { stop: "no" } },
  de: { masked_lora: { runs: { stop: "Anhalten" } } },
};

test("a text is the language's own, else English, else its key", () => {
  useTexts(messages, "de");
  assert.deepEqual(["runs.stop", "runs.left", "runs.none"].map((key) => text(key, { time: "0:07" })), ["Anhalten", "0:07 left", "runs.none"]);
  useTexts(messages, "fr");
  assert.equal(text("runs.stop"), "Stop");
});

test("what no value is given for stays as it is written", () => {
  useTexts(messages, "en");
  assert.equal(text("runs.left"), "{time} left");
  useTexts(undefined, "en");
  assert.equal(text("runs.left"), "runs.left");
});
