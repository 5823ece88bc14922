// How a person has set the tools, remembered by the browser; whatever is remembered wrongly is the default again.
import { remember, remembered } from "../page/memory.js";

const KEY = "masked_lora.editor";
export const MOST_SIZE = 2000;

export const DEFAULTS = {
  size: 40,
  hardness: 80,
  opacity: 100,
  pressure: true,
  combine: "add",
  tolerance: 24,
  contiguous: true,
  radius: 4,
  softness: 4,
  view: "overlay",
  colour: "#dc1e3c",
  tint: 50,
  tints: "ignored",
};

const RANGES = { size: [1, MOST_SIZE], hardness: [0, 100], opacity: [1, 100], tolerance: [0, 255], radius: [1, 100], softness: [1, 100], tint: [0, 100] };
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
      (name !== "colour" || /^#[0-9a-f]{6}$/.test(value));
    found[name] = fits ? value : fallback;
  }
  return found;
}

export function loadSettings() {
  return checked(remembered(KEY));
}

export function keepSettings(settings) {
  remember(KEY, settings);
}
