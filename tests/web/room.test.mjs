import assert from "node:assert/strict";
import { test } from "node:test";
import { giveWay, keepClear } from "../../web/room.mjs?v=0.1.0";

const box = (x, y, w, h) => ({ pos: [x, y], size: [w, h], flags: {}, setSize(size) { this.size = size; } });

function overlaps(nodes) {
  const top = (one) => one.pos[1] - 30;
  return nodes.some((a, i) => nodes.slice(i + 1).some((b) =>
    a.pos[0] < b.pos[0] + b.size[0] && b.pos[0] < a.pos[0] + a.size[0] &&
    top(a) < b.pos[1] + b.size[1] && top(b) < a.pos[1] + a.size[1]));
}

/** A node that is 300 px higher with its advanced inputs, as LiteGraph toggles them. */
function growing(...given) {
  const node = box(...given);
  node.toggleAdvanced = function () {
    this.showAdvanced = !this.showAdvanced;
    if (this.showAdvanced) this.setSize([this.size[0], this.size[1] + 300]);
  };
  return node;
}

test("what lies below gives way, also to what gives way, and nothing else moves", () => {
  const node = growing(0, 0, 200, 100);
  const [below, lower, wide, beside, above] = [box(50, 160, 200, 100), box(0, 320, 100, 80), box(220, 300, 300, 50), box(420, 0, 100, 600), box(0, -200, 200, 100)];
  const nodes = [node, below, lower, wide, beside, above];
  node.graph = { nodes };
  keepClear(node);
  const before = nodes.map(({ pos, size }) => [[...pos], [...size]]);
  assert.equal(overlaps([node, below, lower, wide, above]), false);
  node.toggleAdvanced();
  assert.equal(overlaps([node, below, lower, above]), false);
  assert.deepEqual([beside.pos, above.pos], [[420, 0], [0, -200]]);
  assert.ok(below.pos[1] >= 400 && lower.pos[1] >= 400);
  node.toggleAdvanced();
  assert.deepEqual(nodes.map(({ pos, size }) => [[...pos], [...size]]), before);
});

test("what a person has moved or resized meanwhile stays, and a pinned node never moves", () => {
  const node = growing(0, 0, 200, 100), moved = box(0, 160, 200, 50), pinned = box(0, 260, 200, 50);
  pinned.flags.pinned = true;
  node.graph = { nodes: [node, moved, pinned] };
  keepClear(node);
  node.toggleAdvanced();
  assert.deepEqual(pinned.pos, [0, 260]);
  moved.pos = [900, 900];
  node.setSize([333, 500]);
  node.toggleAdvanced();
  assert.deepEqual([moved.pos, node.size], [[900, 900], [333, 500]]);
});

test("nodes that lie in a knot come to an end", () => {
  const nodes = Array.from({ length: 30 }, (_, i) => box(i * 3, i * 2, 100, 100));
  giveWay(nodes[0], nodes);
  assert.equal(overlaps(nodes), false);
});
