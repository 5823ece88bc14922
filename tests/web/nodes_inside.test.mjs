// A node inside of a subgraph: what the server calls it, and a widget that stands on the node around it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { serverId, setWidget, widgetValue } from "../../web/page/nodes.mjs?v=0.1.0";

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

test("a widget is set where it stands, others are told, and it is one step to undo", () => {
  const { train, alone, whole } = graphs();
  const told = [];
  const canvas = { emitBeforeChange: () => told.push("before"), emitAfterChange: () => told.push("after") };
  for (const node of [train, alone]) node.graph.canvasAction = (act) => act(canvas);
  whole.widgets[0].callback = (value, _, node) => told.push(value, node.id);
  setWidget(train, "name", "cats");
  assert.deepEqual(told, ["before", "cats", 7, "after"]);
  assert.deepEqual([whole.widgets[0].value, train.widgets[0].value], ["cats", "inside"]);
  setWidget(alone, "name", "dogs");
  assert.equal(alone.widgets[0].value, "dogs");
  setWidget(alone, "no such widget", 1);
  setWidget({ graph: null, widgets: [{ name: "name" }] }, "name", "new");
});

test("a node that is on no graph yet has its own id and value", () => {
  const node = { id: -1, graph: null, widgets: [{ name: "name", value: "new" }] };
  assert.equal(serverId(node), "-1");
  assert.equal(widgetValue(node, "name"), "new");
});
