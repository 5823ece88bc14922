import assert from "node:assert/strict";
import { test } from "node:test";
import { keepLook, loadLook } from "../../web/dataset/look.mjs?v=0.1.0";
import { DEFAULTS, keepSettings, loadSettings } from "../../web/mask_editor/settings.mjs?v=0.1.0";

const VIEWS = ["overlay", "mask"];
const LOOK = { view: "mask", colour: "#00ff00", opacity: 20 };
const DEFAULT_LOOK = { view: "overlay", colour: "automatic", opacity: 60, infill: 0 };

/** The page's localStorage during a test; `get` may throw, as that of a browser that keeps nothing does. */
function use(context, get) {
  const before = Object.getOwnPropertyDescriptor(globalThis, "localStorage");
  Object.defineProperty(globalThis, "localStorage", { get, configurable: true });
  context.after(() => (before ? Object.defineProperty(globalThis, "localStorage", before) : delete globalThis.localStorage));
}

function shelf() {
  const kept = new Map();
  return { kept, getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, String(value)) };
}

const refuse = (name) => () => {
  throw new DOMException("not today", name);
};

test("looks and settings are kept, and what is no longer readable is the default", (context) => {
  const storage = shelf();
  use(context, () => storage);
  assert.deepEqual([loadLook(VIEWS), loadSettings()], [DEFAULT_LOOK, DEFAULTS]);
  keepLook({ ...LOOK, infill: 3 });
  keepSettings({ ...DEFAULTS, share: 0.5 });
  assert.deepEqual([loadLook(VIEWS), loadSettings().share], [{ ...LOOK, infill: 0 }, 0.5]);
  for (const key of storage.kept.keys()) storage.kept.set(key, "{");
  assert.deepEqual([loadLook(VIEWS), loadSettings()], [DEFAULT_LOOK, DEFAULTS]);
});

test("a browser whose storage is full goes on, with what was kept before", (context) => {
  const storage = shelf();
  use(context, () => storage);
  keepLook(LOOK);
  storage.setItem = refuse("QuotaExceededError");
  keepLook({ ...LOOK, opacity: 90 });
  keepSettings({ ...DEFAULTS, share: 0.5 });
  assert.deepEqual([loadLook(VIEWS).opacity, loadSettings().share], [20, DEFAULTS.share]);
});

test("a browser that does not let us read its storage shows the defaults", (context) => {
  for (const get of [refuse("SecurityError"), () => ({ getItem: refuse("SecurityError"), setItem: refuse("SecurityError") }), () => null]) {
    use(context, get);
    keepLook(LOOK);
    keepSettings({ ...DEFAULTS, share: 0.5 });
    assert.deepEqual([loadLook(VIEWS), loadSettings()], [DEFAULT_LOOK, DEFAULTS]);
  }
});
