// A node that shows its advanced inputs grows: what would lie under it gives way, and comes back when they are hidden.
import { chain } from "./page/nodes.mjs?v=0.1.0";

const TITLE = 30, GAP = 20, MOST = 20_000;
// So long may Nodes 2.0 take until a node has the height of what it shows.
const GROWN_MS = 2000;

/** Keeps the nodes below clear of this one whenever its advanced inputs are shown or hidden. */
export function keepClear(node) {
  const toggle = node.toggleAdvanced;
  if (typeof toggle !== "function") return;
  const room = new Room(node);
  node.toggleAdvanced = function (...given) {
    const size = [...this.size];
    const result = toggle.apply(this, given);
    if (isNodes2()) return result;
    if (this.showAdvanced) room.make({ size, grown: [...this.size] });
    else room.giveBack();
    return result;
  };
  followButton(node, room);
}

/** The room that was made for a node, to be given back. */
class Room {
  #made = null;

  constructor(node) {
    this.node = node;
  }

  /** Moves what lies under the node; `sizes` of the node itself are those before and after it grew. */
  make(sizes = {}) {
    const nodes = this.node.graph?.nodes ?? [], moved = this.#made?.moved ?? [];
    moved.push(...giveWay(this.node, nodes, isNodes2() ? asDrawn(nodes) : asSaved));
    this.#made = { ...sizes, moved };
  }

  /** What a person has resized or moved meanwhile stays as it is. */
  giveBack() {
    if (!this.#made) return;
    const { size, grown, moved } = this.#made;
    if (size && same(this.node.size, grown)) this.node.setSize(size);
    for (const [other, from, to] of moved.toReversed()) if (same(other.pos, to)) other.pos = from;
    this.#made = null;
  }
}

/** In Nodes 2.0 a button on the node sets `showAdvanced`, and the page gives the node its height afterwards. */
function followButton(node, room) {
  let asked = 0;
  onSet(node, "showAdvanced", async (shown) => {
    const now = ++asked;
    if (!isNodes2()) return;
    if (!shown) return room.giveBack();
    await null;
    const element = now === asked && elementOf(node);
    if (!element) return;
    const growing = new ResizeObserver(() => { if (now === asked && element.isConnected) room.make(); });
    growing.observe(element);
    setTimeout(() => growing.disconnect(), GROWN_MS);
  });
  // A graph that is opened has everything where it belongs.
  chain(node, "onConfigure", () => { asked += 1; });
}

/** Calls `then` with the new value whenever a property is set to another; both frontends watch it with accessors. */
function onSet(object, name, then) {
  let owner = object;
  while (owner && !Object.hasOwn(owner, name)) owner = Object.getPrototypeOf(owner);
  const { get, set, value, configurable = true } = Object.getOwnPropertyDescriptor(owner ?? {}, name) ?? {};
  if (!configurable && owner === object) return;
  let held = value;
  Object.defineProperty(object, name, {
    configurable: true,
    enumerable: Object.prototype.propertyIsEnumerable.call(object, name),
    get() { return get ? get.call(this) : held; },
    set(given) {
      const before = this[name];
      if (set) set.call(this, given);
      else held = given;
      if (Boolean(given) !== Boolean(before)) then(given);
    },
  });
}

function isNodes2() {
  return Boolean(globalThis.LiteGraph?.vueNodesMode);
}

function elementOf(node) {
  return document.querySelector(`[data-node-id="${node.id}"]`);
}

/** Left, top, width and height of a node without its title, as the graph has them. */
function asSaved(node) {
  return [...node.pos, ...node.size];
}

/** The same as Nodes 2.0 draws them, which makes many a node higher than its graph says. */
function asDrawn(nodes) {
  const sizes = new Map(nodes.map((node) => {
    const { offsetWidth, offsetHeight } = elementOf(node) ?? {};
    return [node, offsetHeight ? [offsetWidth, offsetHeight - TITLE] : node.size];
  }));
  return (node) => [...node.pos, ...sizes.get(node)];
}

/**
 * Moves nodes down until none lies under `node` or under one that was moved; `boxOf` tells where one lies.
 * @returns {[object, number[], number[]][]} each move: the node, from where and to where.
 */
export function giveWay(node, nodes, boxOf = asSaved) {
  const moves = [], waiting = [node];
  const below = (lower, upper) => {
    const from = [...lower.pos], [, top, , height] = boxOf(upper);
    lower.pos = [from[0], top + height + GAP + TITLE];
    moves.push([lower, from, [...lower.pos]]);
    waiting.push(lower);
  };
  while (waiting.length && moves.length < MOST) {
    const one = waiting.shift();
    for (const other of nodes) {
      if (other === one || !overlap(boxOf(one), boxOf(other))) continue;
      const isAbove = other === node || other.flags?.pinned || other.pos[1] < one.pos[1];
      if (!isAbove) below(other, one);
      else if (one !== node) below(one, other);
    }
  }
  return moves;
}

function overlap([ax, ay, aw, ah], [bx, by, bw, bh]) {
  return ax < bx + bw && bx < ax + aw && ay - TITLE < by + bh && by - TITLE < ay + ah;
}

function same(a, b) {
  return a[0] === b[0] && a[1] === b[1];
}
