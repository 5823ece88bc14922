// Short cuts of the mask editor: which action a key means. Shown to the person as they stand here.

/** [action, keys] by group; "mod" is Ctrl, or Command on a Mac. */
export const SHORTCUTS = [
  ["tools", [["brush", ["b"]], ["eraser", ["e"]], ["fill", ["g"]], ["box", ["r"]], ["lasso", ["l"]], ["grabcut", ["c"]], ["select", ["s"]]]],
  ["mask", [["invert", ["i"]], ["undo", ["mod+z"]], ["redo", ["mod+shift+z", "mod+y"]], ["save", ["mod+s"]], ["download", ["mod+shift+s"]]]],
  ["tip", [["smaller", ["["]], ["larger", ["]"]], ["softer", ["{"]], ["harder", ["}"]]]],
  ["view", [["overlay", ["1"]], ["mask", ["2"]], ["picture", ["3"]], ["fit", ["0"]], ["zoomIn", ["+", "="]], ["zoomOut", ["-"]]]],
  ["cursor", [["left", ["ArrowLeft"]], ["right", ["ArrowRight"]], ["up", ["ArrowUp"]], ["down", ["ArrowDown"]], ["stamp", ["Enter"]]]],
  [
    "frames",
    [
      ["play", ["k"]], ["frameBack", ["alt+ArrowLeft"]], ["frameOn", ["alt+ArrowRight"]], ["framesBack", ["alt+shift+ArrowLeft"]],
      ["framesOn", ["alt+shift+ArrowRight"]], ["copyNext", ["d"]], ["trackOn", ["t"]], ["onion", ["o"]],
    ],
  ],
  ["other", [["nextPicture", ["n"]], ["previousPicture", ["p"]], ["help", ["?"]], ["close", ["Escape"]]]],
];

const MEANT = new Map(SHORTCUTS.flatMap(([, actions]) => actions.flatMap(([action, keys]) => keys.map((key) => [key, action]))));
const KEYS = new Map(SHORTCUTS.flatMap(([, actions]) => actions));
const SHIFTABLE = /^(Arrow|Enter$)/;
const SIGN = /^[^\p{L}\p{N}\s]$/u;

export const IS_MAC = typeof navigator === "object" && /mac/i.test(navigator.platform ?? "");

/** The keys of an action, the foremost first; none for an action that has only a button. */
export function keysOf(action) {
  return KEYS.get(action) ?? [];
}

/** Keys as `aria-keyshortcuts` wants them: the names of WAI-ARIA, not those on the keyboard. */
export function ariaKeys(keys, mac = IS_MAC) {
  const names = { mod: mac ? "Meta" : "Control", shift: "Shift", alt: "Alt", "": "Plus" };
  const name = (part) => names[part] ?? (part.length === 1 ? part.toUpperCase() : part);
  return keys.map((key) => (key === "+" ? [""] : key.split("+")).map(name).join("+")).join(" ");
}

/** Whether a key was pressed for its sign, with Option or AltGr, which Windows reports as Ctrl and Alt. */
function isAltSign(event) {
  return event.altKey && !event.metaKey && SIGN.test(event.key);
}

/** Whether it is a combination, which means the same within a field. */
export function isCombination(event) {
  return (event.ctrlKey || event.metaKey) && !isAltSign(event);
}

/** The action of a keydown event, null if it means none. */
export function actionOf(event) {
  if (event.altKey && !event.ctrlKey && !isAltSign(event)) {
    return (!event.metaKey && MEANT.get(`alt+${event.shiftKey ? "shift+" : ""}${event.key}`)) || null;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (isCombination(event)) return MEANT.get(`mod+${event.shiftKey ? "shift+" : ""}${key}`) ?? null;
  // Signs such as ? need the shift key on some keyboards and not on others.
  if (event.shiftKey && /^[a-z]$/.test(key)) return null;
  return SHIFTABLE.test(key) || event.key.length === 1 || key === "Escape" ? MEANT.get(key) ?? null : null;
}

/** Where the arrow keys lead: [x, y] in steps. */
export const ARROWS = { left: [-1, 0], right: [1, 0], up: [0, -1], down: [0, 1] };

/** The next smaller or larger size of the tip, in px, at least 1. */
export function nextSize(size, way) {
  return Math.max(1, size + way * Math.max(1, Math.round(size / 8)));
}
