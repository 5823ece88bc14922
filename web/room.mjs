// On the classic canvas a node that shows its advanced inputs grows: what would lie under it gives way, and comes back.
const TITLE = 30, GAP = 20, MOST = 20_000;

/** Keeps the nodes below clear of this one whenever its advanced inputs are shown or hidden. */
export function keepClear(node) {
  const toggle = node.toggleAdvanced;
  if (typeof toggle !== "function") return;
  let before = null;
  node.toggleAdvanced = function (...given) {
    const size = [...this.size];
    const result = toggle.apply(this, given);
    if (this.showAdvanced) {
      before = { size, grown: [...this.size], moved: giveWay(this, this.graph?.nodes ?? []) };
    } else if (before) {
      // What a person has resized or moved meanwhile stays as it is.
      if (same(this.size, before.grown)) this.setSize(before.size);
      for (const [other, from, to] of before.moved.toReversed()) if (same(other.pos, to)) other.pos = from;
      before = null;
    }
    return result;
  };
}

/**
 * Moves nodes down until none lies under `node` or under one that was moved.
 * @returns {[object, number[], number[]][]} each move: the node, from where and to where.
 */
export function giveWay(node, nodes) {
  const moves = [], waiting = [node];
  const below = (lower, upper) => {
    const from = [...lower.pos];
    lower.pos = [from[0], upper.pos[1] + upper.size[1] + GAP + TITLE];
    moves.push([lower, from, [...lower.pos]]);
    waiting.push(lower);
  };
  while (waiting.length && moves.length < MOST) {
    const one = waiting.shift();
    for (const other of nodes) {
      if (other === one || !overlap(one, other)) continue;
      const isAbove = other === node || other.flags?.pinned || other.pos[1] < one.pos[1];
      if (!isAbove) below(other, one);
      else if (one !== node) below(one, other);
    }
  }
  return moves;
}

function overlap(a, b) {
  const [ax, ay, bx, by] = [a.pos[0], a.pos[1] - TITLE, b.pos[0], b.pos[1] - TITLE];
  return ax < bx + b.size[0] && bx < ax + a.size[0] && ay < by + b.size[1] + TITLE && by < ay + a.size[1] + TITLE;
}

function same(a, b) {
  return a[0] === b[0] && a[1] === b[1];
}
