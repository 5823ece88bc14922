// What the server says, which is always English, in the page's language: by the templates of locales/<language>/server.json.
// What is filled into a sentence may be a sentence of ours again, and several stand behind each other. Of all ways to
// read a text the one counts that knows most of its letters.

import { Names } from "./names.mjs?v=0.1.0";

// A text with fewer letters of its own, such as "{0} in {1}", could be a name by chance; no name has a colon and a blank.
const FEW_LETTERS = 8;
const MOST_REMEMBERED = 4000;
// Of one entry of the catalogue, and of a text that is looked at.
const MOST_TOGETHER = 5, MOST_SENTENCES = 40;
// Of templates that a text fits.
const MOST_TRIED = 6;
// Of this length on a text is no name, number or phrase; then only what puts texts together is looked for.
const LONG = 240;
const PLACEHOLDER = /\{(\d+)\}/;
const NUMBERS = /^[\d\s.,:×%–−+-]*(?: [KMGT]i?B)?$/;
// In "a.png (keeps 12%)" and "a.png and 4 more" a number with our words around it says that it is no name, if there are as many.
const NUMBER = /^\d+%?$/, FEWEST_LETTERS = 4;
const LETTER = /\p{L}/gu, WORD = /[\p{L}\p{N}]+/gu;
// Where the server puts sentences behind each other, and where Chinese needs no blank between them.
const BETWEEN = /(?<=[.!?…)]) (?=\S)/;
const FULL_STOP = /[。！？…]$/, LATIN = /^[\p{Script=Latin}\d]/u;

// Templates with placeholders by whether their own words leave no doubt, and those without placeholders.
let strong = null, weak = null, joins = null;
let whole = new Map();
let remembered = new Map();
let called = new Names();

/** The server's sentences in a language, as `useMessages` takes them; none for English and where there are none. */
export async function readMessages(api, language) {
  if (language === "en") return {};
  const answer = await api.fetchApi(`/masked_lora/messages/${encodeURIComponent(language)}`).catch(() => null);
  return answer?.ok ? answer.json().catch(() => ({})) : {};
}

/** The text that puts a name and what stands behind it in brackets together, in the language of `messages`. */
export const bracketed = (messages) => messages["{0} ({1})"] || "{0} ({1})";

/** Takes over the sentences of a language: {English template: translation}, none for English; and what is called how. */
export function useMessages(messages = {}, names = new Names()) {
  called = names;
  const all = Object.entries(messages).filter(([, translation]) => translation).map((pair) => new Template(...pair));
  whole = new Map(all.filter((one) => !one.holes.length).map((one) => [one.template, one]));
  const open = all.filter((one) => one.holes.length).sort((a, b) => b.length - a.length || b.holes.length - a.holes.length);
  strong = new Index(open.filter((one) => !one.weak));
  weak = new Index(open.filter((one) => one.weak));
  joins = new Index(open.filter((one) => !one.letters));
  remembered = new Map();
}

/** A text of the server's in the page's language, as far as it is known; anything else as it is. */
export function told(line) {
  return typeof line === "string" && line && (strong?.size || whole.size) ? read(line).words : line;
}

/** The template that a text is an example of, and what is filled in; null for none. */
export function recognised(line) {
  if (whole.has(line)) return { template: line, values: {} };
  const [found] = [...strong.fits(line), ...weak.fits(line)].sort((a, b) => b.template.length - a.template.length);
  return found ? { template: found.template.template, values: found.values } : null;
}

/** Templates by the rarest of their words, so that few are looked at for a text. */
class Index {
  constructor(templates) {
    this.size = templates.length;
    const often = new Map();
    for (const word of templates.flatMap((one) => one.words)) often.set(word, (often.get(word) ?? 0) + 1);
    this.byWord = new Map();
    for (const one of templates) {
      const [rarest = ""] = one.words.sort((a, b) => often.get(a) - often.get(b));
      if (!this.byWord.has(rarest)) this.byWord.set(rarest, []);
      this.byWord.get(rarest).push(one);
    }
  }

