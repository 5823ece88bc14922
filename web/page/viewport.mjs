// Where a picture lies in a frame on the screen: scale and offset, for zoom and pan. Pure.
const MOST = 64;
const LEAST = 0.02;

export class Viewport {
  constructor() {
    this.scale = 1;
    this.x = 0;
    this.y = 0;
  }

  /** The whole picture, centred; small pictures are enlarged by whole numbers, so that their pixels stay square. */
  fit([width, height], [frameWidth, frameHeight]) {
    const scale = Math.min(frameWidth / width, frameHeight / height);
    this.scale = scale > 1 ? Math.max(1, Math.floor(scale)) : Math.max(LEAST, scale);
    this.x = (frameWidth - width * this.scale) / 2;
    this.y = (frameHeight - height * this.scale) / 2;
    return this;
  }

  /** Zooms by a factor; what is at (x, y) of the frame stays there. */
  zoom(factor, x, y) {
    const scale = Math.min(MOST, Math.max(LEAST, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    return this;
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    return this;
  }

  toPicture(x, y) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }
}
