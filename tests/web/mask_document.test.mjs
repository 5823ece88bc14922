import assert from "node:assert/strict";
import { test } from "node:test";
import zlib from "node:zlib";
import { MaskDocument } from "../../web/mask_editor/document.mjs?v=0.1.0";
import { maskFileName } from "../../web/mask_editor/download.mjs?v=0.1.0";
import { History } from "../../web/mask_editor/history.mjs?v=0.1.0";
import { actionOf, ariaKeys, isCombination, keysOf, nextSize, SHORTCUTS } from "../../web/mask_editor/keys.mjs?v=0.1.0";
import { feather } from "../../web/mask_editor/morphology.mjs?v=0.1.0";
import { decodeGrey, encodeGrey } from "../../web/mask_editor/png.mjs?v=0.1.0";
import { between, cut, join } from "../../web/mask_editor/rect.mjs?v=0.1.0";
import { pack, unpack } from "../../web/mask_editor/rle.mjs?v=0.1.0";
import { checked, DEFAULTS, sizeOf } from "../../web/mask_editor/settings.mjs?v=0.1.0";
import { ENGLISH } from "./english.mjs?v=0.1.0";

let seed = 7;
const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
const noise = (length) => Uint8Array.from({ length }, () => Math.floor(random() * 256));

test("packed bytes come back, in few bytes where they are even", () => {
  const cases = [[], [1], [1, 1, 1], [0, 0, 0, 0], Array(300).fill(9), [1, 2, ...Array(70000).fill(0), 3], [...noise(1000)], [...Array(131).keys(), 5, 5, 5, 5, 5, 6]];
  for (const one of cases) {
    const bytes = Uint8Array.from(one);
    assert.deepEqual(unpack(pack(bytes), bytes.length), bytes);
  }
  assert.equal(pack(new Uint8Array(65536)).length, 4);
  assert.equal(pack(noise(65536)).length < 65536 * 1.02, true);
});

test("undo and redo lead through every state, without limit", () => {
  const mask = new MaskDocument(noise(600 * 300), 600, 300);
  const states = [Uint8Array.from(mask.levels)];
  for (let i = 0; i < 120; i++) {
    const kind = i % 4;
    if (kind === 0) mask.invert();
    else if (kind === 1) mask.apply({ left: i, top: i, width: 50, height: 30, data: noise(1500) }, { combine: "remove", opacity: 0.7 });
    else if (kind === 2) mask.replace(feather(mask.levels, 600, 300, 2));
    else {
      const stroke = mask.stroke({ value: 255, hardness: 0.5, opacity: 0.8 });
      mask.draw(stroke, random() * 600, random() * 300, 20);
      mask.draw(stroke, random() * 600, random() * 300, 9);
      mask.commit();
    }
    states.push(Uint8Array.from(mask.levels));
  }
  for (let i = 119; i >= 0; i--) {
    assert.notEqual(mask.undo(), null);
    assert.deepEqual(mask.levels, states[i]);
  }
  assert.equal(mask.undo(), null);
  for (let i = 1; i <= 120; i++) {
    mask.redo();
    assert.deepEqual(mask.levels, states[i]);
  }
  assert.equal(mask.redo(), null);
});

test("a thousand strokes and inversions of a large mask take little memory", () => {
  const [width, height] = [3000, 2000];
  const mask = new MaskDocument(new Uint8Array(width * height), width, height);
  for (let i = 0; i < 30; i++) mask.invert();
  for (let i = 0; i < 200; i++) {
    mask.draw(mask.stroke({ value: i % 2 ? 0 : 255, hardness: 1, opacity: 1 }), random() * width, random() * height, 20);
    mask.commit();
  }
  assert.equal(mask.history.bytes < 2_000_000, true);
});

test("a step after an undo drops what could have been done again", () => {
  const mask = new MaskDocument(new Uint8Array(100), 10, 10);
  mask.fill(10);
  mask.fill(20);
  mask.undo();
  mask.fill(30);
  assert.equal(mask.redo(), null);
  mask.undo();
  assert.equal(mask.levels[0], 10);
});

