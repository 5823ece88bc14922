// Every text that the pack shows in the page, from locales/<language>/main.json; English where a language lacks one.
const SECTION = "masked_lora";
const FALLBACK = "en";
let texts = {};
let tongue = FALLBACK;
let plural = new Intl.PluralRules(FALLBACK);

/**
 * Takes over what ComfyUI's /i18n gives.
 * @param {object} messages language to messages, ours under "masked_lora".
 * @param {string} language as ComfyUI's setting names it, such as "de" or "zh-TW".
 */
export function useTexts(messages, language) {
  texts = { ...flat(messages?.[FALLBACK]?.[SECTION]), ...flat(messages?.[language]?.[SECTION]) };
  tongue = messages?.[language]?.[SECTION] ? language.replace("_", "-") : FALLBACK;
  plural = new Intl.PluralRules([tongue, FALLBACK]);
}

/** The language of the texts as dates want it: in the browser's own variant where it has one, such as en-GB. */
export function locale() {
  const variants = globalThis.navigator?.languages ?? [];
  return variants.find((one) => one === tongue || one.startsWith(`${tongue}-`)) ?? tongue;
}

/**
 * The text of a key such as "runs.stop", with {name} replaced from `values`.
 * "one picture | {count} pictures", as ComfyUI's own texts have it, depends on the number `count`.
 */
export function text(key, values = {}) {
  const [one, other = one] = (texts[key] ?? key).split(" | ");
  return (plural.select(values.count ?? 0) === "one" ? one : other).replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

function flat(tree = {}, prefix = "") {
  return Object.fromEntries(
    Object.entries(tree).flatMap(([key, value]) =>
      typeof value === "string" ? [[prefix + key, value]] : Object.entries(flat(value, `${prefix}${key}.`)),
    ),
  );
}
