// A node inside of a subgraph: what the server calls it, and a widget that stands on the node around it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { serverId, widgetValue } from "../../web/page/nodes.js";

const OUTSIDE = -10;

function graphs() {
  const root = { nodes: [] };
  root.rootGraph = root;
  const inner = { rootGraph: root, inputs: [{ name: "model" }, { name: "called" }], getNodeById: () => null };
  const train = {
    id: 4,
    graph: inner,
    inputs: [{ name: "name" }],
    widgets: [{ name: "name", value: "inside" }],
    getInputLink: () => ({ origin_id: OUTSIDE, origin_slot: 1 }),
  };
  inner.nodes = [train];
  const whole = { id: 7, graph: root, subgraph: inner, widgets: [{ name: "called", value: "outside" }] };
  const alone = { id: 3, graph: root, inputs: [], widgets: [{ name: "name", value: "alone" }] };
  root.nodes.push(alone, whole);
  return { train, alone, whole };
}

test("the server's id of a node inside of a subgraph has that of the node around it in front", () => {
  const { train, alone } = graphs();
  assert.equal(serverId(train), "7:4");
  assert.equal(serverId(alone), "3");
});

test("a widget that the node around shows is read there, every other one on the node", () => {
  const { train, alone, whole } = graphs();
  assert.equal(widgetValue(train, "name"), "outside");
  assert.equal(widgetValue(alone, "name"), "alone");
  whole.widgets = [];
  assert.equal(widgetValue(train, "name"), "inside");
});

test("a node that is on no graph yet has its own id and value", () => {
  const node = { id: -1, graph: null, widgets: [{ name: "name", value: "new" }] };
  assert.equal(serverId(node), "-1");
  assert.equal(widgetValue(node, "name"), "new");
});