test("what changes nothing is no step", () => {
  const mask = new MaskDocument(new Uint8Array(100), 10, 10);
  mask.fill(0);
  mask.apply({ left: 0, top: 0, width: 5, height: 5, data: new Uint8Array(25).fill(255) }, { combine: "remove" });
  assert.deepEqual([mask.history.canUndo, mask.unsaved], [false, false]);
});

test("a stroke that is given up leaves the mask as it was", () => {
  const levels = noise(90_000);
  const mask = new MaskDocument(Uint8Array.from(levels), 300, 300);
  const stroke = mask.stroke({ value: 255, hardness: 1, opacity: 1 });
  mask.draw(stroke, 100, 100, 50);
  assert.notDeepEqual(mask.levels, levels);
  mask.cancel();
  assert.deepEqual(mask.levels, levels);
  assert.equal(mask.history.canUndo, false);
});

test("the mask is unsaved unless it is in the state that was saved, by undo too", () => {
  const mask = new MaskDocument(new Uint8Array(100), 10, 10);
  assert.equal(mask.unsaved, false);
  mask.invert();
  assert.equal(mask.unsaved, true);
  mask.markSaved();
  mask.undo();
  assert.equal(mask.unsaved, true);
  mask.redo();
  assert.equal(mask.unsaved, false);
  mask.undo();
  mask.fill(255);
  assert.equal(mask.unsaved, true);
});

test("regions are added, removed, or alone are learned", () => {
  const region = { left: 1, top: 0, width: 2, height: 1, data: Uint8Array.from([255, 128]) };
  const after = (start, how) => {
    const mask = new MaskDocument(Uint8Array.from(start), 4, 1);
    mask.apply(region, how);
    return [...mask.levels];
  };
  assert.deepEqual(after([0, 0, 0, 200], { combine: "add" }), [0, 255, 128, 200]);
  assert.deepEqual(after([9, 255, 255, 200], { combine: "remove" }), [9, 0, 127, 200]);
  assert.deepEqual(after([9, 255, 255, 200], { combine: "replace" }), [0, 255, 128, 0]);
  assert.deepEqual(after([0, 0, 0, 0], { combine: "add", opacity: 0.5 }), [0, 128, 64, 0]);
});

const full = (width, height) => new MaskDocument(new Uint8Array(width * height).fill(255), width, height);
const square = { left: 1, top: 1, width: 2, height: 1, data: Uint8Array.from([255, 128]) };
const dot = (mask, value, x, y, more = {}) => {
  mask.draw(mask.stroke({ value, hardness: 1, opacity: 1, ...more }), x, y, 1);
  return mask.commit();
};

test("where everything is learned, what is learned first is learned alone, as one step", () => {
  const [width, height] = [600, 300];
  const byRegion = full(width, height);
  assert.equal(byRegion.apply(square), "alone");
  assert.deepEqual([...byRegion.levels.subarray(width, width + 4)], [0, 255, 128, 0]);
  assert.equal(byRegion.levels.reduce((sum, level) => sum + level), 383);
  const byStroke = full(width, height);
  assert.equal(dot(byStroke, 255, 590.5, 290.5), "alone");
  assert.equal(byStroke.levels[290 * width + 590], 255);
  assert.equal(byStroke.levels.reduce((sum, level) => sum + (level > 0), 0) <= 9, true);
  for (const mask of [byRegion, byStroke]) {
    mask.undo();
    assert.deepEqual([mask.levels.every((level) => level === 255), mask.history.canUndo, mask.unsaved], [true, false, false]);
    assert.equal(mask.apply(square), "alone");
    assert.equal(mask.apply({ ...square, top: 2 }), "changed");
    assert.deepEqual([mask.levels[width + 1], mask.levels[2 * width + 1]], [255, 255]);
  }
  const faint = full(9, 9);
  assert.deepEqual([dot(faint, 255, 4.5, 4.5, { opacity: 0.5 }), faint.levels[4 * 9 + 4], faint.levels[0]], ["alone", 128, 0]);
});

