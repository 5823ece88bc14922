// Draws picture and mask into a canvas, only what has changed; zoom and place come from a viewport.
import { Viewport } from "../page/viewport.mjs?v=0.1.0";
import { cut, join } from "./rect.mjs?v=0.1.0";

// Pixels of the mask that are brought to its canvas at a time.
const AT_ONCE = 1 << 21;
const SMALL = 800;

export const VIEWS = ["overlay", "mask", "picture"];

export class View {
  /** @param canvas what is drawn into; it stays for the view of another picture. */
  constructor(picture, mask, look, canvas) {
    Object.assign(this, { mask, look, canvas });
    this.port = new Viewport();
    this.layer = document.createElement("canvas");
    this.alpha = sized(document.createElement("canvas"), mask.width, mask.height);
    this.pictures = smallerAndSmaller(picture, mask.width, mask.height);
    this.dirty = null;
    this.fitted = true;
    this.listeners = [];
    // Masks of other frames that are seen through: canvases over the whole picture.
    this.ghosts = [];
    this.refresh(mask.all);
  }

  /** Another frame of the same clip; what belongs to the former one is its owner's to let go of. */
  setPicture(picture) {
    for (const half of this.pictures.slice(1)) sized(half, 0, 0);
    this.pictures = smallerAndSmaller(picture, this.mask.width, this.mask.height);
    this.redraw();
  }

  /** The frame's size in pixels of the page. */
  resize(width, height) {
    const ratio = window.devicePixelRatio || 1;
    sized(this.canvas, Math.round(width * ratio), Math.round(height * ratio));
    sized(this.layer, this.canvas.width, this.canvas.height);
    this.frame = [width, height];
    if (this.fitted) this.port.fit([this.mask.width, this.mask.height], this.frame);
    this.redraw();
  }

  fit() {
    this.fitted = true;
    this.port.fit([this.mask.width, this.mask.height], this.frame);
    this.redraw();
  }

  zoom(factor, x = this.frame[0] / 2, y = this.frame[1] / 2) {
    this.fitted = false;
    this.port.zoom(factor, x, y);
    this.redraw();
  }

  pan(dx, dy) {
    this.fitted = false;
    this.port.pan(dx, dy);
    this.redraw();
  }

  /** The mask has changed within a rectangle. */
  refresh(rect) {
    const { levels, width } = this.mask;
    const context = this.alpha.getContext("2d");
    const [left, across] = [rect.left, rect.right - rect.left];
    const rows = Math.max(1, Math.floor(AT_ONCE / across));
    for (let top = rect.top; top < rect.bottom; top += rows) {
      const image = new ImageData(across, Math.min(rows, rect.bottom - top));
      for (let y = 0, to = 3; y < image.height; y++) {
        for (let x = 0, from = (top + y) * width + left; x < across; x++, from++, to += 4) image.data[to] = levels[from];
      }
      context.putImageData(image, left, top);
    }
    this.ask(rect);
  }

  redraw() {
    for (const listener of this.listeners) listener();
    this.ask(this.mask.all, true);
  }

  ask(rect, everything = false) {
    this.dirty = join(this.dirty, rect);
    this.everything ||= everything;
    this.frameId ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    const { canvas, port } = this;
    const ratio = window.devicePixelRatio || 1;
    const place = { scale: port.scale * ratio, x: port.x * ratio, y: port.y * ratio };
    const whole = { left: 0, top: 0, right: canvas.width, bottom: canvas.height };
    const part = this.everything ? whole : cut(whole, onScreen(this.dirty, place, 2));
    Object.assign(this, { dirty: null, everything: false, frameId: null });
    const seen = part && cut(this.mask.all, inPicture(part, place));
    if (!part || !canvas.width) return;
    const context = within(canvas, part);
    if (seen) {
      this.paintPicture(context, place, seen);
      if (this.look.view !== "picture") {
        this.paintMask(context, place, seen, part);
        this.paintGhosts(context, place);
      }
    }
    context.restore();
  }

