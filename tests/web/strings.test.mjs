import assert from "node:assert/strict";
import { test } from "node:test";
import { locale, text, useTexts } from "../../web/page/strings.mjs?v=0.1.0";

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

test("dates are in the language of the texts, and in the browser's variant of it", () => {
  const said = (language, messages) => {
    useTexts(messages, language);
    return locale();
  };
  const chinese = { zh: { masked_lora: { a: "b" } } };
  Object.defineProperty(globalThis, "navigator", { value: { languages: ["de", "zh-CN", "en-GB"] }, configurable: true });
  assert.deepEqual([said("zh", chinese), said("en", messages), said("fr", chinese)], ["zh-CN", "en-GB", "en-GB"]);
  Object.defineProperty(globalThis, "navigator", { value: { languages: ["zhx", "en-US"] }, configurable: true });
  assert.equal(said("zh", chinese), "zh");
});

test("where a language has no texts of ours, the English ones keep the rules of English", () => {
  useTexts({ en: { masked_lora: { n: "{count} picture | {count} pictures" } } }, "ja");
  assert.equal(text("n", { count: 1 }), "1 picture");
});
