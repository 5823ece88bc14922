// What a person drops or picks, as files with names below one folder.

/** Whether a drag or a paste carries files. */
export function carriesFiles(transfer) {
  return [...(transfer?.items ?? [])].some((item) => item.kind === "file");
}

/** The files and folders of a drop; to be taken while its event is handled, later they are gone. */
export function entriesOf(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  return items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile()).filter(Boolean);
}

/**
 * Every file of a drop, folders looked into: [{path, file}].
 * @param entries from `entriesOf`. @param most how many at most; a whole disk is easily dropped.
 */
export async function filesOf(entries, most) {
  const found = [];
  const pending = entries.map((entry) => ["", entry]);
  while (pending.length && found.length <= most) {
    const [folder, entry] = pending.shift();
    const path = folder + entry.name;
    if (entry.isDirectory) pending.push(...(await inside(entry)).map((one) => [`${path}/`, one]));
    else found.push({ path, file: entry instanceof File ? entry : await new Promise((done, fail) => entry.file(done, fail)) });
  }
  return found;
}

/** What was picked in an <input type="file">, with the folders of one that picks folders. */
export function pickedFiles(list) {
  return [...list].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/**
 * Files below one folder, and the name that it has had: where all lie in one folder, that is the one.
 * @returns {{name: string, files: {path: string, file: File}[]}}
 */
export function underOneFolder(files) {
  const [first = ""] = files.map(({ path }) => path.split("/")[0]);
  const isOne = files.length > 0 && files.every(({ path }) => path.startsWith(`${first}/`));
  if (!isOne) return { name: "", files };
  return { name: first, files: files.map(({ path, file }) => ({ path: path.slice(first.length + 1), file })) };
}

async function inside(entry) {
  const reader = entry.createReader();
  const found = [];
  // It gives some at a time, and none at the end.
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return found;
    found.push(...some);
  }
}
