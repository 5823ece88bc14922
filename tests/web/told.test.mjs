import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { recognised, told, useMessages } from "../../web/page/told.mjs?v=0.1.0";

const catalogue = JSON.parse(readFileSync(new URL("../../locales/en/server.json", import.meta.url)));
const TEMPLATES = Object.values(catalogue).flatMap((group) => Object.keys(group));
// Templates of nothing but what stands between two texts match most of what has it.
const SENTENCES = TEMPLATES.filter((one) => /\p{L}/u.test(one));
const PLAIN = ["it's[2].png", "12", "0.75", "\\\\nas\\“a”&b", "{x}"];
const ODD = ["my (old) [cats]/it's 2.png", "1, 2, 3", "C:\\sets\\a & b", "Ünder; das. $&"];

/** A template with values filled in: a different one for each of its placeholders, beginning at `first`. */
function filled(template, samples, first) {
  const values = {};
  const line = template.replace(/\{(\d+)\}/g, (_, number) => (values[number] = samples[(Number(number) + first) % samples.length]));
  return { line, values };
}

function each(samples) {
  useMessages(Object.fromEntries(SENTENCES.map((one) => [one, one])));
  return SENTENCES.flatMap((template) => samples.map((_, first) => ({ template, ...filled(template, samples, first) })));
}

test("a sentence with anything filled in is recognised as itself and as no other", () => {
  const mistaken = each([...PLAIN, ...ODD]).filter(({ template, line }) => recognised(line)?.template !== template);
  assert.deepEqual(mistaken.map(({ template, line }) => [template, recognised(line)?.template]), []);
});

test("what was filled into a sentence is found again", () => {
  const other = each(PLAIN).filter(({ line, values }) => JSON.stringify({ ...recognised(line)?.values }) !== JSON.stringify(values));
  assert.deepEqual(other.map(({ line }) => [line, recognised(line)?.values]), []);
});

const KNOWN = {
  "{0}: the mask holds {1}. Check it.": "{0} : le masque contient {1}. À vérifier.",
  "the file is empty": "le fichier est vide",
  "{0} pictures have no mask": "{0} images sans masque",
  "{0} pictures have no mask: they teach nothing": "{0} images sans masque : rien à apprendre",
  "{0} picture has no mask": "{0} image sans masque",
  "Nothing was written.": "Rien n’a été écrit.",
  "Nothing was written. {0} is a folder.": "Rien : {0} est un dossier.",
  "{0} of {1}": "{0} sur {1}",
  "{0} in {1}": "{0} dans {1}",
  "{1} comes after {0}, and {0} before.": "{0}, puis {1} ({0} avant).",
  "{0}: {1}": "{0} : {1}",
  "{0} ({1})": "{0} ({1})",
};

test("a sentence is given in the page's language with what was filled in, in the order of that language", () => {
  useMessages(KNOWN);
  assert.equal(told("a (1).png: the mask holds $&. Check it."), "a (1).png : le masque contient $&. À vérifier.");
  assert.equal(told("B comes after A, and A before."), "A, puis B (A avant).");
  assert.equal(told("B comes after A, and C before."), "B comes after A, and C before.");
});

test("what is filled in may be a sentence of ours too", () => {
  useMessages(KNOWN);
  assert.equal(told("b.png: the mask holds 3 of 4. Check it."), "b.png : le masque contient 3 sur 4. À vérifier.");
  assert.equal(told("b.png: the file is empty"), "b.png : le fichier est vide");
  assert.equal(told("3 pictures have no mask: they teach nothing: a.png"), "3 images sans masque : rien à apprendre : a.png");
  assert.equal(told("cats: b.png (the file is empty)"), "cats: b.png (le fichier est vide)");
});

test("sentences and lines behind each other are known one by one, and together where they are one entry", () => {
  useMessages(KNOWN);
  assert.equal(told("Nothing was written. 3 pictures have no mask"), "Rien n’a été écrit. 3 images sans masque");
  assert.equal(told("Nothing was written. a.b is a folder. 1 picture has no mask"), "Rien : a.b est un dossier. 1 image sans masque");
  assert.equal(told("  Nothing was written.\nOf another pack.\n1 picture has no mask\n"), "  Rien n’a été écrit.\nOf another pack.\n1 image sans masque\n");
});

test("a name that looks like a short text of ours stays, and so does what nobody knows", () => {
  useMessages(KNOWN);
  for (const one of ["cat in hat.png", "cats: hat (old)", "Of another pack: nothing. Known is none.", "", undefined]) assert.equal(told(one), one);
});

test("without translations everything stays as the server says it", () => {
  useMessages({ "Nothing was written.": "" });
  assert.equal(told("Nothing was written."), "Nothing was written.");
  useMessages();
  assert.equal(told("Nothing was written."), "Nothing was written.");
});

test("Chinese has no blank between sentences", () => {
  useMessages({ "One.": "一。", "Two.": "二。", "{0} is gone.": "{0} 没了。" });
  assert.equal(told("One. Two. a.png is gone."), "一。二。 a.png 没了。");
});

test("a long new text is looked at within a moment, and a known one at once", () => {
  useMessages(Object.fromEntries(TEMPLATES.map((one) => [one, one])));
  const paragraph = SENTENCES.filter((one) => one.length > 100).slice(20, 24).map((one) => filled(one, ODD, 0).line).join(" ");
  const start = performance.now();
  told(paragraph);
  const first = performance.now() - start;
  for (let i = 0; i < 1000; i += 1) told(paragraph);
  const later = (performance.now() - start - first) / 1000;
  assert.ok(first < 3000, `${first} ms`);
  assert.ok(later < 0.05, `${later} ms`);
});
