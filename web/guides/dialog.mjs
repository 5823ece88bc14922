// Our pages of help that no node has, shown in the page: ComfyUI's help panel would open their raw text in a new tab.
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { blocksOf } from "./markdown.mjs?v=0.1.0";
import { leadsTo, pageAt } from "./places.mjs?v=0.1.0";

const DOCS = new URL("../docs/", import.meta.url).href;
let shown = null;

/** From now on a link to a page of ours, in ComfyUI's help panel or anywhere, shows it. */
export function followGuides() {
  // Before anybody else hears of it, and before the browser follows the link.
  document.addEventListener("click", follow, { capture: true });
}

function follow(event) {
  if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest?.("a[href]");
  const page = link && pageAt(link.href, DOCS);
  if (!page) return;
  event.preventDefault();
  event.stopPropagation();
  shown ??= new Guide(() => (shown = null));
  shown.show(page, link.textContent);
}

class Guide {
  constructor(onClose) {
    this.title = make("strong", { className: "mlt-title" });
    this.note = make("p", { className: "mlt-note", role: "status" });
    this.body = make("article", { className: "mlt-guide-text" });
    this.space = make("div", { className: "mlt-guide-space", tabIndex: 0 }, this.note, this.body);
    const close = button(text("dataset.close"), `${text("dataset.close")} (Esc)`, () => this.element.close());
    this.element = make(
      "dialog",
      { className: "mlt mlt-dialog mlt-guide" },
      make("div", { className: "mlt-row mlt-dialog-head" }, this.title, close),
      this.space,
    );
    // What is typed here is meant for the page that is read, not for the graph behind it.
    this.element.addEventListener("keydown", (event) => event.stopPropagation());
    this.element.addEventListener("close", () => {
      this.element.remove();
      onClose();
    });
    document.body.append(this.element);
    this.element.showModal();
    this.space.focus();
  }

  /** Shows the page of an address; `name` is what its link called it. */
  async show(page, name) {
    const ticket = (this.ticket = {});
    try {
      const answer = await fetch(page, { cache: "no-cache" });
      if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
      const [head, ...blocks] = blocksOf(await answer.text());
      if (ticket !== this.ticket) return;
      say(this.note, "");
      this.take(head, blocks, page);
    } catch (error) {
      if (ticket === this.ticket) say(this.note, text("guides.failed", { name, reason: error.message }));
    }
  }

  /** The first heading is the dialog's. */
  take(head, blocks, page) {
    this.title.replaceChildren(...head.slice(2).map((one) => elementOf(one, page)));
    this.element.setAttribute("aria-label", this.title.textContent);
    this.body.replaceChildren(...blocks.map((one) => elementOf(one, page)));
    this.space.scrollTop = 0;
  }
}

/** The elements of a tree of `blocksOf`. */
function elementOf(tree, page) {
  if (typeof tree === "string") return tree;
  const [tag, attributes, ...children] = tree;
  return make(tag, placed(tag, attributes, page), ...children.map((one) => elementOf(one, page)));
}

function placed(tag, attributes, page) {
  if (tag === "img") {
    const src = leadsTo(attributes.src, page, DOCS);
    return { alt: attributes.alt, decoding: "async", ...(src && { src }) };
  }
  if (tag !== "a") return attributes;
  const href = leadsTo(attributes.href, page, DOCS);
  return href ? { href, target: "_blank", rel: "noopener noreferrer" } : {};
}