test("to take away means the same wherever everything is learned, and what is learned after it is added", () => {
  const erased = full(9, 9);
  assert.equal(dot(erased, 0, 4.5, 4.5), "changed");
  assert.deepEqual([erased.levels[0], erased.levels[4 * 9 + 4]], [255, 0]);
  assert.equal(dot(erased, 255, 4.5, 4.5), "changed");
  assert.equal(erased.levels[0], 255);
  const removed = full(9, 9);
  assert.deepEqual([removed.apply(square, { combine: "remove" }), removed.levels[0], removed.levels[10]], ["changed", 255, 0]);
  const half = new MaskDocument(Uint8Array.from({ length: 81 }, (_, i) => (i < 40 ? 255 : 0)), 9, 9);
  assert.deepEqual([half.apply({ ...square, top: 7 }), half.levels[0]], ["changed", 255]);
});

test("what changes nothing says why", () => {
  const none = (value) => new MaskDocument(new Uint8Array(81).fill(value), 9, 9);
  assert.deepEqual([dot(none(0), 0, 4.5, 4.5), dot(none(0), 255, 40, 40), dot(full(9, 9), 255, 40, 40)], ["ignored", "missed", "missed"]);
  assert.equal(dot(none(254), 0, 4.5, 4.5, { opacity: 0.001 }), "faint");
  const painted = none(0);
  assert.deepEqual([painted.apply(square), painted.apply(square), painted.apply(square, { combine: "replace" })], ["changed", "changed", "changed"]);
  assert.equal(painted.apply(square, { combine: "replace" }), "same");
  assert.equal(painted.apply({ ...square, data: new Uint8Array(2) }, { combine: "replace" }), "nothing");
  const learned = none(0);
  learned.fill(255);
  assert.deepEqual([learned.apply(square), dot(learned, 255, 4.5, 4.5), learned.fill(255)], ["learned", "learned", null]);
  assert.deepEqual([none(0).apply(square, { combine: "remove" }), none(7).replace(new Uint8Array(81).fill(7))], ["ignored", null]);
});

test("every change is told with a rectangle that holds it", () => {
  const told = [];
  const mask = new MaskDocument(new Uint8Array(600 * 600), 600, 600, (rect) => told.push(rect));
  mask.apply({ left: 300, top: 10, width: 5, height: 5, data: new Uint8Array(25).fill(255) });
  assert.deepEqual(told, [{ left: 256, top: 0, right: 512, bottom: 256 }]);
  const history = new History(new Uint8Array(600 * 600), 600, 600);
  assert.deepEqual(history.tile(8), { left: 512, top: 512, right: 600, bottom: 600 });
});

test("rectangles", () => {
  const [a, b] = [{ left: 0, top: 0, right: 4, bottom: 4 }, { left: 2, top: 3, right: 9, bottom: 9 }];
  assert.deepEqual(join(a, b), { left: 0, top: 0, right: 9, bottom: 9 });
  assert.deepEqual([join(null, a), join(null, null)], [a, null]);
  assert.deepEqual(cut(a, b), { left: 2, top: 3, right: 4, bottom: 4 });
  assert.equal(cut(a, { left: 4, top: 0, right: 9, bottom: 9 }), null);
  assert.deepEqual(between([5.4, 7.6], [2.5, 7.4]), { left: 3, top: 7, right: 5, bottom: 8 });
});

test("masks go to PNG and back bit for bit", async () => {
  for (const [width, height] of [[1, 1], [7, 5], [256, 3]]) {
    const levels = noise(width * height);
    const bytes = await encodeGrey(levels, width, height);
    assert.deepEqual(await decodeGrey(bytes), { levels, width, height });
  }
});

