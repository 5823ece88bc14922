// Where our pages lie, as their links name them. Pure functions of addresses.

// In links of the pages, wherever the pack's folder lies and whatever it is called.
const LINKED = "/extensions/masked-lora/docs/";

/**
 * The address from which a page of ours is read; null of anything else.
 * @param {string} href absolute.
 * @param {string} docs the folder of our pages.
 */
export function pageAt(href, docs) {
  const found = ours(href, docs);
  return found?.pathname.endsWith(".md") ? found.href : null;
}

/** Where a picture or a link of a page leads; null where no page of ours should lead, such as to a script. */
export function leadsTo(link, page, docs) {
  // A node's page names its pictures as ComfyUI's help panel reads them: from the folder of all pages.
  const base = page.slice(docs.length).startsWith("MLT_") ? docs : page;
  const { href, protocol } = new URL(link, base);
  return ours(href, docs)?.href ?? (["http:", "https:"].includes(protocol) ? href : null);
}

function ours(href, docs) {
  const there = new URL(href), here = new URL(docs);
  if (there.origin !== here.origin) return null;
  if (there.href.startsWith(docs)) return there;
  const at = there.pathname.indexOf(LINKED);
  return at < 0 ? null : new URL(there.pathname.slice(at + LINKED.length), docs);
}
