import assert from "node:assert/strict";
import { test } from "node:test";
import { cellAt, cellTransform } from "../../web/dataset/draw.mjs?v=0.1.0";
import { offerPairs } from "../../web/dataset/controls.mjs?v=0.1.0";
import { clipWords, withoutInfill } from "../../web/dataset/facts.mjs?v=0.1.0";
import { gridOf, heightOf, placeOf, scrollTo, visible } from "../../web/dataset/layout.mjs?v=0.1.0";
import { checkedLook } from "../../web/dataset/look.mjs?v=0.1.0";
import { buckets, choose, counts, histogram, neighbour, percent, rowsOf } from "../../web/dataset/rows.mjs?v=0.1.0";
import { feeder, transformOf } from "../../web/dataset/upstream.mjs?v=0.1.0";
import { Viewport } from "../../web/page/viewport.mjs?v=0.1.0";
import "./english.mjs?v=0.1.0";

const columns = {
  name: ["cat 10.png", "cat 2.png", "Dog.png", "empty.png"],
  size: [[8, 8], [8, 8], [4, 8], [8, 8]],
  stamp: ["1.0", "1.0", "1.0", "1.0"],
  has_mask: [true, true, false, true],
  coverage: [0.5, 1, 1, 0],
  bucket: [[64, 64], [64, 64], [32, 64], [64, 64]],
  caption: ["a cat", "a cat with a HAT", null, ""],
  warnings: [[], ["all_white"], [], ["all_black", "no_caption"]],
  stale: [[], ["mask"], [], []],
  clip: [null, null, null, { frames: 81, rate: 16, mask_moving: false }],
  references: [1, 2, 0, 0],
};
const rows = rowsOf(columns);
const indices = (found) => found.map((row) => row.index);

test("filters and search find what they say", () => {
  assert.deepEqual(indices(choose(rows)), [0, 1, 2, 3]);
  assert.deepEqual(indices(choose(rows, { filter: "warned" })), [1, 3]);
  assert.deepEqual(indices(choose(rows, { filter: "no_mask" })), [2]);
  assert.deepEqual(indices(choose(rows, { filter: "stale" })), [1]);
  assert.deepEqual(indices(choose(rows, { filter: "all_black" })), [3]);
  assert.deepEqual(indices(choose(rows, { search: " hat " })), [1]);
  assert.deepEqual(indices(choose(rows, { search: "dog", filter: "warned" })), []);
});

test("the next picture is the one beside it in the list, or what has come into its place", () => {
  const listed = choose(rows, { order: "name" });
  const led = (index, by, at) => neighbour(listed, index, by, at).index;
  assert.deepEqual([led(1, 1), led(3, 1), led(1, -1)], [0, 1, 3]);
  // A mask was saved, and its picture is none without a mask any more: the second of three has gone.
  const left = listed.filter((row) => row.index !== 0);
  assert.deepEqual([neighbour(left, 0, 1, 1).index, neighbour(left, 0, -1, 1).index, neighbour(left, 9, 1, 3).index], [2, 1, 1]);
  assert.deepEqual([neighbour([], 0, 1), neighbour([listed[0]], 1, 1).index], [null, 1]);
});

test("what a clip tells of itself is told, and nothing that it does not", () => {
  assert.deepEqual(rows.map((row) => Boolean(row.clip)), [false, false, false, true]);
  const told = [[81, 16], [1, 23.976023976], [0, 25], [12, 0], [0, 0]].map(([frames, rate]) => clipWords({ frames, rate }));
  assert.deepEqual(told, ["81 frames, 16/s", "1 frame, 23.98/s", "clip, 25/s", "12 frames", "clip"]);
});

test("pairs are offered where there are references", () => {
  const choices = [{ value: "mask", dataset: {} }, { value: "pair", dataset: {} }, { value: "", dataset: { view: "pair" } }];
  const hidden = (of) => (offerPairs(choices, of), choices.map((one) => Boolean(one.hidden)));
  assert.deepEqual(hidden(rows), [false, false, false]);
  assert.deepEqual(hidden(rows.slice(2)), [false, true, true]);
});

