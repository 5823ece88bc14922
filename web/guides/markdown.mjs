// The Markdown of our own pages as a tree of elements: what they use of it, and everything else as plain words.
const FENCE = /^```/;
const HEADING = /^(#{1,6}) +(.+)$/;
const ITEM = /^(?:[-*]|(\d+)\.) +(.+)$/;
const RULE = /^\|[\s:|-]+\|$/;
const STARTS = [FENCE, HEADING, ITEM, /^\|/];
// Code, picture, link, strong, emphasis, and a sign that is meant as it stands; code first, which holds all others.
const INLINE = new RegExp(
  [
    String.raw`(?<ticks>\`+)(?<code>.+?)\k<ticks>(?!\`)`,
    String.raw`!\[(?<alt>[^\]]*)\]\((?<source>[^)\s]+)\)`,
    String.raw`\[(?<words>[^\[\]]+)\]\((?<target>[^)\s]+)\)`,
    String.raw`\*\*(?<strong>.+?)\*\*`,
    String.raw`\*(?![\s*])(?<em>[^*]+?)\*`,
    String.raw`\\(?<sign>[\\\`*_|<>#[\]-])`,
  ].join("|"),
);

/**
 * The blocks of a page: trees [tag, attributes, ...children] with strings as leaves, for `elementsOf`.
 * Nothing in the text becomes markup: its `<` is a sign like any other.
 */
export function blocksOf(markdown) {
  const lines = markdown.replaceAll("\r\n", "\n").split("\n");
  const blocks = [];
  while (lines.length) {
    if (!lines[0].trim()) lines.shift();
    else blocks.push(blockOf(lines));
  }
  return blocks;
}

/** Takes the lines of the next block away. */
function blockOf(lines) {
  if (FENCE.test(lines[0])) return fenceOf(lines);
  const heading = HEADING.exec(lines[0]);
  if (heading) {
    lines.shift();
    return [`h${heading[1].length}`, {}, ...inline(heading[2])];
  }
  if (ITEM.test(lines[0])) return listOf(lines);
  if (lines[0].startsWith("|") && RULE.test(lines[1]?.trim() ?? "")) return tableOf(lines);
  const words = [lines.shift()];
  while (lines[0]?.trim() && !STARTS.some((one) => one.test(lines[0]))) words.push(lines.shift());
  return ["p", {}, ...inline(words.join(" "))];
}

function fenceOf(lines) {
  lines.shift();
  const code = [];
  while (lines.length && !FENCE.test(lines[0])) code.push(lines.shift());
  lines.shift();
  return ["pre", {}, ["code", {}, code.join("\n")]];
}

function listOf(lines) {
  const tag = ITEM.exec(lines[0])[1] ? "ol" : "ul";
  const items = [];
  for (let found = ITEM.exec(lines[0]); found && Boolean(found[1]) === (tag === "ol"); found = ITEM.exec(lines[0] ?? "")) {
    lines.shift();
    const words = [found[2]];
    while (/^\s+\S/.test(lines[0] ?? "")) words.push(lines.shift().trim());
    items.push(["li", {}, ...inline(words.join(" "))]);
  }
  return [tag, {}, ...items];
}

function tableOf(lines) {
  const head = cellsOf(lines.shift());
  lines.shift();
  const rows = [];
  while (lines[0]?.startsWith("|")) rows.push(cellsOf(lines.shift()));
  const row = (tag, cells) => ["tr", {}, ...cells.map((words) => [tag, {}, ...inline(words)])];
  return ["table", {}, ["thead", {}, row("th", head)], ["tbody", {}, ...rows.map((cells) => row("td", cells))]];
}

/** The cells of a row; a bar after a backslash is a sign. */
function cellsOf(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split(/(?<!\\)\|/).map((words) => words.trim().replaceAll("\\|", "|"));
}

function inline(words) {
  const found = INLINE.exec(words);
  if (!found) return words ? [words] : [];
  const before = words.slice(0, found.index), after = words.slice(found.index + found[0].length);
  return [...(before ? [before] : []), piece(found.groups), ...inline(after)];
}

function piece({ code, alt, source, words, target, strong, em, sign }) {
  if (code !== undefined) return ["code", {}, code];
  if (source !== undefined) return ["img", { src: source, alt }];
  if (target !== undefined) return ["a", { href: target }, ...inline(words)];
  if (strong !== undefined) return ["strong", {}, ...inline(strong)];
  if (em !== undefined) return ["em", {}, ...inline(em)];
  return sign;
}