  /** The templates that a text is an example of, with the values, the wordiest first; `last` as in `values`. */
  fits(line, last = false) {
    const words = new Set(["", ...(line.match(WORD) ?? [])]);
    const asked = [...words].flatMap((word) => this.byWord.get(word) ?? []);
    return asked.map((template) => ({ template, values: template.values(line, { last }) })).filter(({ values }) => values)
      .sort((a, b) => b.template.length - a.template.length);
  }
}

class Template {
  constructor(template, translation) {
    this.template = template;
    this.translation = called.within(template, translation);
    const parts = template.split(PLACEHOLDER);
    this.literals = parts.filter((_, i) => i % 2 === 0);
    this.holes = parts.filter((_, i) => i % 2 === 1);
    this.length = this.literals.join("").length;
    this.letters = letters(this.literals.join(""));
    // Those that a value beside them cannot make longer.
    this.words = [...new Set(template.replace(/[\p{L}\p{N}]*\{\d+\}[\p{L}\p{N}]*/gu, " ").match(WORD) ?? [])];
    this.backwards = false;
    this.repeats = new Set(this.holes).size < this.holes.length;
    this.longest = this.literals.reduce((longest, one) => (one.length > longest.length ? one : longest), "");
  }

  /** Whether a name could be an example of this by chance. */
  get weak() {
    const says = this.letters && this.literals.some((one) => one.includes(": "));
    return this.letters < FEW_LETTERS && !says;
  }

  /** What `line` fills in, by placeholder; null if it is no example. `last`: what is between lies as far behind as it can. */
  values(line, { last: fromBehind = false } = {}) {
    const [first] = this.literals, last = this.literals.at(-1);
    if (line.length < this.length || !line.includes(this.longest) || !line.startsWith(first) || !line.endsWith(last)) return null;
    this.backwards = fromBehind;
    return this.fill(line, 0, first.length, {});
  }

  /** The values from hole `i` on, which begins at `from`, beside those that are known. */
  fill(line, i, from, values) {
    const hole = this.holes[i], end = line.length - this.literals.at(-1).length;
    if (i === this.holes.length - 1) {
      const value = from <= end ? line.slice(from, end) : null;
      return value === null || (values[hole] ?? value) !== value ? null : { ...values, [hole]: value };
    }
    const literal = this.literals[i + 1];
    for (const at of this.places(line, literal, from, end)) {
      const value = line.slice(from, at);
      if ((values[hole] ?? value) !== value) continue;
      const found = this.fill(line, i + 1, at + literal.length, { ...values, [hole]: value });
      if (found) return found;
    }
    return null;
  }

  /** Where the next literal may lie, the likeliest first: only where a value comes again, others than the first help. */
  *places(line, literal, from, end) {
    // Names hold brackets; what is said of them in brackets stands behind.
    const backwards = this.backwards || literal.startsWith(" (");
    let at = backwards ? line.lastIndexOf(literal, end - literal.length) : line.indexOf(literal, from);
    while (at >= from && at + literal.length <= end) {
      yield at;
      if (!backwards && !this.repeats) return;
      at = backwards ? (at ? line.lastIndexOf(literal, at - 1) : -1) : line.indexOf(literal, at + 1);
    }
  }

  /** Whether one of the values is a number and stands between words of this. */
  counts(values) {
    return this.letters >= FEWEST_LETTERS && this.holes.some((hole, i) => NUMBER.test(values[hole]) && this.literals[i + 1].trim());
  }

