// Every text that the pack shows in the page, from locales/<language>/main.json; English where a language lacks one.
const SECTION = "masked_lora";
const FALLBACK = "en";
let texts = {};

/**
 * Takes over what ComfyUI's /i18n gives.
 * @param {object} messages language to messages, ours under "masked_lora".
 * @param {string} language as ComfyUI's setting names it, such as "de" or "zh-TW".
 */
export function useTexts(messages, language) {
  texts = { ...flat(messages?.[FALLBACK]?.[SECTION]), ...flat(messages?.[language]?.[SECTION]) };
}

/** The text of a key such as "runs.stop", with {name} replaced from `values`. */
export function text(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

function flat(tree = {}, prefix = "") {
  return Object.fromEntries(
    Object.entries(tree).flatMap(([key, value]) =>
      typeof value === "string" ? [[prefix + key, value]] : Object.entries(flat(value, `${prefix}${key}.`)),
    ),
  );
}
