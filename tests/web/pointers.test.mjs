import assert from "node:assert/strict";
import { test } from "node:test";
import { Pointers } from "../../web/mask_editor/pointers.mjs?v=0.1.0";

/** What a hand is told when pointers do this: [kind + id, "down" | "move" | "up" | "cancel" | "leave"] each. */
function told(...steps) {
  const element = new EventTarget();
  Object.assign(element, { getBoundingClientRect: () => ({ left: 0, top: 0 }), focus() {}, setPointerCapture() {} });
  const said = [];
  const note = (name) => () => void said.push(name);
  const hand = Object.fromEntries(["start", "move", "end", "cancel", "hover", "leave", "pan", "zoom"].map((name) => [name, note(name)]));
  new Pointers(element, { ...hand, wantsPan: () => false });
  let at = 0;
  for (const [who, what] of steps) {
    const event = new Event(`pointer${what}`, { cancelable: true });
    at += 30;
    const [, pointerType, id] = who.match(/^([a-z]+)(\d*)$/);
    Object.assign(event, { pointerId: Number(id) + 10 * pointerType.length, pointerType, clientX: at, clientY: at, button: what === "move" ? -1 : 0 });
    element.dispatchEvent(event);
  }
  return said.join(" ");
}

test("a palm beside a drawing pen neither ends its stroke nor moves the picture", () => {
  const drawn = told(["pen", "down"], ["pen", "move"], ["touch1", "down"], ["touch1", "move"], ["touch2", "down"], ["touch2", "move"], ["pen", "move"], ["touch1", "up"], ["touch1", "leave"], ["pen", "move"], ["pen", "up"]);
  assert.equal(drawn, "start move hover move hover move hover end");
});

test("a pen draws although a palm rests, before and after it", () => {
  const palmFirst = [["pen", "down"], ["pen", "up"], ["touch1", "down"], ["touch1", "move"]];
  const drawn = told(...palmFirst, ["pen", "down"], ["touch1", "move"], ["pen", "move"], ["pen", "up"], ["touch1", "move"], ["touch1", "up"], ["pen", "down"], ["pen", "up"]);
  assert.equal(drawn, "start end pan hover start move hover end start end");
});

test("what fingers have begun is given up for a pen", () => {
  assert.equal(told(["touch1", "down"], ["touch1", "move"], ["pen", "down"], ["touch1", "up"], ["pen", "up"]), "start move hover cancel start end");
  assert.equal(told(["touch1", "down"], ["touch2", "down"], ["pen", "down"], ["touch1", "cancel"], ["touch2", "move"], ["pen", "up"]), "start cancel start end");
});

test("a pen that is taken away gives fingers back what they do", () => {
  assert.equal(told(["pen", "down"], ["pen", "cancel"], ["touch1", "down"], ["touch1", "move"], ["touch1", "up"]), "start cancel pan hover");
});

test("without a pen one finger draws and two move and zoom", () => {
  assert.equal(told(["touch1", "down"], ["touch1", "move"], ["touch1", "up"]), "start move hover end");
  const two = [["touch1", "down"], ["touch2", "down"], ["touch2", "move"], ["touch1", "up"], ["touch2", "move"], ["touch2", "up"]];
  assert.equal(told(...two, ["mouse", "move"], ["mouse", "leave"]), "start cancel pan zoom hover hover hover leave");
});
