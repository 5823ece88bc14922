// Short cuts of the mask editor: which action a key means. Shown to the person as they stand here.

/** [action, keys] by group; "mod" is Ctrl, or Command on a Mac. */
export const SHORTCUTS = [
  ["tools", [["brush", ["b"]], ["eraser", ["e"]], ["fill", ["g"]], ["box", ["r"]], ["lasso", ["l"]], ["grabcut", ["c"]], ["select", ["s"]]]],
  ["mask", [["invert", ["i"]], ["undo", ["mod+z"]], ["redo", ["mod+shift+z", "mod+y"]], ["save", ["mod+s"]]]],
  ["tip", [["smaller", ["["]], ["larger", ["]"]], ["softer", ["{"]], ["harder", ["}"]]]],
  ["view", [["overlay", ["1"]], ["mask", ["2"]], ["picture", ["3"]], ["fit", ["0"]], ["zoomIn", ["+", "="]], ["zoomOut", ["-"]]]],
  ["cursor", [["left", ["ArrowLeft"]], ["right", ["ArrowRight"]], ["up", ["ArrowUp"]], ["down", ["ArrowDown"]], ["stamp", ["Enter"]]]],
  ["other", [["help", ["?"]], ["close", ["Escape"]]]],
];

const MEANT = new Map(SHORTCUTS.flatMap(([, actions]) => actions.flatMap(([action, keys]) => keys.map((key) => [key, action]))));
const SHIFTABLE = /^(Arrow|Enter$)/;

/** The action of a keydown event, null if it means none. */
export function actionOf(event) {
  if (event.altKey && !event.ctrlKey) return null;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) return MEANT.get(`mod+${event.shiftKey ? "shift+" : ""}${key}`) ?? null;
  // Signs such as ? need the shift key on some keyboards and not on others.
  if (event.shiftKey && /^[a-z]$/.test(key)) return null;
  return SHIFTABLE.test(key) || event.key.length === 1 || key === "Escape" ? MEANT.get(key) ?? null : null;
}

/** Where the arrow keys lead: [x, y] in steps. */
export const ARROWS = { left: [-1, 0], right: [1, 0], up: [0, -1], down: [0, 1] };

/** The next smaller or larger size of the tip, 1 to 2000 px. */
export function nextSize(size, way) {
  const step = Math.max(1, Math.round(size / 8));
  return Math.min(2000, Math.max(1, size + way * step));
}
