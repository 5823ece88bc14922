import assert from "node:assert/strict";
import { test } from "node:test";
import { carriesFiles, entriesOf, filesOf, pickedFiles, underOneFolder } from "../../web/folders/given.mjs?v=0.1.0";
import { Sending } from "../../web/folders/sending.mjs?v=0.1.0";
import { faultOfAll, freeName, searched, sortOut } from "../../web/folders/sorting.mjs?v=0.1.0";
import "./english.mjs?v=0.1.0";

const terms = {
  takes: { ".png": 100, ".jpg": 100, ".txt": 10, ".mask": 100 },
  takes_names: { "metadata.jsonl": 50 },
  most_files: 4,
  room: 250,
};
const given = (path, size = 5) => ({ path, file: { size } });

test("pictures, masks and captions are sent, and what else was dropped is named with the reason", () => {
  const files = ["a.PNG", "masks/a.png", "a.txt", "metadata.jsonl", "a.exe", "x.jsonl", "png", ".png"].map((path) => given(path));
  const { taken, bytes, refused } = sortOut([...files, given("big.jpg", 101), given("long.txt", 11), given("none.jpg", 0)], terms);
  assert.deepEqual(taken.map(({ path }) => path), ["a.PNG", "masks/a.png", "a.txt", "metadata.jsonl"]);
  assert.equal(bytes, 20);
  assert.deepEqual(refused.map(({ path, reason, most }) => [path, reason, most]), [
    ["a.exe", "kind", 0], ["x.jsonl", "kind", 0], ["png", "kind", 0],
    ["big.jpg", "size", 100], ["long.txt", "size", 10], ["none.jpg", "empty", 100],
  ]);
});

test("hidden files are neither sent nor spoken of, and an empty caption is one", () => {
  const { taken, refused } = sortOut([".DS_Store", "masks/.a.png", ".git/x.png", "Thumbs.db", "__MACOSX/a.png"].map((path) => given(path)), terms);
  assert.deepEqual([taken, refused], [[], []]);
  assert.equal(sortOut([given("a.txt", 0)], terms).taken.length, 1);
});

test("what is too much in all is said before anything is sent", () => {
  const many = (count, size) => sortOut(Array.from({ length: count }, (_, i) => given(`${i}.png`, size)), terms);
  assert.equal(faultOfAll(many(4, 50), terms), null);
  assert.equal(faultOfAll(many(5, 1), terms), "many");
  assert.equal(faultOfAll(many(3, 100), terms), "room");
  assert.equal(faultOfAll(many(0), terms), "none");
});

test("a folder's name is that of the new one, and its files lie in it", () => {
  const one = underOneFolder([given("cats/a.png"), given("cats/masks/a.png")]);
  assert.deepEqual([one.name, one.files.map(({ path }) => path)], ["cats", ["a.png", "masks/a.png"]]);
  for (const paths of [["a.png", "masks/a.png"], ["images/a.png", "masks/a.png"], ["cats/a.png", "b.png"], []]) {
    const loose = underOneFolder(paths.map((path) => given(path)));
    assert.deepEqual([loose.name, loose.files.map(({ path }) => path)], ["", paths]);
  }
});

test("a new folder takes no name that is there", () => {
  const folders = [{ name: "Cats" }, { name: "cats 2" }];
  assert.equal(freeName("cats", folders), "cats 3");
  assert.equal(freeName("dogs", folders), "dogs");
});

test("a search finds folders by every word of it, in any case", () => {
  const folders = [{ name: "people/Anna", shown: "people/Anna" }, { name: "/data/anna", shown: "anna" }, { name: "cats", shown: "cats" }];
  const names = (words) => searched(folders, words).map(({ name }) => name);
  assert.deepEqual(names(" ANNA peo"), ["people/Anna"]);
  assert.deepEqual(names("anna"), ["people/Anna", "/data/anna"]);
  assert.deepEqual(names(""), folders.map(({ name }) => name));
});

/** Entries as browsers give them for a dropped folder: some at a time. */
function directory(name, ...children) {
  const createReader = () => {
    const left = [...children];
    return { readEntries: (done) => done(left.splice(0, 2)) };
  };
  return { name, isDirectory: true, createReader };
}
const entry = (name) => ({ name, isDirectory: false, file: (done) => done({ name }) });

