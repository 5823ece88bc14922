// The editor's controls for the frames of a clip: timeline, onion skin, ranges, tracking.
import { button, make } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";
import { frameWords, Timeline } from "../../clips/timeline.mjs?v=0.1.0";
import { ariaKeys, keysOf } from "../keys.mjs?v=0.1.0";
import { driftColour } from "./draft.mjs?v=0.1.0";

// What can be done to a range, by the action that does it to one frame.
const OPERATIONS = { ignoreAll: "clear", learnAll: "fill", invert: "invert", grow: "grow", shrink: "shrink", feather: "feather" };
// Those that need a number of pixels, and the setting that has it.
const AMOUNTS = { grow: "radius", shrink: "radius", feather: "softness" };
const KEY = "#7c5cff";

export class ClipPanel {
  /** @param frames ClipFrames; @param session the editor's. */
  constructor(frames, session) {
    Object.assign(this, { frames, session });
    this.timeline = new Timeline({ onSeek: (number) => frames.go(number), onPlay: () => session.do("play"), playKey: "K" });
    this.timeline.play.setAttribute("aria-keyshortcuts", "K");
    this.still = make("div", { className: "mlt-row mlt-question" }, make("span", {}, text("editor.wholeClip")), this.action("letMove"));
    this.element = make(
      "section",
      { className: "mlt-editor-clip", "aria-label": text("clip.timeline"), hidden: true },
      this.timeline.element,
      this.still,
      (this.tools = make("div", { className: "mlt-row mlt-editor-clip-tools" }, this.onion(), this.tracking(), this.range())),
    );
  }

  destroy() {
    this.timeline.destroy();
  }

  action(name) {
    const keys = keysOf(name);
    const made = button(text(`editor.action.${name}`), text(`editor.hint.${name}`), () => this.session.do(name));
    if (keys.length) made.setAttribute("aria-keyshortcuts", ariaKeys(keys));
    return made;
  }

  group(name, ...content) {
    return make("fieldset", { className: "mlt-editor-group mlt-editor-clip-group" }, make("legend", {}, text(`editor.group.${name}`)), make("div", { className: "mlt-row" }, ...content));
  }

  onion() {
    const { session } = this;
    this.onionBox = make("input", { type: "checkbox", onchange: () => session.set({ onion: this.onionBox.checked }) });
    this.onionShare = make("input", { type: "range", min: 5, max: 100, className: "mlt-range", "aria-label": text("editor.setting.onionShare"), oninput: () => session.set({ onionShare: Number(this.onionShare.value) }) });
    const label = make("label", { className: "mlt-row", title: text("editor.settingHint.onion") }, this.onionBox, text("editor.setting.onion"));
    return this.group("onion", label, this.onionShare);
  }

  range() {
    const { frames } = this;
    const field = (name, end) => {
      const input = make("input", { type: "number", className: "mlt-field mlt-editor-frame", min: 0, step: 1, "aria-label": text(`editor.setting.${name}`), title: text(`editor.setting.${name}`) });
      input.onchange = () => frames.setRange(end === 0 ? input.value : frames.range[0], end === 1 ? input.value : frames.range[1]);
      return input;
    };
    this.from = field("rangeFrom", 0);
    this.to = field("rangeTo", 1);
    this.operation = make("select", { className: "mlt-field", "aria-label": text("editor.setting.operation") }, ...Object.entries(OPERATIONS).map(([action, value]) => make("option", { value }, text(`editor.action.${action}`))));
    return this.group("range", this.from, "–", this.to, this.action("rangeStart"), this.action("rangeEnd"), this.action("copyNext"), this.action("copyRange"), this.operation, this.action("applyRange"));
  }

  tracking() {
    this.method = make("select", { className: "mlt-field", "aria-label": text("editor.setting.method") });
    this.back = this.action("trackBack");
    this.on = this.action("trackOn");
    this.stop = this.action("trackStop");
    this.progress = make("progress", { hidden: true, "aria-label": text("editor.group.tracking") });
    return this.group("tracking", this.method, this.back, this.on, this.stop, this.progress, this.action("revert"));
  }

  /** Shows how things are. */
  update() {
    const { frames, session } = this;
    const { draft } = frames;
    this.element.hidden = !draft?.facts;
    if (!draft?.facts) return;
    const { times, rate } = draft.facts;
    const { state } = draft;
    const known = state ? state.drift[frames.at] : null;
    const words = [frameWords(frames.at, draft.count, times, rate)];
    if (state?.key_frames.includes(frames.at)) words.push(text("editor.keyFrame"));
    if (known !== null) words.push(text("editor.drift", { share: Math.round(known * 100) }));
    this.timeline.go(frames.at, words.join(" · "));
    this.still.hidden = draft.moves;
    this.tools.hidden = !draft.moves;
    if (!state) return this.mark("", [], []);
    this.mark(String(state.revision), state.drift, state.key_frames);
    this.onionBox.checked = session.settings.onion;
    this.onionShare.value = session.settings.onionShare;
    this.onionShare.disabled = !session.settings.onion;
    for (const [input, value] of [[this.from, frames.range[0]], [this.to, frames.range[1]]]) {
      input.max = draft.count - 1;
      if (input !== document.activeElement) input.value = value;
    }
    this.showMethods(state.methods);
    this.showTracking(state.tracking);
  }

  mark(version, drift, keys) {
    const { count } = this.frames.draft;
    if (this.marked === `${count} ${version}`) return;
    this.marked = `${count} ${version}`;
    const isKey = new Set(keys);
    const lanes = [
      { hint: text("editor.driftLane"), colours: drift.map(driftColour) },
      { hint: text("editor.keyLane"), ticks: true, colours: Array.from({ length: count }, (_, number) => (isKey.has(number) ? KEY : null)) },
    ];
    this.timeline.show({ count, lanes });
  }

  showMethods(methods) {
    if (this.method.options.length !== methods.length) {
      this.method.replaceChildren(...methods.map((one) => make("option", { value: one }, text(`editor.method.${one}`))));
      if (methods.includes("sam3")) this.method.value = "sam3";
    }
    this.method.hidden = methods.length < 2;
  }

  showTracking(tracking) {
    const resting = tracking ? [this.back, this.on, this.method] : [this.stop];
    // What is switched off loses the focus to the page behind, which would then hear the keys.
    if (resting.includes(document.activeElement)) this.session.canvas.focus();
    for (const one of [this.back, this.on, this.method]) one.disabled = Boolean(tracking);
    this.stop.disabled = !tracking;
    this.progress.hidden = !tracking;
    if (tracking) Object.assign(this.progress, { max: tracking.total, value: tracking.looked });
  }

  /** What is chosen for a range: {op, amount, to}. */
  chosen() {
    const op = this.operation.value;
    return { op, amount: op in AMOUNTS ? this.session.settings[AMOUNTS[op]] : 0, to: this.frames.range };
  }
}

