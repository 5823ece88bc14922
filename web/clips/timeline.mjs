// The way through a clip: play, step, a slider, and marks below it of what there is to know of each frame.
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { stepped, stretches } from "./pace.mjs?v=0.1.0";

// The slider's thumb, in CSS: its middle goes from half of it to half of it before the end.
const THUMB = 14;
const LANE = 5;

export class Timeline {
  /**
   * @param {{onSeek: (number) => void, onPlay: () => void, playKey: string}} options playKey: the key that plays, as it
   *   is written on it.
   */
  constructor({ onSeek, onPlay, playKey }) {
    Object.assign(this, { onSeek, playKey });
    this.count = 1;
    this.at = 0;
    this.lanes = [];
    this.play = button("▶", "", onPlay);
    this.back = button("−1", text("clip.backHint"), () => this.step(-1));
    this.on = button("+1", text("clip.onHint"), () => this.step(1));
    this.back.setAttribute("aria-label", text("clip.back"));
    this.on.setAttribute("aria-label", text("clip.on"));
    this.back.setAttribute("aria-keyshortcuts", "Alt+ArrowLeft");
    this.on.setAttribute("aria-keyshortcuts", "Alt+ArrowRight");
    this.slider = make("input", { type: "range", min: 0, max: 0, step: 1, value: 0, className: "mlt-timeline-slider", "aria-label": text("clip.frame") });
    this.slider.addEventListener("input", () => this.onSeek(Number(this.slider.value)));
    this.marks = make("canvas", { className: "mlt-timeline-marks", "aria-hidden": "true" });
    this.words = make("output", { className: "mlt-note mlt-timeline-words" });
    this.element = make(
      "div",
      { className: "mlt-timeline", role: "group", "aria-label": text("clip.timeline") },
      make("div", { className: "mlt-row" }, this.play, this.back, this.on, this.words),
      make("div", { className: "mlt-timeline-track" }, this.slider, this.marks),
    );
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.marks);
    this.setPlaying(false);
  }

  destroy() {
    this.observer.disconnect();
  }

  /**
   * Shows a clip.
   * @param {{count: number, lanes: {hint: string, colours: (string | null)[], ticks?: boolean}[]}} clip a colour, or
   *   none, for each frame of each lane.
   */
  show({ count, lanes }) {
    this.count = count;
    this.slider.max = count - 1;
    this.mark(lanes);
  }

  mark(lanes) {
    this.lanes = lanes;
    this.marks.title = lanes.map((lane) => lane.hint).filter(Boolean).join("\n");
    this.marks.style.height = `${lanes.length * (LANE + 1)}px`;
    this.draw();
  }

  /** @param {string} words what is said of the frame. */
  go(number, words) {
    this.at = number;
    if (Number(this.slider.value) !== number) this.slider.value = number;
    this.slider.setAttribute("aria-valuetext", words);
    say(this.words, words);
  }

  step(by) {
    this.onSeek(stepped(this.at, by, this.count));
  }

  setPlaying(isPlaying) {
    const hint = text(isPlaying ? "clip.pause" : "clip.play", { key: this.playKey });
    this.play.replaceChildren(isPlaying ? "❚❚" : "▶");
    this.play.title = hint;
    this.play.setAttribute("aria-label", hint);
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const { marks, count } = this;
    const [width, height] = [Math.round(marks.clientWidth * ratio), Math.round(marks.clientHeight * ratio)];
    if (!width || !height) return;
    Object.assign(marks, { width, height });
    const context = marks.getContext("2d");
    const inner = width - THUMB * ratio;
    // A frame lies under the middle of the thumb that stands on it.
    const place = (number) => (THUMB / 2) * ratio + (count > 1 ? (inner * (number - 0.5)) / (count - 1) : 0);
    this.lanes.forEach(({ colours, ticks }, lane) => {
      const top = lane * (LANE + 1) * ratio;
      for (const [from, to, colour] of ticks ? colours.map((one, i) => [i, i + 1, one]) : stretches(colours)) {
        if (!colour) continue;
        const left = Math.max(0, place(from));
        const right = Math.min(width, count > 1 ? place(to) : width);
        context.fillStyle = colour;
        const middle = (left + right) / 2;
        if (ticks) context.fillRect(Math.round(middle - ratio), top, Math.max(2, Math.round(2 * ratio)), LANE * ratio);
        else context.fillRect(left, top, Math.max(1, right - left), LANE * ratio);
      }
    });
  }
}

/** The words for a frame: its number, the last one's, its time where it is known. */
export function frameWords(number, count, times, rate) {
  const words = text("clip.at", { frame: number, last: count - 1 });
  return rate > 0 ? `${words} · ${text("clip.seconds", { seconds: times[number].toFixed(2) })}` : words;
}
