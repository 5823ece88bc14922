import assert from "node:assert/strict"
import { test } from "node:test"
import { followUses } from "../../web/uses.mjs?v=0.1.0"

const INPUTS = {
  kind: ["COMBO", {}],
  size: ["INT", { advanced: true, first_when: [{ kind: { is: ["large"] } }] }],
  folders: ["STRING", { advanced: true, first_when: [{ folders: { not: [""] } }] }],
}

/** A node as a saved graph gives it its values, and the names of what it shows without its advanced inputs. */
function opened(values) {
  const widgets = Object.keys(INPUTS).map((name) => ({ name, value: "", options: {}, advanced: INPUTS[name][1].advanced }))
  const node = { widgets, inputs: [] }
  followUses(node, INPUTS, () => {})
  const set = (name, value) => {
    const widget = widgets.find((one) => one.name === name)
    widget.value = value
    widget.callback?.(value)
  }
  for (const [name, value] of Object.entries(values)) widgets.find((one) => one.name === name).value = value
  node.onConfigure({})
  return { set, shown: () => widgets.filter((one) => !one.advanced).map((one) => one.name) }
}

test("an advanced widget comes forward while another one asks for it", () => {
  const node = opened({})
  assert.deepEqual(node.shown(), ["kind"])
  node.set("kind", "large")
  assert.deepEqual(node.shown(), ["kind", "size"])
  node.set("kind", "small")
  assert.deepEqual(node.shown(), ["kind"])
})

test("one that its own value brings forward is there when a graph is opened, and does not go while it is emptied", () => {
  const node = opened({ folders: "before" })
  assert.deepEqual(node.shown(), ["kind", "folders"])
  node.set("folders", "")
  assert.deepEqual(node.shown(), ["kind", "folders"])
  assert.deepEqual(opened({ folders: "" }).shown(), ["kind"])
})
