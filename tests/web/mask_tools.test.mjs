import assert from "node:assert/strict";
import { test } from "node:test";
import { MaskDocument } from "../../web/mask_editor/document.mjs?v=0.1.0";
import { History, TILE } from "../../web/mask_editor/history.mjs?v=0.1.0";
import { boxes, feather, grow } from "../../web/mask_editor/morphology.mjs?v=0.1.0";
import { boxRegion, colourRegion, polygonRegion } from "../../web/mask_editor/regions.mjs?v=0.1.0";
import { density, Stroke, tipRadius } from "../../web/mask_editor/stroke.mjs?v=0.1.0";

const drawn = (width, height, tip, ...places) => {
  const history = new History(new Uint8Array(width * height), width, height);
  history.begin();
  const stroke = new Stroke(history, { value: 255, hardness: 1, opacity: 1, ...tip });
  for (const [x, y, radius] of places) stroke.to(x, y, radius);
  return { history, stroke, levels: history.levels };
};
const count = (levels) => levels.reduce((sum, level) => sum + (level > 0), 0);
let seed = 1;
const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;

test("a hard tip covers its disc and nothing else", () => {
  const { levels } = drawn(60, 50, {}, [30.5, 20.5, 10]);
  for (let y = 0; y < 50; y++) {
    for (let x = 0; x < 60; x++) {
      const far = Math.hypot(x - 30, y - 20);
      if (far <= 9.5) assert.equal(levels[y * 60 + x], 255);
      if (far >= 10.5) assert.equal(levels[y * 60 + x], 0);
    }
  }
});

test("density falls from the middle to the rim, the earlier the softer the tip", () => {
  for (const hardness of [0, 0.5, 1]) {
    const values = Array.from({ length: 30 }, (_, i) => density(i / 2, 10, hardness));
    assert.deepEqual([...values].sort((a, b) => b - a), values);
    assert.deepEqual([values[0], density(10.5, 10, hardness)], [1, 0]);
  }
  assert.equal(density(5, 10, 0) < density(5, 10, 0.5), true);
});

test("a stroke never exceeds its opacity, however often it crosses itself", () => {
  const { levels } = drawn(40, 40, { opacity: 0.4, hardness: 0.3 }, [5, 5, 8], [35, 35, 8], [5, 5, 8], [35, 5, 8], [20, 20, 8]);
  assert.equal(Math.max(...levels), 102);
});

test("two strokes of half opacity add up, and an eraser takes away in the same way", () => {
  const mask = new MaskDocument(new Uint8Array(400), 20, 20);
  for (let i = 0; i < 2; i++) {
    mask.draw(mask.stroke({ value: 255, hardness: 1, opacity: 0.5 }), 10, 10, 5);
    mask.commit();
  }
  assert.equal(mask.levels[10 * 20 + 10], 192);
  mask.draw(mask.stroke({ value: 0, hardness: 1, opacity: 0.5 }), 10, 10, 5);
  assert.equal(mask.levels[10 * 20 + 10], 96);
});

test("a stroke has no gaps and is the same however many events tell of it", () => {
  const few = drawn(300, 300, {}, [10, 20, 3], [290, 270, 3]).levels;
  const many = drawn(300, 300, {}, ...Array.from({ length: 57 }, (_, i) => [10 + 5 * i, 20 + (250 / 56) * i, 3])).levels;
  const off = few.reduce((most, level, i) => Math.max(most, Math.abs(level - many[i])), 0);
  assert.equal(off <= 2, true);
  for (let x = 15; x < 285; x++) assert.equal(few[Math.round(20 + ((x - 10) * 250) / 280) * 300 + x], 255);
});

test("pressure changes the size of a pen and of nothing else", () => {
  assert.equal(tipRadius(40, { pointerType: "pen", pressure: 0.25 }, true), 5);
  assert.equal(tipRadius(40, { pointerType: "pen", pressure: 0.25 }, false), 20);
  assert.equal(tipRadius(40, { pointerType: "mouse", pressure: 0.5 }, true), 20);
  assert.equal(tipRadius(1, { pointerType: "pen", pressure: 0.01 }, true), 0.5);
  const { levels } = drawn(100, 40, {}, [10, 20, 2], [90, 20, 16]);
  const column = (x) => count(levels.filter((_, i) => i % 100 === x));
  assert.equal(column(20) < column(50) && column(50) < column(80), true);
});

test("a stroke that leaves the picture stays within it", () => {
  const { levels } = drawn(20, 20, {}, [-50, 10, 4], [70, 10, 4]);
  assert.equal(count(levels.slice(0, 100)), 0);
  assert.equal(count(levels.slice(200, 220)), 20);
});

test("a stroke keeps copies of the tiles that it touches, no others", () => {
  const { history } = drawn(4 * TILE, 4 * TILE, {}, [TILE / 2, TILE / 2, 5], [TILE / 2 + 40, TILE / 2, 5]);
  assert.deepEqual([...history.open.keys()], [0]);
});

test("a box is exact, and null outside", () => {
  assert.deepEqual(boxRegion({ left: -3, top: 1, right: 2, bottom: 3 }, 10, 10), { left: 0, top: 1, width: 2, height: 2, data: new Uint8Array(4).fill(255) });
  assert.equal(boxRegion({ left: 12, top: 1, right: 20, bottom: 3 }, 10, 10), null);
});