/** A grey PNG whose rows are filtered in every way, as other programs write them. */
function filtered(levels, width, height) {
  const at = (x, y) => (x < 0 || y < 0 ? 0 : levels[y * width + x]);
  const paeth = (a, b, c) => [a, b, c].reduce((best, one) => (Math.abs(a + b - c - one) < Math.abs(a + b - c - best) ? one : best));
  const rows = [];
  for (let y = 0; y < height; y++) {
    rows.push(y % 5);
    for (let x = 0; x < width; x++) {
      const [a, b, c] = [at(x - 1, y), at(x, y - 1), at(x - 1, y - 1)];
      rows.push((at(x, y) - [0, a, b, (a + b) >> 1, paeth(a, b, c)][y % 5]) & 255);
    }
  }
  const chunk = (kind, data) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(data.length);
    return Buffer.concat([length, Buffer.from(kind), data, Buffer.alloc(4)]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head[8] = 8;
  const pixels = zlib.deflateSync(Buffer.from(rows));
  const parts = [Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]), chunk("IHDR", head), chunk("tEXt", Buffer.from("a\0b"))];
  return Buffer.concat([...parts, chunk("IDAT", pixels.subarray(0, 9)), chunk("IDAT", pixels.subarray(9)), chunk("IEND", Buffer.alloc(0))]);
}

test("every filter of PNG is read, and what is no grey PNG is told", async () => {
  const levels = noise(20 * 11);
  assert.deepEqual((await decodeGrey(new Uint8Array(filtered(levels, 20, 11)))).levels, levels);
  await assert.rejects(decodeGrey(new Uint8Array(50)), /not a PNG/);
});

const press = (key, more = {}) => actionOf({ key, ...more });

test("keys mean what the list of short cuts says", () => {
  assert.deepEqual(["b", "E", "?", "[", "0", "ArrowUp", "Enter", "Escape"].map((key) => press(key)), ["brush", "eraser", "help", "smaller", "fit", "up", "stamp", "close"]);
  assert.deepEqual([press("z", { ctrlKey: true }), press("Z", { ctrlKey: true, shiftKey: true }), press("s", { metaKey: true }), press("y", { ctrlKey: true })], ["undo", "redo", "save", "redo"]);
  assert.deepEqual([press("s"), press("?", { shiftKey: true }), press("ArrowUp", { shiftKey: true })], ["select", "help", "up"]);
  assert.deepEqual([press("F5"), press("b", { ctrlKey: true }), press("b", { altKey: true }), press("Tab"), press("q")], [null, null, null, null, null]);
});

test("signs that need Option or AltGr on a keyboard mean the same with it", () => {
  const withAlt = ["[", "]", "{", "}", "?", "+"];
  const meant = ["smaller", "larger", "softer", "harder", "help", "zoomIn"];
  for (const more of [{}, { altKey: true }, { altKey: true, shiftKey: true }, { altKey: true, ctrlKey: true }]) {
    assert.deepEqual(withAlt.map((key) => press(key, more)), meant);
  }
  assert.equal(isCombination({ key: "[", altKey: true, ctrlKey: true }), false);
  assert.deepEqual([isCombination({ key: "z", ctrlKey: true }), isCombination({ key: "[", metaKey: true })], [true, true]);
  for (const key of ["b", "B", "1", "0", "Enter", "Escape", "ArrowUp"]) assert.equal(press(key, { altKey: true }), null, key);
  for (const key of ["[", "+", "?"]) assert.equal(press(key, { ctrlKey: true }), null, key);
  assert.equal(press("[", { altKey: true, metaKey: true }), null);
});

