// The first sample of the last step with its mask, as the loss saw it.
import { isLive } from "./describe.mjs?v=0.1.0";
import { make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";

const INTERVAL = 1000;

export class Current {
  /** @param store a RunStore. @param {boolean} open whether it starts open. */
  constructor(store, open) {
    this.store = store;
    this.asked = -Infinity;
    this.image = make("img", { hidden: true });
    this.frame = make("input", { type: "range", min: 0, value: 0, step: 1, className: "mlt-range", "aria-label": text("runs.latentFrame") });
    this.frame.addEventListener("input", () => this.choose());
    this.frameWords = make("span", { className: "mlt-note" });
    this.frames = make("div", { className: "mlt-row", hidden: true }, text("runs.latentFrame"), this.frame, this.frameWords);
    this.words = make("p", { className: "mlt-note" });
    this.names = make("p", { className: "mlt-note" });
    this.element = make(
      "details",
      { className: "mlt-part mlt-current", open },
      make("summary", { title: text("runs.currentHint") }, text("runs.current")),
      this.image,
      this.frames,
      this.words,
      this.names,
    );
    this.element.addEventListener("toggle", () => this.update(this.run));
  }

  destroy() {
    URL.revokeObjectURL(this.image.src);
  }

  /** Called on every change of the run; asks at most once a second, and only while somebody can see it. */
  update(run) {
    if (run?.id !== this.run?.id) this.image.hidden = true;
    this.run = run;
    const names = run?.names ?? [];
    say(this.names, isLive(run) && names.length ? text("runs.lastStep", { names: names.join(", ") }) : "");
    if (!this.element.open) return;
    if (!isLive(run)) {
      if (this.image.hidden) say(this.words, text("runs.currentNone"));
      return;
    }
    if (run.elsewhere) {
      say(this.words, text("runs.currentElsewhere"));
      return;
    }
    const visible = this.element.checkVisibility() && !document.hidden;
    const now = performance.now();
    if (!visible || this.loading || now - this.asked < INTERVAL || run.step === this.shown) return;
    this.asked = now;
    this.load(run);
  }

  /** Another latent frame of the clip; the samples that come next are shown at it, too. */
  choose() {
    this.showFrames(Number(this.frame.max) + 1);
    this.shown = undefined;
    this.asked = -Infinity;
    if (this.run) this.update(this.run);
  }

  showFrames(count) {
    this.frames.hidden = count < 2;
    this.frame.max = Math.max(0, count - 1);
    const words = `${this.frame.value} / ${this.frame.max}`;
    this.frame.setAttribute("aria-valuetext", words);
    say(this.frameWords, words);
  }

  async load(run) {
    this.loading = true;
    try {
      const frame = this.frame.value;
      const found = await this.store.current(run.id, frame);
      if (!found || this.run?.id !== run.id) return;
      this.showFrames(found.frames);
      if (frame !== this.frame.value) this.asked = -Infinity;
      URL.revokeObjectURL(this.image.src);
      this.shown = frame === this.frame.value ? found.step : undefined;
      this.image.src = URL.createObjectURL(found.blob);
      this.image.alt = text("runs.currentAlt", found);
      this.image.hidden = false;
      say(this.words, `${found.name} · ${text("runs.atStep", found)}. ${text("runs.currentHint")}`);
    } catch {
      // The next change asks again.
    } finally {
      this.loading = false;
    }
  }
}