  paintPicture(context, place, seen) {
    place2d(context, place);
    if (this.look.view === "mask") {
      context.fillStyle = "#000";
      fillRect(context, seen);
      return;
    }
    context.imageSmoothingEnabled = place.scale < 2;
    const needed = this.mask.width * place.scale;
    const picture = this.pictures.findLast((one) => one.width >= needed) ?? this.pictures[0];
    const [fx, fy] = [picture.width / this.mask.width, picture.height / this.mask.height];
    const [w, h] = [seen.right - seen.left, seen.bottom - seen.top];
    context.drawImage(picture, seen.left * fx, seen.top * fy, w * fx, h * fy, seen.left, seen.top, w, h);
  }

  /** The tint lies on what is learned, or on everything else. */
  paintMask(context, place, seen, part) {
    const { view, colour, opacity, tints } = this.look;
    const learned = view === "mask" || tints === "learned";
    const layer = within(this.layer, part);
    place2d(layer, place);
    layer.imageSmoothingEnabled = place.scale < 2;
    layer.fillStyle = view === "mask" ? "#fff" : colour;
    if (!learned) fillRect(layer, seen);
    layer.globalCompositeOperation = learned ? "source-over" : "destination-out";
    const [w, h] = [seen.right - seen.left, seen.bottom - seen.top];
    layer.drawImage(this.alpha, seen.left, seen.top, w, h, seen.left, seen.top, w, h);
    if (learned) {
      layer.globalCompositeOperation = "source-in";
      fillRect(layer, seen);
    }
    layer.restore();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalAlpha = view === "mask" ? 1 : opacity / 100;
    const [x, y] = [part.left, part.top];
    context.drawImage(this.layer, x, y, part.right - x, part.bottom - y, x, y, part.right - x, part.bottom - y);
  }

  paintGhosts(context, place) {
    if (!this.ghosts.length) return;
    place2d(context, place);
    context.globalAlpha = this.look.onion / 100;
    for (const one of this.ghosts) context.drawImage(one, 0, 0, this.mask.width, this.mask.height);
    context.globalAlpha = 1;
  }

  /** All pixels of the picture, RGBA. */
  pixels() {
    const { width, height } = this.mask;
    const canvas = sized(document.createElement("canvas"), width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.pictures[0], 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }

  destroy() {
    cancelAnimationFrame(this.frameId);
    this.pictures[0].close?.();
    for (const canvas of [this.alpha, this.layer, ...this.pictures.slice(1)]) sized(canvas, 0, 0);
  }
}

function sized(canvas, width, height) {
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** The picture and halves of it: zoomed out, a large one would have to be read whole for every frame. */
function smallerAndSmaller(picture, width, height) {
  const all = [picture];
  for (let [w, h] = [width >> 1, height >> 1]; Math.max(w, h) > SMALL && Math.min(w, h) > 1; w >>= 1, h >>= 1) {
    const half = sized(document.createElement("canvas"), w, h);
    half.getContext("2d").drawImage(all[all.length - 1], 0, 0, w, h);
    all.push(half);
  }
  return all;
}

/** The context, cleared and clipped to a part until `restore`. */
function within(canvas, part) {
  const context = canvas.getContext("2d");
  context.save();
  context.beginPath();
  context.rect(part.left, part.top, part.right - part.left, part.bottom - part.top);
  context.clip();
  context.clearRect(part.left, part.top, part.right - part.left, part.bottom - part.top);
  return context;
}

function place2d(context, { scale, x, y }) {
  context.setTransform(scale, 0, 0, scale, x, y);
}

function fillRect(context, { left, top, right, bottom }) {
  context.fillRect(left, top, right - left, bottom - top);
}

function onScreen(rect, { scale, x, y }, more) {
  return {
    left: Math.floor(rect.left * scale + x) - more,
    top: Math.floor(rect.top * scale + y) - more,
    right: Math.ceil(rect.right * scale + x) + more,
    bottom: Math.ceil(rect.bottom * scale + y) + more,
  };
}

function inPicture(rect, { scale, x, y }) {
  return {
    left: Math.floor((rect.left - x) / scale) - 1,
    top: Math.floor((rect.top - y) / scale) - 1,
    right: Math.ceil((rect.right - x) / scale) + 1,
    bottom: Math.ceil((rect.bottom - y) / scale) + 1,
  };
}