test("a lasso fills what it encloses, edges in part", () => {
  const square = polygonRegion([[2, 2], [6, 2], [6, 5], [2, 5]], 10, 10);
  assert.deepEqual([square.left, square.top, square.width, square.height, count(square.data)], [2, 2, 4, 3, 12]);
  const half = polygonRegion([[0.5, 0], [2, 0], [2, 1], [0.5, 1]], 10, 10);
  assert.deepEqual([...half.data], [128, 255]);
  const triangle = polygonRegion([[0, 0], [8, 0], [0, 8]], 10, 10);
  assert.equal(Math.abs(triangle.data.reduce((a, b) => a + b, 0) / 255 - 32) < 0.5, true);
});

test("a lasso that crosses or repeats itself has no holes where it turned one way", () => {
  const twice = [[1, 1], [5, 1], [5, 5], [1, 5]];
  assert.deepEqual(polygonRegion([...twice, ...twice], 9, 9), polygonRegion(twice, 9, 9));
  assert.equal(polygonRegion([[1, 1], [5, 5]], 9, 9), null);
  assert.equal(polygonRegion([[20, 20], [25, 20], [22, 25]], 9, 9), null);
});

const rgba = (grey) => Uint8ClampedArray.from(grey.flatMap((level) => [level, level, level, 255]));
const PATCHES = rgba([9, 9, 0, 9, 5, 9, 0, 9, 0, 0, 0, 9]);

test("fill by colour takes what hangs together, or all of the colour", () => {
  const one = colourRegion(PATCHES, 4, 3, 0, 0, { tolerance: 0, contiguous: true });
  assert.deepEqual([...one.data].map(Boolean), [1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0].map(Boolean));
  const all = colourRegion(PATCHES, 4, 3, 0, 0, { tolerance: 0, contiguous: false });
  assert.equal(count(all.data), 6);
  const near = colourRegion(PATCHES, 4, 3, 0, 0, { tolerance: 4, contiguous: true });
  assert.equal(count(near.data), 4);
});

test("fill by colour equals a slow search on random pictures", () => {
  for (let trial = 0; trial < 20; trial++) {
    const [w, h] = [23, 17];
    const picture = rgba(Array.from({ length: w * h }, () => (random() < 0.6 ? 0 : 200)));
    const found = colourRegion(picture, w, h, 11, 8, { tolerance: 10, contiguous: true }).data;
    const slow = new Uint8Array(w * h);
    const waiting = [8 * w + 11];
    while (waiting.length) {
      const i = waiting.pop();
      if (slow[i] || picture[4 * i] !== picture[4 * (8 * w + 11)]) continue;
      slow[i] = 255;
      if (i % w) waiting.push(i - 1);
      if (i % w < w - 1) waiting.push(i + 1);
      if (i >= w) waiting.push(i - w);
      if (i < w * h - w) waiting.push(i + w);
    }
    assert.deepEqual(found, slow);
  }
});

function slowGrow(levels, width, height, radius) {
  const r = Math.abs(radius);
  return levels.map((own, i) => {
    let best = own;
    for (let dy = -Math.floor(r); dy <= r; dy++) {
      for (let dx = -Math.floor(r); dx <= r; dx++) {
        if (dx * dx + dy * dy > r * r) continue;
        const x = Math.min(width - 1, Math.max(0, (i % width) + dx));
        const y = Math.min(height - 1, Math.max(0, Math.floor(i / width) + dy));
        const value = levels[y * width + x];
        best = radius > 0 ? Math.max(best, value) : Math.min(best, value);
      }
    }
    return best;
  });
}

test("growing and shrinking are by a disc, for hard and soft masks", () => {
  const [width, height] = [300, 70];
  const hard = Uint8Array.from({ length: width * height }, () => (random() < 0.01 ? 255 : 0));
  const soft = hard.map((level) => (level ? 1 + Math.floor(random() * 254) : 0));
  for (const mask of [hard, soft]) {
    for (const radius of [1, 2.5, 7, -1, -3]) {
      const source = radius < 0 ? mask.map((level) => 255 - level) : mask;
      const before = Uint8Array.from(source);
      assert.deepEqual(grow(source, width, height, radius), slowGrow(source, width, height, radius));
      assert.deepEqual(source, before);
    }
  }
});

test("feathering keeps even masks, blurs an edge like a Gaussian, and knows no tiles", () => {
  const even = new Uint8Array(40).fill(77);
  assert.deepEqual(feather(even, 8, 5, 3), even);
  const [width, height] = [2 * TILE + 40, 9];
  for (const edge of [30, TILE - 3, TILE + 2]) {
    const mask = Uint8Array.from({ length: width * height }, (_, i) => (i % width < edge ? 255 : 0));
    const soft = feather(mask, width, height, 6).slice(0, width);
    assert.equal(Math.abs(soft[edge] + soft[edge - 1] - 255) <= 1, true);
    for (let x = 1; x < width; x++) assert.equal(soft[x] <= soft[x - 1], true);
    // One sigma from the edge a Gaussian has 15.9 %.
    assert.equal(Math.abs((soft[edge + 5] + soft[edge + 6]) / 2 / 255 - 0.159) < 0.02, true);
  }
  const variance = (radii) => radii.reduce((sum, r) => sum + ((2 * r + 1) ** 2 - 1) / 12, 0);
  for (const sigma of [2, 5.5, 20]) assert.equal(Math.abs(Math.sqrt(variance(boxes(sigma))) - sigma) < 0.3, true);
});
