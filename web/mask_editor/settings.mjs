// How a person has set the tools, remembered by the browser; whatever is remembered wrongly is the default again.
import { remember, remembered } from "../page/memory.mjs?v=0.1.0";
import { AUTOMATIC, isTint } from "../page/tint.mjs?v=0.1.0";

const KEY = "masked_lora.editor";
/** The largest brush, as a share of a picture's shorter side. */
export const MOST_SHARE = 1;

export const DEFAULTS = {
  share: 0.08,
  hardness: 80,
  opacity: 100,
  pressure: true,
  combine: "add",
  tolerance: 24,
  contiguous: true,
  radius: 4,
  softness: 4,
  view: "overlay",
  colour: AUTOMATIC,
  tint: 50,
  tints: "ignored",
  onion: false,
  onionShare: 80,
};

const RANGES = { share: [0, MOST_SHARE], hardness: [0, 100], opacity: [1, 100], tolerance: [0, 255], radius: [1, 100], softness: [1, 100], tint: [0, 100], onionShare: [5, 100] };
const CHOICES = { combine: ["add", "remove", "replace"], view: ["overlay", "mask", "picture"], tints: ["ignored", "learned"] };

/** Settings as they may be: of the right type and within their range, else the default. */
export function checked(values) {
  const found = {};
  for (const [name, fallback] of Object.entries(DEFAULTS)) {
    const value = values?.[name];
    const [least, most] = RANGES[name] ?? [];
    const fits =
      typeof value === typeof fallback &&
      (!RANGES[name] || (value >= least && value <= most)) &&
      (!CHOICES[name] || CHOICES[name].includes(value)) &&
      (name !== "colour" || isTint(value));
    found[name] = fits ? value : fallback;
  }
  return found;
}

/** A brush's diameter in whole pixels of a picture, from its share of the shorter side. */
export function sizeOf(share, side) {
  return Math.max(1, Math.round(share * side));
}

export function loadSettings() {
  return checked(remembered(KEY));
}

export function keepSettings(settings) {
  remember(KEY, settings);
}