  /** How an example of this reads with its values; null if it may be one by chance. */
  read(values) {
    const given = Object.entries(values).map(([hole, value]) => [hole, value, read(value)]);
    const known = sum(given.map(([, , said]) => said));
    if (this.weak && !known && !this.counts(values) && !given.every(([, value]) => NUMBERS.test(value))) return null;
    const [first, behind] = this.literals;
    const said = Object.fromEntries(given.map(([hole, value, { words, known: ours }], i) =>
      [hole, ours ? words : called.filled(value, { first: !i && !first, behind })]));
    const words = this.translation.replace(/\{(\d+)\}/g, (all, hole) => said[hole] ?? all);
    return { words, known: known + this.letters };
  }
}

function letters(text) {
  return (text.match(LETTER) ?? []).length;
}

/** {words, known}: the text in the page's language, and how many of its letters are ours. */
function read(line) {
  let found = remembered.get(line);
  if (!found) {
    found = letters(line) ? best(line) : { words: line, known: 0 };
    if (remembered.size >= MOST_REMEMBERED) remembered.clear();
    remembered.set(line, found);
  }
  return found;
}

function best(line) {
  const sure = entry(line);
  if (sure?.exact) return sure;
  // Where both know as much, sentences behind each other are no value of the last one.
  const ways = [...split(line), sure, likeliest(sure || line.length >= LONG ? joins : weak, line)];
  const inner = line.trim();
  if (inner && inner !== line) {
    const said = read(inner);
    ways.push({ words: line.replace(inner, () => said.words), known: said.known });
  }
  return most(line, ways);
}

/** A text that is one entry of the catalogue, whose own words leave no doubt; null for others. */
function entry(line) {
  const exact = whole.get(line);
  if (exact) return { words: exact.translation, known: exact.letters, exact: true };
  const found = likeliest(strong, line);
  return found.known ? found : null;
}

/** The best reading by a few templates: those whose values are the fewest sentences, of these the wordiest. */
function likeliest(templates, line) {
  const breaks = (values) => Object.values(values).join("\n").split(BETWEEN).length;
  // "1 mask is black: it teaches nothing: a.png" is put together at its second colon.
  const all = templates === strong ? templates.fits(line) : [...templates.fits(line), ...joins.fits(line, true)];
  const fits = all.map((one) => ({ ...one, breaks: breaks(one.values) }));
  fits.sort((a, b) => a.breaks - b.breaks);
  return most(line, fits.slice(0, MOST_TRIED).map(({ template, values }) => template.read(values)));
}

/** The reading that knows most; the text as it is where none knows anything. */
function most(line, ways) {
  return ways.reduce((best, one) => (one && one.known > best.known ? one : best), { words: line, known: 0 });
}

/** The readings of a text as several lines, or as several sentences behind each other. */
function split(line) {
  if (line.includes("\n")) {
    const lines = line.split("\n").map(read);
    return [{ words: lines.map(({ words }) => words).join("\n"), known: sum(lines) }];
  }
  const parts = line.split(BETWEEN);
  if (parts.length < 2 || parts.length > MOST_SENTENCES) return [];
  // From the end: of each rest the best reading, whose first sentences are one entry, or one alone.
  const rests = Array(parts.length + 1).fill({ words: "", known: 0 });
  for (let from = parts.length - 1; from >= 0; from -= 1) {
    rests[from] = behind(read(parts[from]), rests[from + 1]);
    for (let to = from + 2; to <= Math.min(parts.length, from + MOST_TOGETHER); to += 1) {
      const first = to - from < parts.length ? entry(parts.slice(from, to).join(" ")) : null;
      if (first && first.known + rests[to].known > rests[from].known) rests[from] = behind(first, rests[to]);
    }
  }
  return [rests[0]];
}

function behind(first, rest) {
  return { words: joined(first.words, rest.words), known: first.known + rest.known };
}

function sum(readings) {
  return readings.reduce((all, one) => all + one.known, 0);
}

function joined(first, rest) {
  if (!rest) return first;
  return FULL_STOP.test(first) && !LATIN.test(rest) ? first + rest : `${first} ${rest}`;
}