test("a dropped folder is read to its end, with the folders in it", async () => {
  const many = Array.from({ length: 5 }, (_, i) => entry(`${i}.png`));
  const found = await filesOf([directory("cats", ...many, directory("masks", entry("0.png"))), new File([], "loose.png")], 100);
  const paths = found.map(({ path }) => path);
  assert.deepEqual(paths.toSorted(), [...many.map(({ name }) => `cats/${name}`), "cats/masks/0.png", "loose.png"].toSorted());
  assert.equal((await filesOf([directory("cats", ...many)], 3)).length, 4);
  const broken = { name: "x", isDirectory: true, createReader: () => ({ readEntries: (_, fail) => fail(new Error("gone")) }) };
  await assert.rejects(filesOf([broken], 9), /gone/);
});

test("a drop gives its files and folders, and nothing for a text", () => {
  const file = new File([], "a.png");
  const items = [{ kind: "string" }, { kind: "file", webkitGetAsEntry: () => entry("b.png") }, { kind: "file", webkitGetAsEntry: () => null, getAsFile: () => file }];
  assert.deepEqual(entriesOf({ items }).map(({ name }) => name), ["b.png", "a.png"]);
  assert.deepEqual([carriesFiles({ items }), carriesFiles({ items: [{ kind: "string" }] }), carriesFiles(null)], [true, false, false]);
  const picked = pickedFiles([{ name: "a.png", webkitRelativePath: "cats/a.png" }, { name: "b.png", webkitRelativePath: "" }]);
  assert.deepEqual(picked.map(({ path }) => path), ["cats/a.png", "b.png"]);
});

/** A server that answers by what `answers` says for a path, and keeps what it was asked. */
function server(answers) {
  const asked = [];
  const fetchApi = async (route, { method = "GET", body, signal } = {}) => {
    const path = new URLSearchParams(route.split("?")[1]).get("path") ?? route.split("/folders")[1];
    asked.push([method, path, body]);
    const { status = 200, ...content } = await answers(path, signal);
    return { ok: status < 400, status, statusText: "", json: async () => content };
  };
  return { fetchApi, asked };
}
const files = ["a.png", "masks/b&ä.png", "c.txt"].map((path) => given(path));

test("files are announced and come one by one, and what is refused is told in the server's words", async () => {
  const api = server((path) => (path === "" ? { id: "x", name: "cats" } : path === "c.txt" ? { status: 409, error: "is there" } : { name: path }));
  const seen = [];
  const sending = new Sending(api, files, () => seen.push(sending.done));
  await sending.begin("cats", false);
  await sending.send();
  assert.deepEqual(JSON.parse(api.asked[0][2]), { name: "cats", files: 3, bytes: 15, add: false });
  assert.deepEqual(api.asked.slice(1).map(([, path]) => path), files.map(({ path }) => path));
  assert.deepEqual(sending.kept.map(({ name }) => name), ["a.png", "masks/b&ä.png"]);
  assert.deepEqual(sending.failed, [{ path: "c.txt", reason: "c.txt: is there", taken: true }]);
  assert.deepEqual(seen, [1, 2, 3]);
});

test("a folder that is there is told by its status", async () => {
  const sending = new Sending(server(() => ({ status: 409, error: "cats is there" })), files, () => {});
  await assert.rejects(sending.begin("cats", false), ({ message, status }) => message === "cats is there" && status === 409);
});

test("a stop sends no more, and what is on its way is given up", async () => {
  let hung = 0;
  const hang = (signal) => new Promise((_, fail) => { hung += 1; signal.addEventListener("abort", () => fail(new Error("aborted"))); });
  const api = server((path, signal) => (path === "0.png" ? { name: path } : hang(signal)));
  const sending = new Sending(api, Array.from({ length: 9 }, (_, i) => given(`${i}.png`)), () => {});
  const sent = sending.send();
  await new Promise((done) => setTimeout(done, 20));
  sending.cancel();
  await sent;
  assert.deepEqual([sending.kept.length, sending.failed.length, sending.cancelled, hung], [1, 0, true, 3]);
});

test("a full disk ends it, for no later file would fit", async () => {
  const api = server(() => ({ status: 507, error: "full" }));
  const sending = new Sending(api, Array.from({ length: 20 }, (_, i) => given(`${i}.png`)), () => {});
  await sending.send();
  assert.ok(api.asked.length <= 3 && sending.failed[0].reason === "0.png: full");
});
