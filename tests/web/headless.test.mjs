import assert from "node:assert/strict";
import test from "node:test";
import { graphFileName } from "../../web/runs/headless.mjs?v=0.1.0";

test("a graph is saved under the LoRA's name, without its folders and what no system takes", () => {
  assert.equal(graphFileName("my-lora"), "my-lora.json");
  assert.equal(graphFileName("people/Änna 2.1"), "Änna 2.1.json");
  assert.equal(graphFileName("a\\b: c?.safetensors"), "b c.json");
  for (const none of ["", "..", "people/", "???"]) assert.equal(graphFileName(none), "graph.json");
});
