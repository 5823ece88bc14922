// How a person looks at pictures: view, tint, opacity; kept in this browser.
import { remember, remembered } from "../page/memory.mjs?v=0.1.0";
import { AUTOMATIC, isTint } from "../page/tint.mjs?v=0.1.0";

const KEY = "masked_lora.look";
const DEFAULTS = { view: "overlay", colour: AUTOMATIC, opacity: 60 };

/** A look as it was left, faulty parts replaced; `null` where nothing was kept. */
export function checkedLook(kept, views) {
  const { view, colour, opacity } = kept ?? {};
  return {
    view: views.includes(view) ? view : DEFAULTS.view,
    colour: isTint(colour) ? colour : DEFAULTS.colour,
    opacity: Number.isInteger(opacity) && opacity >= 0 && opacity <= 100 ? opacity : DEFAULTS.opacity,
    infill: 0,
  };
}

export function loadLook(views) {
  return checkedLook(remembered(KEY), views);
}

export function keepLook({ view, colour, opacity }) {
  remember(KEY, { view, colour, opacity });
}
