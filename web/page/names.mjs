// How nodes and widgets are called on the page, for what the server says of them, which names them in English.

const OURS = "MLT_";
// "Load Dataset (masked LoRA)" is called Load Dataset in a sentence; Chinese has brackets of its own.
const SUFFIX = /\s*[(（][^()（）]*[)）]$/u;
const ID = "[a-z][a-z0-9]*(?:_[a-z0-9]+)*";
const LIST = new RegExp(`^${ID}(?:(?:, |、)${ID})*(?=\\s?[:：])`);
const ITEMS = new RegExp(`^${ID}(?:, ${ID})*$`);
// Values of settings, such as "mask_type hard, floor 0.1".
const SETTINGS = new RegExp(`^${ID} [^\\s,:/\\\\]+(?:, ${ID} [^\\s,:/\\\\]+)*$`);
const UNDERSCORED = /(?<![\w/\\.<{-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w/\\.-]*[\w/\\-])/g;
const QUOTED = new RegExp(`(?<=«\\s)(${ID})(?=\\s»)`, "g");
// What Latin letters in Chinese had around them.
const BLANK = /(?<=[\p{Script=Han}）]) (?=\p{Script=Han})/gu;
// What stands behind a widget that is filled in, $ where all of it is filled in; a folder may have the name of a widget, too.
const ASKS = /^: (?:expected|this training|$)/;

/** The names of nodes and widgets in one language. */
export class Names {
  /**
   * @param {object} english nodeDefs of ComfyUI's /i18n in English: id of a node to display_name and inputs.
   * @param {object} localised the same of the page's language.
   * @param {string} both how a name stands with its id behind it, in that language.
   */
  constructor(english = {}, localised = {}, both = "{0} ({1})") {
    this.nodes = new Map();
    this.widgets = new Map();
    this.ids = new Set();
    for (const [id, node] of Object.entries(english).filter(([one]) => one.startsWith(OURS))) {
      const other = localised[id];
      if (!other) continue;
      const [name, theirs] = [node, other].map((one) => (one.display_name ?? "").replace(SUFFIX, ""));
      if (name && theirs && name !== theirs) this.nodes.set(name, theirs);
      for (const [widget, { name: called } = {}] of Object.entries(other.inputs ?? {})) {
        this.ids.add(widget);
        if (called && called !== widget) this.widgets.set(widget, both.replace("{0}", () => called).replace("{1}", () => widget));
      }
    }
    // The longest first: one name may be the end of another.
    const longest = [...this.nodes.keys()].sort((a, b) => b.length - a.length).map((one) => one.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    this.node = new RegExp(longest.length ? `(?<![A-Za-z0-9_])(?:${longest.join("|")})(?![A-Za-z0-9_])` : "(?!)", "g");
  }

  /** A translation with the names in it, as far as the English `template` has them; what is filled in later stays. */
  within(template, translation) {
    const first = LIST.exec(template)?.[0] ?? "";
    const start = this.areWidgets(first) ? LIST.exec(translation)?.[0] ?? "" : "";
    const rest = translation.slice(start.length)
      .replace(UNDERSCORED, (id) => this.widget(id))
      .replace(QUOTED, (id) => (template.includes(id) ? this.widget(id) : id));
    const named = (start ? this.each(start) + rest : rest)
      .replace(this.node, (name) => (template.includes(name) ? this.nodes.get(name) : name));
    return named === translation ? named : named.replace(BLANK, "");
  }

  /** What is filled in where it is a node, widgets of which something is expected, or settings; else as it is. */
  filled(value, { first, behind }) {
    // A name of one word may be that of a folder.
    if (value.includes(" ") && this.nodes.has(value)) return this.nodes.get(value);
    if (first && ITEMS.test(value) && (ASKS.test(behind) || value.includes("_")) && this.areWidgets(value)) return this.each(value);
    if (SETTINGS.test(value) && value.split(", ").every((one) => this.ids.has(one.split(" ")[0]))) {
      return value.replace(UNDERSCORED, (id) => this.widget(id));
    }
    return value;
  }

  areWidgets(list) {
    return list !== "" && list.split(/, |、/).every((id) => this.ids.has(id));
  }

  each(list) {
    return list.replace(new RegExp(ID, "g"), (id) => this.widget(id));
  }

  widget(id) {
    return this.widgets.get(id) ?? id;
  }
}
