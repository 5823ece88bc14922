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

test("a text with two forms follows the number, by the rules of its language", () => {
  const forms = { en: { masked_lora: { n: "{count} picture | {count} pictures" } }, fr: { masked_lora: { n: "{count} image | {count} images" } } };
  const said = (language) => {
    useTexts(forms, language);
    return [0, 1, 2].map((count) => text("n", { count }));
  };
  assert.deepEqual(said("en"), ["0 pictures", "1 picture", "2 pictures"]);
  assert.deepEqual(said("fr"), ["0 image", "1 image", "2 images"]);
});
