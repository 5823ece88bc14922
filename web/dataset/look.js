// How a person looks at pictures: view, tint, opacity; kept in this browser.
const KEY = "masked_lora.look";
const DEFAULTS = { view: "overlay", colour: "#dc1e3c", opacity: 60 };

/** A look as it was left, faulty parts replaced. */
export function readLook(text, views) {
  let kept = {};
  try {
    kept = JSON.parse(text) ?? {};
  } catch {
    // As if nothing had been kept.
  }
  return {
    view: views.includes(kept.view) ? kept.view : DEFAULTS.view,
    colour: /^#[0-9a-f]{6}$/.test(kept.colour) ? kept.colour : DEFAULTS.colour,
    opacity: Number.isInteger(kept.opacity) && kept.opacity >= 0 && kept.opacity <= 100 ? kept.opacity : DEFAULTS.opacity,
    infill: 0,
  };
}

export function loadLook(views) {
  return readLook(localStorage.getItem(KEY), views);
}

export function keepLook({ view, colour, opacity }) {
  localStorage.setItem(KEY, JSON.stringify({ view, colour, opacity }));
}
