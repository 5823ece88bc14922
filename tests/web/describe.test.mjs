import assert from "node:assert/strict";
import { test } from "node:test";
import { begun, duration, isLive, memory, number, progress, runOf, safeName, size } from "../../web/runs/describe.mjs?v=0.1.0";
import { text, useTexts } from "../../web/page/strings.mjs?v=0.1.0";
import { ENGLISH } from "./english.mjs?v=0.1.0";

test("numbers have three digits and say when there is none", () => {
  assert.deepEqual([0.012345, 0.0001, 12.34, 0, 1234567].map(number), ["0.0123", "1.00e-4", "12.3", "0", "1.23e+6"]);
  assert.deepEqual([null, undefined, NaN, Infinity].map(number), ["–", "–", "–", "–"]);
});

test("durations", () => {
  assert.deepEqual([0, 7.4, 750, 11100, 59.6].map(duration), ["0:00", "0:07", "12:30", "3:05:00", "1:00"]);
});

test("a running run tells its speed and time left, a resting one does not", () => {
  const run = { state: "running", step: 10, total: 40, steps_per_second: 0.5 };
  assert.equal(progress(run), "step 10 of 40 · 0.5 steps/s · 1:00 left");
  assert.equal(progress({ ...run, state: "paused" }), "step 10 of 40 · 0.5 steps/s");
  assert.equal(progress({ ...run, state: "finished" }), "step 10 of 40");
  assert.equal(progress({ state: "open", step: 0, total: null }), "step 0");
});

test("names are those of the run folders", () => {
  assert.deepEqual(["my lora", "a/b", "Übung", "..x.", "", "***"].map(safeName), ["my_lora", "a_b", "Übung", "x", "run", "run"]);
  assert.equal(safeName("x".repeat(200)).length, 80);
});

test("a node shows what it trains, else the newest run of its name", () => {
  const old = { id: "1", name: "cat", state: "finished", node: null };
  const newer = { id: "2", name: "cat", state: "open", node: null };
  const live = { id: "3", name: "dog", state: "running", node: "4" };
  assert.equal(runOf([newer, old], { node: 4, name: "cat" }), newer);
  assert.equal(runOf([newer, live], { node: 4, name: "cat" }), live);
  assert.equal(runOf([live, old], { node: 5, name: "cat" }), old);
  assert.equal(runOf([live], { node: 5, name: "cat" }), null);
  // Another process trains it, and went on with an older folder.
  const elsewhere = { id: "5", name: "cat", state: "paused", node: null };
  assert.equal(runOf([newer, elsewhere], { node: 4, name: "cat" }), elsewhere);
  assert.deepEqual([live, old, null].map((run) => isLive(run)), [true, false, false]);
});

test("texts fill in their values", () => {
  assert.equal(text("runs.saved", { step: 3 }), "last checkpoint: step 3");
});

test("memory is told in GiB, of a run that tells it", () => {
  assert.equal(memory({ memory: { used: 1.5 * 2 ** 30, total: 24 * 2 ** 30 } }), "memory 1.5 of 24 GiB");
  assert.deepEqual([memory({ memory: null }), memory(null)], ["", ""]);
});

test("bytes as a person reads them", () => {
  assert.deepEqual([640, 5_600_000, 1_234_000_000].map(size), ["0.64 kB", "5.6 MB", "1.23 GB"]);
});

test("the start of a run, where it is known", () => {
  assert.match(begun({ started: Date.UTC(2026, 5, 15, 12) / 1000 }), /2026/);
  assert.deepEqual([begun({}), begun(null)], ["", ""]);
  useTexts({ fr: { masked_lora: { a: "b" } } }, "fr");
  assert.match(begun({ started: Date.UTC(2026, 5, 15, 12) / 1000 }), /15 juin 2026/);
  useTexts({ en: ENGLISH }, "en");
});
