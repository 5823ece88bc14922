// The frames of the clip that the large view shows: scrubbed, played, each with its mask, its cells and its coverage.
import { make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { FrameLoader } from "../clips/loader.mjs?v=0.1.0";
import { ahead, latentOf, stepOf, stepped } from "../clips/pace.mjs?v=0.1.0";
import { Player } from "../clips/player.mjs?v=0.1.0";
import { frameWords, Timeline } from "../clips/timeline.mjs?v=0.1.0";
import { alphaOf } from "./draw.mjs?v=0.1.0";
import { percent } from "./rows.mjs?v=0.1.0";

const AHEAD = 14;
// Pixels of a frame's longer side while it is played or dragged over; once it rests, it is as large as it is.
const MOST_SIDE = 1280;
const REST_MS = 250;
const LEARNED = ["#22a55a", "#5fce8d"];
const KEY = "#c97a06";

export class ClipView {
  /** @param source a DatasetSource; @param viewer it shows the frames in. */
  constructor(source, viewer) {
    Object.assign(this, { source, viewer });
    this.timeline = new Timeline({ onSeek: (number) => this.seek(number), onPlay: () => this.toggle(), playKey: text("clip.space") });
    this.timeline.play.setAttribute("aria-keyshortcuts", "Space");
    this.note = make("div", { className: "mlt-note" });
    this.element = make("div", { className: "mlt-clip", hidden: true }, this.timeline.element, this.note);
    this.index = null;
  }

  destroy() {
    this.leave();
    this.timeline.destroy();
  }

  /** Whether there is a clip to go through. */
  get active() {
    return this.player !== undefined;
  }

  /** Takes the picture of an index; nothing is shown of one that is no clip. */
  async show(row, look) {
    const at = this.index === row.index ? this.at : 0;
    this.leave();
    Object.assign(this, { index: row.index, look, at });
    if (!row.clip) return;
    const ticket = (this.ticket = {});
    try {
      const [told, detail] = await Promise.all([this.source.frames(row.index), this.source.detail(row.index)]);
      if (ticket !== this.ticket) return;
      this.take(told, detail);
    } catch (error) {
      if (ticket !== this.ticket) return;
      this.element.hidden = false;
      this.timeline.element.hidden = true;
      say(this.note, error.message);
    }
  }

  take(told, detail) {
    Object.assign(this, { told, detail, count: told.times.length });
    this.at = Math.min(this.at, this.count - 1);
    this.latent = latentOf(told, this.count);
    const isShown = ({ picture }) => picture === this.viewer.shown?.picture;
    this.loader = new FrameLoader((number, signal) => this.load(number, signal), { isShown });
    this.player = new Player({ times: told.times, isReady: (number) => this.loader.settled(number), show: (number) => this.reach(number) });
    this.timeline.element.hidden = false;
    this.timeline.show({ count: this.count, lanes: this.lanes() });
    this.element.hidden = false;
    say(this.note, told.parts.length || told.cached ? "" : text("clip.withoutCache"));
    this.viewer.frameOf = (_, look) => this.wanted(look);
    this.tell();
    if (this.at) this.viewer.show(this.index, this.look);
    else this.rest();
  }

  lanes() {
    const { parts, keys } = this.told;
    const isKey = new Set(keys);
    const numbers = this.latent.keys();
    const found = [];
    if (parts.length) found.push({ hint: text("clip.learnedLane"), colours: this.latent.map((latent) => (latent < 0 ? null : LEARNED[latent % 2])) });
    // Where every frame is one there is nothing to tell.
    if (keys.length && keys.length < this.count) found.push({ hint: text("clip.keyLane"), ticks: true, colours: Array.from(numbers, (number) => (isKey.has(number) ? KEY : null)) });
    return found;
  }

  leave() {
    this.player?.stop();
    this.timeline.setPlaying(false);
    this.loader?.empty();
    clearTimeout(this.resting);
    this.viewer.frameOf = null;
    this.giveFocus();
    this.element.hidden = true;
    Object.assign(this, { player: undefined, loader: undefined, told: null, detail: null, ticket: null, facts: null });
  }

  /** Another view or tint. */
  setLook(look) {
    const before = this.look;
    this.look = look;
    if (!this.active || before.view === look.view) return;
    this.loader.empty();
    if (!this.showsFrames) this.pause();
    if (!this.showsFrames) this.giveFocus();
    this.timeline.element.inert = !this.showsFrames;
    if (this.player.playing) this.loader.ahead(this.at, ahead(this.at, this.count, AHEAD));
  }

  /** Before its controls go: else the page behind the dialog would hear the keys. */
  giveFocus() {
    if (this.element.contains(document.activeElement)) this.viewer.canvas.focus();
  }

  /** Backgrounds are replaced in the first frame alone. */
  get showsFrames() {
    return this.look.view !== "infill" || !this.detail.infills.length;
  }

  /** What a key means here; whether it means anything. */
  key(event) {
    if (!this.active || !this.showsFrames) return false;
    const step = stepOf(event);
    const plain = !event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey;
    if (step !== null) this.seek(stepped(this.at, step, this.count));
    else if (event.key === " " && plain && !event.target.closest("button, select, summary, input:not([type=range])")) this.toggle();
    else return false;
    return true;
  }

  toggle() {
    if (this.player.playing) {
      this.pause();
      return;
    }
    this.timeline.setPlaying(true);
    clearTimeout(this.resting);
    this.loader.ahead(this.at, ahead(this.at, this.count, AHEAD));
    this.player.start(this.at);
  }

  pause() {
    this.player.stop();
    this.timeline.setPlaying(false);
    this.rest();
  }

  /** Goes to a frame, which is shown as soon as it is there. */
  async seek(number) {
    const { loader, player } = this;
    if (player.playing) this.pause();
    this.at = number;
    this.facts = null;
    this.tell();
    this.rest();
    // What lies between is passed over: only the frame where the slider stands is waited for.
    loader.ahead(number, []);
    try {
      await loader.get(number);
      if (loader === this.loader && this.at === number) this.reach(number);
    } catch (error) {
      if (loader === this.loader && this.at === number) say(this.viewer.under, error.message);
    }
  }

  /** Shows a frame that is there. */
  reach(number) {
    this.at = number;
    this.facts = this.loader.ready(number)?.facts ?? null;
    const found = this.loader.ready(number);
    if (found) this.viewer.takeFrame(this.seen(found));
    this.tell();
    this.loader.ahead(number, ahead(number, this.count, this.player.playing ? AHEAD : 2));
  }

  /** After a moment the frame is shown as sharp as it is, and its coverage told. */
  rest() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.sharpen(), REST_MS);
  }

  async sharpen() {
    const { at, index, loader } = this;
    const isHere = () => loader === this.loader && at === this.at && !this.player.playing;
    try {
      const facts = await this.source.frame(index, at, this.detail.stamp);
      if (!isHere()) return;
      this.facts = facts;
      this.tell();
      if (!this.showsFrames) return;
      const small = this.side ? null : loader.ready(at);
      const found = small ?? (await this.parts(at, 0, null));
      if (!isHere()) return;
      this.viewer.takeFrame(this.seen({ ...found, facts }));
      if (found !== small) this.keepSharp(found);
    } catch (error) {
      if (isHere()) say(this.viewer.under, error.message);
    }
  }

  /** The one frame at full size, which goes when there is another. */
  keepSharp(found) {
    this.sharp?.close();
    this.sharp = found;
  }

  tell() {
    const words = [frameWords(this.at, this.count, this.told.times, this.told.rate)];
    if (this.facts?.coverage != null) words.push(text("clip.coverage", { share: percent(this.facts.coverage) }));
    const latent = this.latent[this.at];
    if (latent >= 0) words.push(text("clip.learned", { latent }));
    else if (this.told.parts.length) words.push(text("clip.notLearned"));
    this.timeline.go(this.at, words.join(" · "));
  }

  /** The present frame for the viewer, in a look. */
  async wanted(look) {
    this.look = look;
    const found = await this.loader.get(this.at);
    this.rest();
    return this.seen(found);
  }

  seen({ picture, alpha, facts }) {
    const { weights, grid } = facts ?? this.facts ?? this.detail;
    return { detail: { ...this.detail, weights, grid }, picture, alpha };
  }

  get side() {
    const { size } = this.detail;
    const [width, height] = this.viewer.frame();
    const fitted = Math.min(width / size[0], height / size[1]) * (window.devicePixelRatio || 1);
    const side = Math.min(MOST_SIDE, Math.ceil((Math.max(...size) * fitted) / 128) * 128);
    return side > 0 && side < Math.max(...size) ? Math.max(128, side) : 0;
  }

  async load(number, signal) {
    const needsCells = this.look.view === "latent grid";
    const [found, facts] = await Promise.all([
      this.parts(number, this.side, signal),
      needsCells ? this.source.frame(this.index, number, this.detail.stamp) : null,
    ]);
    return { ...found, facts };
  }

  async parts(number, side, signal) {
    const { index, detail } = this;
    const kinds = this.viewer.showsMask ? ["image", "learned"] : ["image"];
    const [picture, mask] = await Promise.all(kinds.map((kind) => this.source.frameBitmap(index, number, kind, { stamp: detail.stamp, side, signal })));
    const alpha = mask ? alphaOf(mask) : null;
    mask?.close();
    return { picture, alpha, close: () => picture.close() };
  }
}