test("orders are stable and names count as people do", () => {
  assert.deepEqual(indices(choose(rows, { order: "name" })), [1, 0, 2, 3]);
  assert.deepEqual(indices(choose(rows, { order: "coverage" })), [3, 0, 1, 2]);
  assert.deepEqual(indices(choose(rows, { order: "coverage_down" })), [1, 2, 0, 3]);
  assert.deepEqual(indices(choose(rows, { order: "warnings" })), [3, 1, 0, 2]);
  assert.deepEqual(indices(rows), [0, 1, 2, 3]);
});

test("statistics leave out pictures without a mask", () => {
  assert.deepEqual(histogram(rows, 4), [1, 0, 1, 1]);
  assert.equal(counts(rows).all, 4);
  assert.equal(counts(rows).no_mask, 1);
  assert.deepEqual(buckets(rows), [["64×64", 3], ["32×64", 1]]);
  assert.deepEqual([0.1234, 0.5, 0, 1, 0.0004].map(percent), ["12.3 %", "50 %", "0 %", "100 %", "0.04 %"]);
});

test("every tile is in view exactly where it lies", () => {
  const grid = gridOf({ width: 400, wanted: 92, caption: 18 });
  assert.equal(grid.columns, 4);
  const count = 10_000;
  const height = heightOf(count, grid);
  for (const top of [0, 133, 5000, height - 300]) {
    const [first, last] = visible(count, grid, { top, height: 300, spare: 0 });
    for (let position = 0; position < count; position += 1) {
      const { y } = placeOf(position, grid);
      const seen = y + grid.rowHeight > top && y < top + 300;
      assert.equal(position >= first && position < last, seen, `${position} at ${top}`);
    }
  }
  assert.deepEqual(visible(3, grid, { top: 0, height: 300 }), [0, 3]);
  assert.deepEqual(visible(0, grid, { top: 0, height: 300 }), [0, 0]);
  assert.equal(heightOf(0, grid), 0);
});

test("scrolling goes no further than it must", () => {
  const grid = { columns: 2, side: 90, rowHeight: 100, gap: 8 };
  assert.equal(scrollTo(0, grid, { top: 250, height: 300 }), 0);
  assert.equal(scrollTo(6, grid, { top: 250, height: 300 }), 250);
  assert.equal(scrollTo(20, grid, { top: 250, height: 300 }), 800);
});

test("a narrow list still has one column", () => {
  assert.equal(gridOf({ width: 30, wanted: 92, caption: 18 }).columns, 1);
});

const detail = (corners, flip = false) => ({ corners, flip, grid: [2, 4], weights: [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7] });

test("a cell is found where it is drawn, also in flipped and turned crops", () => {
  const upright = detail([[10, 20], [50, 20], [50, 40], [10, 40]]);
  assert.deepEqual(cellAt(upright, 10, 20), { row: 0, column: 0, weight: 0 });
  assert.deepEqual(cellAt(upright, 49.9, 39.9), { row: 1, column: 3, weight: 0.7 });
  assert.equal(cellAt(upright, 9.9, 20), null);
  assert.equal(cellAt(upright, 50.1, 25), null);
  const flipped = detail(upright.corners, true);
  assert.deepEqual(cellAt(flipped, 10.1, 20.1), { row: 0, column: 3, weight: 0.3 });
  const turned = detail([[0, 40], [0, 0], [20, 0], [20, 40]]);
  for (let i = 0; i < 8; i += 1) {
    const [a, b, c, d, e, f] = cellTransform(turned.corners, turned.grid, false);
    const x = (i % 4) + 0.5, y = Math.floor(i / 4) + 0.5;
    assert.equal(cellAt(turned, a * x + c * y + e, b * x + d * y + f).weight, turned.weights[i]);
  }
});

test("what is under the pointer stays there while zooming", () => {
  const port = new Viewport().fit([100, 50], [400, 400]);
  assert.deepEqual([port.scale, port.x, port.y], [4, 0, 100]);
  const before = port.toPicture(123, 210);
  const after = port.zoom(1.7, 123, 210).toPicture(123, 210);
  assert.ok(Math.hypot(before[0] - after[0], before[1] - after[1]) < 1e-9);
  assert.equal(new Viewport().fit([4000, 100], [400, 400]).scale, 0.1);
});

