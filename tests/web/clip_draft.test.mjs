import assert from "node:assert/strict";
import { test } from "node:test";
import { ClipDraft, doubtful, driftColour, rangeOf } from "../../web/mask_editor/clip/draft.mjs?v=0.1.0";
import { MaskDocument } from "../../web/mask_editor/document.mjs?v=0.1.0";
import { actionOf } from "../../web/mask_editor/keys.mjs?v=0.1.0";
import { Conflict } from "../../web/mask_editor/server.mjs?v=0.1.0";

/** A draft of five frames, 2×1, as the server keeps one. */
class Kept {
  constructor({ moves = true } = {}) {
    this.moves = moves;
    this.revision = 10;
    this.frames = Array.from({ length: 5 }, () => ({ levels: Uint8Array.of(0, 0), stamp: 10 }));
    this.calls = [];
    this.refusal = null;
    this.tracking = null;
  }

  state() {
    return {
      revision: this.revision, stamps: this.frames.map((one) => one.stamp), key_frames: [], drift: this.frames.map(() => null),
      unsaved: this.revision > 10, undo: 0, redo: 0, tracking: this.tracking, tracked: null,
    };
  }

  async facts() {
    return { times: [0, 1, 2, 3, 4], rate: 1, moves: this.moves, draft: Boolean(this.left), stamp: "1" };
  }

  async draft() {
    return this.state();
  }

  async picture(number) {
    return { number, close() {} };
  }

  async levels(number) {
    this.calls.push(`levels ${number}`);
    return this.frames[number].levels.slice();
  }

  async setFrame(number, { levels }, seen) {
    this.calls.push(`set ${number} ${levels.join(",")} ${seen}`);
    if (this.refusal) throw this.refusal;
    if (seen < this.frames[number].stamp) throw new Conflict("changed in another window");
    await null;
    Object.assign(this.frames[number], { levels, stamp: (this.revision += 1) });
    return this.state();
  }

  async change(what, values, revision) {
    this.calls.push(`${what} ${revision}`);
    if (this.refusal) throw this.refusal;
    this.revision += 1;
    return this.state();
  }
}

const opened = async (kept = new Kept(), more = {}) => {
  const said = [];
  const draft = new ClipDraft(kept, { onState: () => {}, onFault: (error) => said.push(error.message), wait: async () => {}, ...more });
  await draft.open();
  return { kept, draft, said };
};
const mask = (...levels) => ({ levels: Uint8Array.from(levels), width: levels.length, height: 1 });

test("what is drawn is sent step by step, each as it was when it was drawn", async () => {
  const { kept, draft } = await opened();
  await draft.frame(2);
  kept.calls.length = 0;
  const shown = mask(1, 0);
  draft.push(2, shown, 10);
  shown.levels[1] = 1;
  draft.push(2, shown, 10);
  assert.ok(draft.unsaved && !draft.isFresh);
  await draft.pushing;
  assert.deepEqual(kept.calls, ["set 2 1,0 10", "set 2 1,1 11"]);
  // What was sent need not come back.
  const found = await draft.frame(2);
  assert.deepEqual([...found.levels], [1, 1]);
  assert.equal(kept.calls.length, 2);
});

test("what another window made of a frame meanwhile is not overwritten, though its news has come, and what was drawn before is no such thing", async () => {
  const { kept, draft, said } = await opened();
  await draft.push(3, mask(1, 0), 10);
  Object.assign(kept.frames[2], { levels: Uint8Array.of(7, 7), stamp: (kept.revision += 1) });
  // This answer tells of the change, and a stroke on what was shown before it is under way.
  await draft.push(4, mask(1, 0), 10);
  assert.equal(draft.state.stamps[2], 12);
  assert.equal(await draft.push(2, mask(1, 1), 10), false);
  assert.deepEqual([said, [...kept.frames[2].levels], draft.unsent], [["changed in another window"], [7, 7], null]);
  assert.equal(await draft.push(2, mask(8, 7), 12), true);
  // A stroke that began before the last one was sent.
  assert.equal(await draft.push(2, mask(8, 8), 12), true);
  assert.deepEqual([...kept.frames[2].levels], [8, 8]);
});

test("a step of the server's waits for what is being sent, and goes by the newest state", async () => {
  const { kept, draft } = await opened();
  draft.push(1, mask(9, 9), 10);
  assert.equal(await draft.change("undo"), true);
  assert.deepEqual(kept.calls, ["set 1 9,9 10", "undo 11"]);
});

test("behind a step that is refused the others are not sent, and the server's state counts", async () => {
  const { kept, draft, said } = await opened();
  kept.refusal = new Conflict("changed elsewhere");
  const both = [draft.push(0, mask(1, 1), 10), draft.push(0, mask(2, 2), 10)];
  await Promise.all(both);
  assert.deepEqual(said, ["changed elsewhere"]);
  assert.deepEqual(kept.calls, ["set 0 1,1 10"]);
  kept.refusal = null;
  await draft.push(0, mask(3, 3), 10);
  assert.deepEqual([...kept.frames[0].levels], [3, 3]);
  kept.refusal = new Conflict("the file has changed");
  await assert.rejects(draft.change("save"), Conflict);
});

