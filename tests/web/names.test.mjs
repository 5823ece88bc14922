import assert from "node:assert/strict";
import { test } from "node:test";
import { Names } from "../../web/page/names.mjs?v=0.1.0";
import { told, useMessages } from "../../web/page/told.mjs?v=0.1.0";

const node = (name, inputs) => ({
  display_name: name, inputs: Object.fromEntries(Object.entries(inputs).map(([id, called]) => [id, { name: called }])),
});
const ENGLISH = {
  MLT_LoadDataset: node("Load Dataset (masked LoRA)", { folder: "folder", mask_folder: "mask_folder", alpha: "alpha" }),
  MLT_Masks: node("Masks (masked LoRA)", { crop: "crop", mask_type: "mask_type" }),
  MLT_TextMasks: node("Text Masks (masked LoRA)", {}),
  Other_Node: node("Other Node", { other_widget: "other_widget" }),
};
const FRENCH = {
  MLT_LoadDataset: node("Charger des Masks (LoRA masqué)", { folder: "dossier", mask_folder: "dossier des masques", alpha: "alpha" }),
  MLT_Masks: node("Masques (LoRA masqué)", { crop: "recadrage", mask_type: "type" }),
  MLT_TextMasks: node("Masques par texte（LoRA masqué）", {}),
  Other_Node: node("Autre nœud", { other_widget: "autre" }),
};

function speak(messages) {
  useMessages(messages, new Names(ENGLISH, FRENCH, messages["{0} ({1})"]));
}

test("nodes are called as on the page, whole names only, and no name is replaced in another", () => {
  speak({
    "Set it in Load Dataset or Text Masks. Masks of {0} too.": "À régler dans Load Dataset ou Text Masks. Masks de {0} aussi.",
    "Gone from Other Node.": "Disparu de Other Node.", "All have weight.": "Masks.",
  });
  assert.equal(told("Set it in Load Dataset or Text Masks. Masks of a.png too."), "À régler dans Charger des Masks ou Masques par texte. Masques de a.png aussi.");
  assert.equal(told("Gone from Other Node."), "Disparu de Other Node.");
  // A word of the translation that only looks like a name.
  assert.equal(told("All have weight."), "Masks.");
});

test("widgets stand with their id, at the beginning, with an underscore, and in quotes", () => {
  speak({
    "folder, crop: expected one, set mask_folder to {0} and crop too.": "folder, crop : un seul, réglez mask_folder sur {0} et « crop » aussi, pas crop.",
    "alpha: {0} is wrong.": "alpha : {0} est faux.",
    "{0}: expected {1}, got {2}.": "{0} : {1} attendu, reçu {2}.", "{0}: {1}": "{0} : {1}", "Gone.": "Disparu.",
  });
  assert.equal(
    told("folder, crop: expected one, set mask_folder to x and crop too."),
    "dossier (folder), recadrage (crop) : un seul, réglez dossier des masques (mask_folder) sur x et « recadrage (crop) » aussi, pas crop.",
  );
  assert.equal(told("alpha: 3 is wrong."), "alpha : 3 est faux.");
  assert.equal(told("crop: Gone."), "recadrage (crop) : Disparu.");
  assert.equal(told("cats: Gone."), "cats : Disparu.");
  assert.equal(told("crop: expected 1, got mask_type hard, crop 3."), "recadrage (crop) : 1 attendu, reçu type (mask_type) hard, crop 3.");
});

test("names of files and folders stay, whatever they look like", () => {
  speak({
    "{0}: the folder cannot be read.": "{0} : le dossier ne peut pas être lu.", "Wrote {0} beside {1}": "Écrit : {0} près de {1}",
    "Use mask_folder/{0} in <mask_type>.": "Utilisez mask_folder/{0} dans <mask_type>.",
  });
  assert.equal(told("folder: the folder cannot be read."), "folder : le dossier ne peut pas être lu.");
  assert.equal(told("Wrote /out/Load Dataset/mask_folder.png beside mask_type.txt"), "Écrit : /out/Load Dataset/mask_folder.png près de mask_type.txt");
  assert.equal(told("Use mask_folder/a in <mask_type>."), "Utilisez mask_folder/a dans <mask_type>.");
});

test("a node or settings that are filled in have their names too, and Chinese its own brackets", () => {
  speak({ "{0}: nothing was found under {1} here.": "{0}：在 {1} 下没有找到。", "{0} ({1})": "{0}（{1}）" });
  assert.equal(told("Text Masks: nothing was found under mask_type hard here."), "Masques par texte：在 type（mask_type） hard 下没有找到。");
});

test("without names everything stays as it was translated", () => {
  useMessages({ "folder: set mask_folder in Load Dataset.": "folder : réglez mask_folder dans Load Dataset." });
  assert.equal(told("folder: set mask_folder in Load Dataset."), "folder : réglez mask_folder dans Load Dataset.");
});

test("a text beside a number of ours is read, and a name that has one is not", () => {
  useMessages({ "Nothing was written.": "Rien.", "{0} and {1} more": "{0} et {1} de plus", "{0} (keeps {1})": "{0} (en garde {1})", "{0} from {1}": "{0} de {1}" });
  assert.equal(told("a.png and 4 more"), "a.png et 4 de plus");
  assert.equal(told("a (1).png (keeps 12%)"), "a (1).png (en garde 12%)");
  for (const name of ["cats from 2024", "cats and dogs more", "box (keeps all)"]) assert.equal(told(name), name);
});
