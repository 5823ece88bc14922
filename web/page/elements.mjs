// Small pieces of page, labelled and reachable by keyboard.

/** An element with attributes, properties (`on…`, `className`, `textContent`, …) and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function button(label, hint, onclick) {
  return make("button", { type: "button", className: "mlt-button", title: hint, onclick }, label);
}

// By then every browser has taken a file.
const TAKEN_MS = 60_000;

/** Gives a file to the browser's downloads; it needs no server. */
export function give(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), TAKEN_MS);
}

/** Sets a text only when it has changed, so that a screen reader reads it once. */
export function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/** Keys pressed inside are not ComfyUI's short cuts for the canvas; Escape and combinations still are. */
export function keepKeys(element) {
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" && !event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
  });
}

/** Loads the style sheets `names`, relative to `base`; resolves when each is there, or has failed. */
export function addStyles(base, names) {
  const load = (name) =>
    new Promise((done) => {
      document.head.append(make("link", { rel: "stylesheet", href: new URL(name, base).href, onload: done, onerror: done }));
    });
  return Promise.all(names.map(load));
}