test("what could not be sent is not saved without, is sent again, or taken back", async () => {
  const { kept, draft, said } = await opened();
  kept.refusal = new Error("no room");
  draft.push(1, mask(5, 0), 10);
  draft.push(1, mask(5, 5), 10);
  assert.equal(await draft.change("save"), false);
  assert.deepEqual([draft.unsaved, said], [true, ["no room"]]);
  assert.deepEqual(kept.calls, ["set 1 5,0 10"]);
  // Tried once more before anything else, and still refused.
  assert.equal(await draft.change("save"), false);
  assert.deepEqual(kept.calls, ["set 1 5,0 10", "set 1 5,5 10"]);
  kept.refusal = null;
  assert.equal(await draft.change("save"), true);
  assert.deepEqual(kept.calls.slice(2), ["set 1 5,5 10", "save 11"]);
  assert.deepEqual([...kept.frames[1].levels], [5, 5]);
  kept.refusal = new Error("no room");
  await draft.push(2, mask(7, 7), 10);
  kept.refusal = null;
  assert.deepEqual([draft.giveUpUnsent(), draft.giveUpUnsent()], [true, false]);
  assert.equal(await draft.change("save"), true);
  assert.deepEqual([...kept.frames[2].levels], [0, 0]);
});

test("a draft that another window changed is looked at, not given up for what is on the disk", async () => {
  const { kept, draft, said } = await opened();
  kept.revision += 1;
  kept.refusal = new Conflict("changed in another window");
  assert.equal(await draft.change("save"), false);
  assert.deepEqual([said, draft.state.revision], [["changed in another window"], 11]);
});

test("what was left unsaved is shown again, and what is being tracked counts as unsaved", async () => {
  const kept = Object.assign(new Kept({ moves: false }), { left: true });
  const { draft } = await opened(kept);
  assert.deepEqual([draft.moves, draft.unsaved], [true, false]);
  draft.take({ ...kept.state(), revision: 12, unsaved: false, tracking: { from: 0, to: 4, done: 0, total: 4 } });
  assert.equal(draft.unsaved, true);
});

test("a frame is fetched anew only where it has changed", async () => {
  const { kept, draft } = await opened();
  await draft.frame(3);
  await draft.frame(3);
  assert.deepEqual(kept.calls, ["levels 3"]);
  Object.assign(kept.frames[3], { levels: Uint8Array.of(7, 7), stamp: (kept.revision += 1) });
  draft.take(kept.state());
  // Nor is the former one played meanwhile.
  assert.equal(draft.loader.ready(3), null);
  assert.deepEqual([...(await draft.frame(3)).levels], [7, 7]);
  assert.equal(kept.calls.length, 2);
  // An answer that was overtaken changes nothing.
  draft.take({ ...kept.state(), revision: 1 });
  assert.equal(draft.state.revision, kept.revision);
});

test("tracking is looked after until it ends", async () => {
  const kept = new Kept();
  let asked = 0;
  const { draft } = await opened(kept, {
    wait: async () => {
      kept.revision += 1;
      asked += 1;
      kept.tracking = asked < 4 ? { from: 0, to: 4, done: asked, total: 4 } : null;
    },
  });
  kept.tracking = { from: 0, to: 4, done: 0, total: 4 };
  await draft.change("track");
  assert.ok(draft.isTracking);
  while (draft.polling) await new Promise((done) => setTimeout(done));
  assert.deepEqual([asked, draft.isTracking], [4, false]);
});

test("a still mask becomes one that moves when it is wished for", async () => {
  const { draft, kept } = await opened(new Kept({ moves: false }));
  assert.deepEqual([draft.moves, draft.unsaved, (await draft.frame(1)).levels], [false, false, null]);
  await draft.letMove();
  assert.deepEqual([draft.moves, [...(await draft.frame(1)).levels]], [true, [0, 0]]);
  assert.deepEqual(kept.calls, ["levels 1"]);
});

test("drift is told by colours and by the frames to look at; a range is put in order", () => {
  const drift = [null, 0.02, 0.2, 0.26];
  assert.equal(new Set(drift.map(driftColour)).size, 4);
  assert.deepEqual(doubtful(drift), [3]);
  assert.deepEqual([rangeOf(7, "2", 10), rangeOf(-3, 99, 10), rangeOf("x", 4, 10)], [[2, 7], [0, 9], [0, 4]]);
});

test("a mask tells of each of its steps, and begins anew with another frame's", () => {
  let steps = 0;
  const document = new MaskDocument(Uint8Array.of(255, 255), 2, 1);
  document.onStep = () => (steps += 1);
  document.fill(0);
  document.fill(0);
  document.invert();
  document.draw(document.stroke({ value: 0, hardness: 1, opacity: 1 }), 0.5, 0.5, 3);
  document.commit();
  assert.equal(steps, 3);
  document.reset(Uint8Array.of(255, 255));
  assert.deepEqual([document.history.canUndo, document.untouched, steps], [false, false, 3]);
  document.reset(Uint8Array.of(255, 255), { isFresh: true });
  assert.ok(document.untouched);
});

test("frames have keys with Alt, which does not mean the cursor's", () => {
  const press = (key, held) => actionOf({ key, altKey: false, ctrlKey: false, metaKey: false, shiftKey: false, ...held });
  assert.deepEqual([press("ArrowRight", { altKey: true }), press("ArrowLeft", { altKey: true, shiftKey: true }), press("ArrowRight")], ["frameOn", "framesBack", "right"]);
  assert.deepEqual([press("k"), press("d"), press("t"), press("ArrowUp", { altKey: true })], ["play", "copyNext", "trackOn", null]);
});
