// Lines over the picture that are not part of it: the brush's ring, the keyboard's cross, boxes, lassos and points.
import { Viewport } from "../page/viewport.mjs?v=0.1.0";

const SVG = "http://www.w3.org/2000/svg";
const CROSS = 9;

export class Marks {
  constructor() {
    this.element = document.createElementNS(SVG, "svg");
    this.element.classList.add("mlt-editor-marks");
    this.element.setAttribute("aria-hidden", "true");
    // Dark below and light above, so that one of them shows on any picture.
    this.lines = ["mlt-mark-dark", "mlt-mark-light"].map((name) => this.line(name));
    this.port = new Viewport();
    this.clear();
  }

  clear() {
    this.show({ shape: [], closed: false, points: [], ring: null, cross: null });
  }

  line(name) {
    const path = document.createElementNS(SVG, "path");
    path.classList.add(name);
    this.element.append(path);
    return path;
  }

  /** @param {{shape?, closed?, points?, ring?, cross?}} marks in pixels of the picture; ring is {x, y, radius}. */
  show(marks) {
    Object.assign(this, marks);
    this.update();
  }

  update() {
    const { scale, x, y } = this.port;
    const at = ([px, py]) => [px * scale + x, py * scale + y];
    const parts = [];
    if (this.shape.length) parts.push(`M${this.shape.map((point) => at(point).join(" ")).join("L")}${this.closed ? "Z" : ""}`);
    if (this.ring) parts.push(circle(at([this.ring.x, this.ring.y]), Math.max(1, this.ring.radius * scale)));
    if (this.cross) parts.push(crossing(at(this.cross), CROSS));
    for (const point of this.points) {
      parts.push(circle(at([point.x + 0.5, point.y + 0.5]), 5));
      if (!point.inside) parts.push(crossing(at([point.x + 0.5, point.y + 0.5]), 3));
    }
    for (const line of this.lines) line.setAttribute("d", parts.join(""));
  }
}

function circle([x, y], r) {
  return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
}

function crossing([x, y], r) {
  return `M${x - r} ${y}h${2 * r}M${x} ${y - r}v${2 * r}`;
}