test("short cuts are told to a screen reader by the names of WAI-ARIA", () => {
  const named = (action, mac) => ariaKeys(keysOf(action), mac);
  assert.deepEqual(["undo", "redo", "save", "brush"].map((action) => named(action, false)), ["Control+Z", "Control+Shift+Z Control+Y", "Control+S", "B"]);
  assert.deepEqual([named("redo", true), named("zoomIn", true), named("smaller", true), named("close", true)], ["Meta+Shift+Z Meta+Y", "Plus =", "[", "Escape"]);
  const valid = /^((Control|Meta|Alt)\+)?(Shift\+)?([A-Z0-9]|Plus|[^\p{L}\s+]|Escape|Enter|Arrow(Left|Right|Up|Down))$/u;
  for (const [, actions] of SHORTCUTS) for (const [, keys] of actions) for (const key of ariaKeys(keys).split(" ")) assert.match(key, valid);
  assert.deepEqual(keysOf("grow"), []);
});

test("every action has a name, and no key two meanings", () => {
  const keys = SHORTCUTS.flatMap(([, actions]) => actions.flatMap(([, keys]) => keys));
  assert.equal(new Set(keys).size, keys.length);
  for (const [group, actions] of SHORTCUTS) {
    assert.equal(typeof ENGLISH.masked_lora.editor.group[group], "string");
    for (const [action] of actions) assert.equal(typeof ENGLISH.masked_lora.editor.action[action], "string", action);
  }
});

test("a downloaded mask is named after its picture", () => {
  const names = { "cat 1.png": "cat 1_mask.png", "cats/of 2.0/a.b.jpeg": "a.b_mask.png", "cats\\7.webp": "7_mask.png", bare: "bare_mask.png", ".hidden": ".hidden_mask.png" };
  for (const [picture, name] of Object.entries(names)) assert.equal(maskFileName(picture), name);
});

test("the size of the tip goes in steps that grow with it", () => {
  assert.deepEqual([nextSize(1, -1), nextSize(1, 1), nextSize(80, 1), nextSize(80, -1)], [1, 2, 90, 70]);
});

test("the size of the tip is the same share of every picture's shorter side", () => {
  assert.deepEqual([128, 451, 4000].map((side) => sizeOf(DEFAULTS.share, side)), [10, 36, 320]);
  assert.deepEqual([sizeOf(0, 128), sizeOf(1, 128)], [1, 128]);
  for (const side of [128, 300, 999]) for (let size = 1; size <= side; size++) assert.equal(sizeOf(size / side, side), size);
});

test("remembered settings that cannot be are the defaults again", () => {
  assert.deepEqual(checked(null), DEFAULTS);
  const odd = { share: 40, size: 40, hardness: "80", opacity: NaN, combine: "eat", colour: "red", tint: 7, contiguous: false, extra: 1 };
  assert.deepEqual(checked(odd), { ...DEFAULTS, tint: 7, contiguous: false });
  assert.deepEqual([checked({ colour: "#123456" }).colour, checked({ colour: "automatic" }).colour], ["#123456", "automatic"]);
});

test("every setting, group, hint and choice has a text", () => {
  const { editor } = ENGLISH.masked_lora;
  for (const name of Object.keys(DEFAULTS).filter((one) => one !== "view")) {
    assert.equal(typeof editor.setting[name], "string", name);
    assert.equal(typeof editor.settingHint[name], "string", name);
  }
  for (const name of ["brush", "eraser", "fill", "box", "lasso", "grabcut", "select", "previous", "grow", "learnAll", "nextPicture"]) {
    assert.equal(typeof editor.hint[name], "string", name);
  }
});

test("a region in place of the last step is told as a step, even where it leaves the mask as it was before that", () => {
  const mask = new MaskDocument(Uint8Array.of(0, 0, 255, 0), 4, 1);
  const told = [];
  mask.onStep = () => told.push([...mask.levels]);
  const region = (...data) => ({ left: 0, top: 0, width: 4, height: 1, data });
  mask.apply(region(255, 0, 0, 0));
  assert.equal(mask.applyAnew(region(0, 255, 0, 0)), "changed");
  assert.equal(mask.applyAnew(region(0, 0, 255, 0)), "learned");
  assert.deepEqual(told, [[255, 0, 255, 0], [0, 255, 255, 0], [0, 0, 255, 0]]);
  assert.equal(mask.history.canUndo, false);
});
