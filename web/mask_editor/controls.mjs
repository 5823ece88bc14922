// The editor's buttons and settings.
import { button, make } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { AUTOMATIC } from "../page/tint.mjs?v=0.1.0";
import { COMBINES } from "./document.mjs?v=0.1.0";
import { icon } from "./icons.mjs?v=0.1.0";
import { ariaKeys, IS_MAC, keysOf, SHORTCUTS } from "./keys.mjs?v=0.1.0";
import { MOST_SHARE } from "./settings.mjs?v=0.1.0";
import { REGION_TOOLS, TOOLS } from "./tools.mjs?v=0.1.0";
import { VIEWS } from "./view.mjs?v=0.1.0";

/** A key as it is written on it. */
export function keyName(key) {
  const parts = key.split("+").filter(Boolean);
  if (!parts.length) return "+";
  return parts.map((part) => ({ mod: IS_MAC ? "⌘" : "Ctrl", shift: "Shift", alt: IS_MAC ? "⌥" : "Alt", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" })[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join("+");
}

export class Controls {
  /** @param session settings, canSelect, set(part), do(action, …). */
  constructor(session) {
    this.session = session;
    this.tools = new Map();
    this.views = new Map();
    this.fields = [];
    this.toolbar = make("div", { className: "mlt-editor-tools", role: "toolbar", "aria-label": text("editor.tools"), ariaOrientation: "vertical" });
    for (const tool of TOOLS) this.toolbar.append(this.toggle(this.tools, tool, () => session.do(tool)));
    this.tools.get("select").hidden = !session.canSelect;
    this.turns = this.row("previousPicture", "nextPicture");
    this.turns.hidden = !session.canTurn;
    this.undo = this.action("undo");
    this.redo = this.action("redo");
    this.previous = this.action("previous");
    this.save = this.action("save");
    this.download = this.action("download");
    this.options = make("div", { className: "mlt-editor-options", role: "group", "aria-label": text("editor.options") }, ...this.groups());
    this.head = make("div", { className: "mlt-row" }, this.turns, this.undo, this.redo, this.previous, this.action("help"), this.save, this.download, this.action("close"));
    this.update();
  }

  action(name) {
    const keys = keysOf(name);
    const hint = text(`editor.hint.${name}`);
    const made = button(text(`editor.action.${name}`), keys.length ? `${hint} (${keyName(keys[0])})` : hint, () => this.session.do(name));
    const drawn = icon(name);
    if (drawn) made.prepend(drawn);
    if (keys.length) made.setAttribute("aria-keyshortcuts", ariaKeys(keys));
    return made;
  }

  toggle(group, name, onclick) {
    const made = this.action(name);
    made.onclick = onclick;
    group.set(name, made);
    return made;
  }

  groups() {
    const look = make("div", { className: "mlt-row" });
    for (const view of VIEWS) look.append(this.toggle(this.views, view, () => this.session.do(view)));
    const brush = [this.sizeRange(), this.range("hardness", 0, 100, "%"), this.range("opacity", 1, 100, "%"), this.check("pressure")];
    this.brush = this.group("brush", ...brush);
    this.region = this.group("region", this.select("combine", COMBINES));
    this.colour = this.group("fill", this.range("tolerance", 0, 255, ""), this.check("contiguous"));
    return [
      this.brush,
      this.region,
      this.colour,
      this.group("mask", make("div", { className: "mlt-row" }, this.action("invert")), this.range("radius", 1, 100, "px"), this.row("grow", "shrink"), this.range("softness", 1, 100, "px"), this.row("feather"), this.row("learnAll", "ignoreAll")),
      this.group("view", look, this.select("tints", ["ignored", "learned"]), this.colourField(), this.range("tint", 0, 100, "%"), this.row("zoomIn", "zoomOut", "fit")),
    ];
  }

  row(...names) {
    return make("div", { className: "mlt-row" }, ...names.map((name) => this.action(name)));
  }

  group(name, ...content) {
    return make("fieldset", { className: "mlt-editor-group" }, make("legend", {}, text(`editor.group.${name}`)), ...content);
  }

  field(name, input, shown) {
    this.fields.push(() => shown(this.session.settings[name]));
    return make("label", { className: "mlt-editor-field", title: text(`editor.settingHint.${name}`) }, make("span", {}, text(`editor.setting.${name}`)), input);
  }

  /** A slider and the number beside it, which can be typed as well. */
  range(name, min, max, unit) {
    const take = (value) => this.session.set({ [name]: Math.min(max, Math.max(min, Math.round(Number(value) || min))) });
    const slider = this.slider(name, { min, max, step: 1 }, take);
    const number = this.number(name, { min, max }, unit, take, () => this.session.settings[name]);
    return this.field(name, rangeOf(slider, number, unit), (value) => {
      slider.value = value;
      number.show();
    });
  }

  /** The brush's size: the slider stands for its share of the picture, finer for small ones, the number for pixels. */
  sizeRange() {
    const { session } = this;
    const slider = this.slider("share", { min: 0, max: Math.sqrt(MOST_SHARE), step: 0.001 }, (value) => session.set({ share: value * value }));
    const take = (value) => session.setSize(Math.max(1, Math.round(Number(value) || 1)));
    const number = this.number("share", { min: 1 }, "px", take, () => session.size);
    return this.field("share", rangeOf(slider, number, "px"), (share) => {
      slider.value = Math.sqrt(share);
      slider.setAttribute("aria-valuetext", `${session.size} px`);
      number.max = MOST_SHARE * session.side;
      number.show();
    });
  }

  slider(name, range, take) {
    const slider = make("input", { type: "range", ...range, "aria-label": text(`editor.setting.${name}`) });
    slider.oninput = () => take(Number(slider.value));
    return slider;
  }

  number(name, range, unit, take, now) {
    const number = make("input", { type: "number", className: "mlt-field", ...range, step: 1, "aria-label": `${text(`editor.setting.${name}`)} ${unit}` });
    number.onchange = () => {
      take(number.value);
      number.value = now();
    };
    // What is being typed there counts once it is done.
    number.show = () => {
      if (number !== document.activeElement) number.value = now();
    };
    return number;
  }

  check(name) {
    const box = make("input", { type: "checkbox" });
    box.onchange = () => this.session.set({ [name]: box.checked });
    return this.field(name, box, (value) => (box.checked = value));
  }

  select(name, values) {
    const list = make("select", { className: "mlt-field" }, ...values.map((value) => make("option", { value }, text(`editor.choice.${value}`))));
    list.onchange = () => this.session.set({ [name]: list.value });
    return this.field(name, list, (value) => (list.value = value));
  }

  colourField() {
    const { session } = this;
    const colour = make("input", { type: "color", "aria-label": text("editor.setting.colour") });
    colour.oninput = () => session.set({ colour: colour.value });
    const automatic = button(text("tint.automatic"), text("tint.automaticHint"), () => session.set({ colour: AUTOMATIC }));
    return this.field("colour", make("span", { className: "mlt-row" }, colour, automatic), (value) => {
      colour.value = session.colour;
      automatic.setAttribute("aria-pressed", String(value === AUTOMATIC));
    });
  }

  /** Shows how things are. */
  update() {
    const { session } = this;
    for (const [name, one] of this.tools) one.setAttribute("aria-pressed", String(name === session.tool));
    for (const [name, one] of this.views) one.setAttribute("aria-pressed", String(name === session.settings.view));
    for (const show of this.fields) show();
    this.brush.hidden = !["brush", "eraser"].includes(session.tool);
    this.region.hidden = !REGION_TOOLS.includes(session.tool);
    this.colour.hidden = session.tool !== "fill";
    this.undo.disabled = !session.canUndo;
    this.redo.disabled = !session.canRedo;
    this.save.disabled = !session.unsaved;
    session.clip?.panel.update();
    this.download.disabled = !session.mask;
  }
}

function rangeOf(slider, number, unit) {
  return make("span", { className: "mlt-editor-range" }, slider, number, make("span", { className: "mlt-note" }, unit));
}

/** The short cuts, as a list for a person. */
export function shortcutList() {
  const groups = SHORTCUTS.map(([group, actions]) =>
    make(
      "section",
      {},
      make("h3", {}, text(`editor.group.${group}`)),
      make("dl", {}, ...actions.flatMap(([action, keys]) => [make("dt", {}, ...keys.map((key) => make("kbd", {}, keyName(key)))), make("dd", {}, text(`editor.action.${action}`))])),
    ),
  );
  const more = text("editor.more").split("\n").map((line) => make("li", {}, line));
  return make("div", { className: "mlt-editor-help" }, ...groups, make("section", {}, make("h3", {}, text("editor.group.pointer")), make("ul", {}, ...more)));
}
