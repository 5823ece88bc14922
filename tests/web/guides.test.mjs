import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { blocksOf } from "../../web/guides/markdown.mjs?v=0.1.0";
import { leadsTo, pageAt } from "../../web/guides/places.mjs?v=0.1.0";

const FOLDER = new URL("../../web/docs/", import.meta.url);
const DOCS = "http://127.0.0.1:8188/extensions/masked-lora/docs/";

const words = (tree) => (typeof tree === "string" ? tree : tree.slice(2).map(words).join(""));
const tags = (tree) => (typeof tree === "string" ? [] : [tree[0], ...tree.slice(2).flatMap(tags)]);

test("a page's blocks become elements", () => {
  const page = "# A\n\nOne *two* **three `*four*`**\nfive\n\n- six\n  seven\n- eight\n\n1. nine\n\n| a | `b` |\n|---|:-:|\n| c | d \\| e |\n\n```json\n{ \"x\": 1 }\n\n# y\n```\n";
  assert.deepEqual(blocksOf(page), [
    ["h1", {}, "A"],
    ["p", {}, "One ", ["em", {}, "two"], " ", ["strong", {}, "three ", ["code", {}, "*four*"]], " five"],
    ["ul", {}, ["li", {}, "six seven"], ["li", {}, "eight"]],
    ["ol", {}, ["li", {}, "nine"]],
    [
      "table", {},
      ["thead", {}, ["tr", {}, ["th", {}, "a"], ["th", {}, ["code", {}, "b"]]]],
      ["tbody", {}, ["tr", {}, ["td", {}, "c"], ["td", {}, "d | e"]]],
    ],
    ["pre", {}, ["code", {}, '{ "x": 1 }\n\n# y']],
  ]);
});

test("links and pictures keep their words", () => {
  assert.deepEqual(blocksOf("See [*Masks*](a.md), ![a picture](images/a.webp)."), [
    ["p", {}, "See ", ["a", { href: "a.md" }, ["em", {}, "Masks"]], ", ", ["img", { src: "images/a.webp", alt: "a picture" }], "."],
  ]);
});

test("markup in a page is words, and a lone sign is itself", () => {
  for (const page of ["<img src=x onerror=alert(1)>", "a <b>c</b> 2 * 3 * 4", "| not a table", "**", "a \\* b"]) {
    assert.equal(blocksOf(page).map(words).join(""), page.replace("\\*", "*"));
    assert.deepEqual(blocksOf(page).flatMap(tags), ["p"]);
  }
});

test("no page of ours shows a sign of Markdown outside of code", () => {
  const signs = /\]\(|\*\*|(?<!\w)\*\w|`|^#+ |^\|/;
  const plain = (tree) => (typeof tree === "string" ? [tree] : tree[0] === "code" ? [] : tree.slice(2).flatMap(plain));
  const pages = readdirSync(FOLDER, { recursive: true }).filter((name) => name.endsWith(".md"));
  assert.ok(pages.length > 80);
  for (const name of pages) {
    const blocks = blocksOf(readFileSync(new URL(name.replaceAll("\\", "/"), FOLDER), "utf8"));
    assert.equal(blocks[0][0], "h1", name);
    assert.deepEqual(blocks.flatMap(plain).filter((one) => signs.test(one)), [], name);
  }
});

test("a page is found wherever the pack's folder lies, and nothing else is", () => {
  assert.equal(pageAt(`${DOCS}fr/mask-editor.md`, DOCS), `${DOCS}fr/mask-editor.md`);
  const elsewhere = "http://127.0.0.1:8188/sub/extensions/ComfyUI-Masked-LoRA/docs/";
  assert.equal(pageAt(`${DOCS}masks-that-work.md`, elsewhere), `${elsewhere}masks-that-work.md`);
  for (const href of [`${DOCS}images/demo.webp`, "http://127.0.0.1:8188/extensions/other/docs/a.md", `${DOCS.replace("127.0.0.1", "example.org")}a.md`, "javascript:alert(1)//docs/a.md"]) {
    assert.equal(pageAt(href, DOCS), null, href);
  }
});

test("a page's pictures and links lead where ComfyUI's help panel finds them", () => {
  assert.equal(leadsTo("../images/a.webp", `${DOCS}fr/mask-editor.md`, DOCS), `${DOCS}images/a.webp`);
  assert.equal(leadsTo("images/a.webp", `${DOCS}MLT_Adapter/fr.md`, DOCS), `${DOCS}images/a.webp`);
  assert.equal(leadsTo("/extensions/masked-lora/docs/MLT_Adapter.md", `${DOCS}a.md`, DOCS), `${DOCS}MLT_Adapter.md`);
  assert.equal(leadsTo("https://example.org/x", `${DOCS}a.md`, DOCS), "https://example.org/x");
  assert.equal(leadsTo("javascript:alert(1)", `${DOCS}a.md`, DOCS), null);
});
