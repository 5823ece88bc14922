// One picture, large: a view of it, zoom and pan, and what lies under the pointer.
import { make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { AUTOMATIC, USUAL } from "../page/tint.mjs?v=0.1.0";
import { Viewport } from "../page/viewport.mjs?v=0.1.0";
import { alphaOf, cellAt, drawPicture, shadeOf } from "./draw.mjs?v=0.1.0";
import { withoutInfill } from "./facts.mjs?v=0.1.0";

const ZOOM = 1.25;
const WHEEL = 0.0015;
const KEYS = { "+": ZOOM, "=": ZOOM, "-": 1 / ZOOM };

export const LARGE_VIEWS = ["overlay", "mask", "cut-out", "latent grid", "infill", "crop", "picture", "pair"];

export class Viewer {
  /** @param source a DatasetSource; @param {() => void} onTint called when another tint stands out. */
  constructor(source, onTint = () => {}) {
    Object.assign(this, { source, onTint });
    this.standsOut = USUAL;
    this.port = new Viewport();
    this.look = { view: "overlay", colour: AUTOMATIC, opacity: 60, infill: 0 };
    this.pictures = new Map();
    // Gives a clip's frame instead of its picture: (detail, look) to {detail, picture, alpha}.
    this.frameOf = null;
    this.canvas = make("canvas", { tabIndex: 0, className: "mlt-canvas", role: "application" });
    this.under = make("div", { className: "mlt-note mlt-under", role: "status" });
    this.element = make("div", { className: "mlt-viewer" }, this.canvas, this.under);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.element);
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => this.grab(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("dblclick", () => this.fit());
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  destroy() {
    this.observer.disconnect();
    this.pictures.clear();
  }

  /** Shows the picture of an index, as `look` says. */
  async show(index, look = this.look) {
    const ticket = (this.ticket = {});
    this.look = look;
    try {
      const detail = await this.source.detail(index);
      const [shown, tints] = await Promise.all([this.loaded(detail, look), this.showsMask && this.source.tint(index)]);
      if (ticket !== this.ticket) return;
      if (tints) this.tintBy(tints);
      this.take(shown);
      this.canvas.setAttribute("aria-label", text("dataset.picture", { name: detail.name, view: text(`dataset.view.${look.view}`) }));
    } catch (error) {
      if (ticket === this.ticket) say(this.under, error.message);
    }
  }

  /** What the view is made of: that of a clip's frame where one is looked at. */
  async loaded(detail, look) {
    if (this.frameOf && !(look.view === "infill" && detail.infills.length)) return this.frameOf(detail, look);
    if (this.showsPair(detail)) {
      const picture = await this.picture(`/pictures/${detail.index}/pair?stamp=${detail.stamp}`);
      return { detail, picture, alpha: null, size: [picture.naturalWidth, picture.naturalHeight] };
    }
    const [picture, mask] = await Promise.all(this.needed(detail).map((path) => this.picture(path)));
    return { detail, picture, alpha: mask ? this.alpha(mask) : null };
  }

  /** Shows another frame of the clip that is shown. */
  takeFrame(shown) {
    // What is still on its way was of a frame before.
    this.ticket = null;
    say(this.under, "");
    this.take(shown);
  }

  get showsMask() {
    return ["overlay", "mask", "cut-out"].includes(this.look.view);
  }

  /** Paths of the pictures that the view is made of, the mask last. */
  needed(detail) {
    const base = `/pictures/${detail.index}`;
    const stamp = `?stamp=${detail.stamp}`;
    if (this.look.view === "infill" && detail.infills.length) return [`${base}/infill/${this.look.infill % detail.infills.length}${stamp}`];
    return this.showsMask ? [`${base}/image${stamp}`, `${base}/learned${stamp}`] : [`${base}/image${stamp}`];
  }

  /** Whether the references stand beside the picture. */
  showsPair(detail) {
    return this.look.view === "pair" && detail.references.length > 0;
  }

  take({ detail, picture, alpha, size: whole }) {
    const size = whole ?? (this.look.view === "infill" && detail.infills.length ? detail.bucket : detail.size);
    const fresh = this.detail?.index !== detail.index || String(this.size) !== String(size);
    if (this.detail?.weights !== detail.weights) this.shade = shadeOf(detail.weights, detail.grid);
    this.detail = detail;
    this.shown = { picture, alpha };
    this.size = size;
    if (fresh) this.fit();
    this.draw();
    this.explain(detail);
  }

  /** In words where a person looks: the view infill of a picture that has no replaced background. */
  explain(detail) {
    const words = this.look.view === "infill" ? withoutInfill(detail, Boolean(this.source.facts?.cached)) : "";
    if (words || this.explained) say(this.under, words);
    this.explained = words;
  }

  alpha(mask) {
    if (this.mask !== mask) {
      this.mask = mask;
      this.maskAlpha = alphaOf(mask);
    }
    return this.maskAlpha;
  }

  /** The tint lies on what is ignored. */
  tintBy({ ignored }) {
    if (ignored === this.standsOut) return;
    this.standsOut = ignored;
    this.onTint();
  }

  /** The tint: the person's own, or the one that stands out from this picture. */
  get colour() {
    const { colour } = this.look;
    return colour === AUTOMATIC ? this.standsOut : colour;
  }

  async picture(path) {
    let loading = this.pictures.get(path);
    if (!loading) {
      const picture = new Image();
      picture.src = this.source.url(path);
      loading = picture.decode().then(() => picture, () => Promise.reject(new Error(text("dataset.unreadable"))));
      this.pictures.set(path, loading);
      loading.catch(() => this.pictures.delete(path));
      if (this.pictures.size > 8) this.pictures.delete(this.pictures.keys().next().value);
    }
    return loading;
  }

  fit() {
    if (this.size) this.port.fit(this.size, this.frame());
    this.draw();
  }

  zoom(factor, x = this.frame()[0] / 2, y = this.frame()[1] / 2) {
    this.port.zoom(factor, x, y);
    this.draw();
  }

  frame() {
    return [this.element.clientWidth, this.element.clientHeight];
  }

  resize() {
    const [width, height] = this.frame();
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.fit();
  }

  draw() {
    if (!this.shown || !this.canvas.width) return;
    const { view, opacity } = this.look;
    drawPicture(this.canvas.getContext("2d"), {
      view: view === "infill" && !this.detail.infills.length ? "picture" : view,
      size: this.size,
      ...this.shown,
      shade: this.shade,
      detail: this.detail,
      port: this.port,
      colour: this.colour,
      opacity: opacity / 100,
      ratio: window.devicePixelRatio || 1,
    });
  }

  wheel(event) {
    event.preventDefault();
    event.stopPropagation();
    this.zoom(Math.exp(-event.deltaY * WHEEL), event.offsetX, event.offsetY);
  }

  grab(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus();
  }

  move(event) {
    if (this.canvas.hasPointerCapture(event.pointerId) && event.buttons) {
      this.port.pan(event.movementX, event.movementY);
      this.draw();
    }
    this.tellUnder(event.offsetX, event.offsetY);
  }

  tellUnder(x, y) {
    if (!this.detail || this.look.view === "infill" || this.showsPair(this.detail)) return;
    const [left, top] = this.port.toPicture(x, y);
    const cell = cellAt(this.detail, left, top);
    const place = { x: Math.floor(left), y: Math.floor(top) };
    this.under.textContent = cell
      ? text("dataset.underCell", { ...place, column: cell.column, row: cell.row, weight: Number(cell.weight.toPrecision(4)) })
      : text("dataset.under", place);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (KEYS[event.key]) this.zoom(KEYS[event.key]);
    else if (event.key === "0") this.fit();
    else if (event.shiftKey && event.key.startsWith("Arrow")) {
      const [dx, dy] = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
      this.port.pan(dx, dy);
      this.draw();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
