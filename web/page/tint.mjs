// Which tint stands out from a picture. Pure, but for `sampled`, which needs a canvas.
const SIDE = 64;
// Of colours that the tint does not lie on, so that it is also told from what it lies beside.
const BESIDE = 0.25;
// Differences in CIE L*a*b* around which two colours stop being alike.
const ALIKE = 20;

/** The tints to choose from, the usual one first. */
export const TINTS = ["#dc1e3c", "#00b84a", "#2f6bff", "#ffd000", "#e815e8", "#00cfe0"];
/** Stands, where a person has chosen no tint, for the one that stands out from each picture. */
export const AUTOMATIC = "automatic";

/** Whether it is a tint as it is kept: AUTOMATIC, or a colour such as "#dc1e3c". */
export function isTint(value) {
  return value === AUTOMATIC || /^#[0-9a-f]{6}$/.test(value);
}

/**
 * The tint that a picture has least of.
 * @param {Uint8ClampedArray} rgba the picture's pixels.
 * @param {ArrayLike<number>?} learned how much each is learned, 0 to 255; null: all of it.
 * @param {"ignored" | "learned"} tints what the tint lies on: its colours count most.
 */
export function standingOut(rgba, learned, tints = "ignored") {
  const palette = TINTS.map((tint) => lab([1, 3, 5].map((at) => parseInt(tint.slice(at, at + 2), 16))));
  const likeness = palette.map(() => 0);
  for (let i = 0; i < rgba.length; i += 4) {
    const share = learned ? learned[i / 4] / 255 : 1;
    const weight = BESIDE + (tints === "learned" ? share : 1 - share);
    const colour = lab(rgba.subarray(i, i + 3));
    palette.forEach((tint, at) => {
      const apart = Math.hypot(...tint.map((value, axis) => value - colour[axis])) / ALIKE;
      likeness[at] += weight / (1 + apart * apart);
    });
  }
  return TINTS[likeness.indexOf(Math.min(...likeness))];
}

/** The tint of a picture and its mask, both anything that a canvas draws; the mask's alpha is what is learned. */
export function tintFor(picture, mask, tints = "ignored") {
  const learned = mask && sampled(mask).filter((_, at) => at % 4 === 3);
  return standingOut(sampled(picture), learned, tints);
}

/** The pixels of a small copy, RGBA. */
function sampled(drawn) {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(drawn, 0, 0, SIDE, SIDE);
  return context.getImageData(0, 0, SIDE, SIDE).data;
}

/** CIE L*a*b* of red, green and blue in sRGB, 0 to 255. */
function lab(rgb) {
  const [r, g, b] = Array.from(rgb, (value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  const [x, y, z] = [
    (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
    0.2126 * r + 0.7152 * g + 0.0722 * b,
    (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
  ].map((v) => (v > 0.008856 ? Math.cbrt(v) : 7.787 * v + 16 / 116));
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}