test("a kept look is taken over as far as it is sound", () => {
  const views = ["overlay", "mask"];
  assert.equal(checkedLook({ view: "mask", colour: "#00ff00", opacity: 20 }, views).view, "mask");
  assert.deepEqual(checkedLook({ view: "x", colour: "red;", opacity: "9" }, views), { view: "overlay", colour: "automatic", opacity: 60, infill: 0 });
  assert.equal(checkedLook({ colour: "#00ff00" }, views).colour, "#00ff00");
  for (const kept of [null, "", {}, 3]) assert.equal(checkedLook(kept, views).opacity, 60);
});

function graphOf(nodes) {
  const links = new Map();
  const graph = { getLink: (id) => links.get(id), getNodeById: (id) => nodes.find((node) => node.id === id) };
  for (const node of nodes) {
    node.graph = graph;
    for (const input of node.inputs ?? []) if (input.from) links.set((input.link = node.id * 10), { origin_id: input.from });
  }
  return nodes;
}

const widgets = Object.entries({ invert: true, binarize: false, threshold: 0.5, fill_holes: false, min_area: 0, grow: 3, feather: 0, frame_union: 2, frame_feather: 0 })
  .map(([name, value]) => ({ name, value }));

test("the transforms are read through reroutes, and only from a node that feeds the data set", () => {
  const [inspect] = graphOf([
    { id: 1, type: "MLT_InspectDataset", inputs: [{ name: "vae" }, { name: "dataset", from: 2 }] },
    { id: 2, type: "Reroute", inputs: [{ name: "", from: 3 }] },
    { id: 3, type: "MLT_TransformMasks", widgets },
  ]);
  assert.equal(feeder(inspect, "dataset").id, 3);
  assert.equal(feeder(inspect, "vae"), null);
  assert.deepEqual(transformOf(inspect), { invert: true, binarize: false, threshold: 0.5, fill_holes: false, min_area: 0, grow: 3, feather: 0, frame_union: 2, frame_feather: 0 });
});

test("a bypassed transform does nothing, and one whose widget is fed is not guessed", () => {
  const node = { id: 3, type: "MLT_TransformMasks", widgets, mode: 4 };
  const [inspect] = graphOf([{ id: 1, inputs: [{ name: "dataset", from: 3 }] }, node]);
  assert.equal(transformOf(inspect).invert, false);
  node.mode = 0;
  node.inputs = [{ name: "grow", widget: {}, link: 7 }];
  assert.equal(transformOf(inspect), null);
  const [alone] = graphOf([{ id: 1, inputs: [{ name: "dataset" }] }]);
  assert.equal(transformOf(alone), null);
});

test("a node that tells its links itself is asked, and its slots are not read", () => {
  const slot = (name) => Object.defineProperty({ name }, "link", { get: () => assert.fail("deprecated") });
  const origin = { id: 2, type: "MLT_LoadDataset", inputs: [] };
  const graph = { getNodeById: (id) => (id === 2 ? origin : null) };
  const node = {
    graph,
    inputs: [slot("dataset"), slot("resolution")],
    getInputLink: (at) => (at === 0 ? { origin_id: 2 } : null),
    isInputConnected: (at) => at === 0,
  };
  assert.equal(feeder(node, "dataset"), origin);
  assert.equal(feeder(node, "resolution"), null);
  assert.equal(transformOf(node), null);
});

test("the view of backgrounds says why it shows the picture as it is", () => {
  const detail = (infills, has_mask = true) => ({ infills, has_mask });
  assert.equal(withoutInfill(detail([{ kind: "blur", from: null }]), true), "");
  assert.match(withoutInfill(detail([]), true), /infill_variants of Cache Dataset is 0/);
  assert.match(withoutInfill(detail([]), false), /Connect the cache/);
  assert.match(withoutInfill(detail([], false), true), /it has no mask/);
});
