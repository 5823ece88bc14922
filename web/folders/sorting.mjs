// Which files are sent and which are not, and the search in the list of folders. Pure.
const HIDDEN = /(^|\/)(\.|thumbs\.db$|desktop\.ini$|__macosx\/|@eadir\/)/i;

/**
 * What is sent of some files, and why the others are not.
 * @param {{path: string, file: {size: number}}[]} files
 * @param terms what the server takes: `takes` and `takes_names`, bytes by ending and by name.
 * @returns {{taken: object[], bytes: number, refused: {path: string, reason: "kind" | "size" | "empty", most: number}[]}}
 *   Hidden files and those of systems are in neither: nobody has chosen them.
 */
export function sortOut(files, terms) {
  const taken = [], refused = [];
  let bytes = 0;
  for (const one of files) {
    if (HIDDEN.test(one.path)) continue;
    const most = mostBytes(one.path, terms);
    const { size } = one.file;
    const reason = !most ? "kind" : size > most ? "size" : !size && !isText(one.path) ? "empty" : null;
    if (reason) {
      refused.push({ path: one.path, reason, most });
      continue;
    }
    taken.push(one);
    bytes += size;
  }
  return { taken, bytes, refused };
}

function mostBytes(path, { takes, takes_names: names }) {
  const name = path.split("/").at(-1).toLowerCase();
  const at = name.lastIndexOf(".");
  return names[name] ?? (at > 0 ? takes[name.slice(at)] ?? 0 : 0);
}

function isText(path) {
  return /\.(txt|captions?|cap|tags|text|prompt|jsonl)$/i.test(path);
}

/** What is wrong with all files together: "many", "room", "none", or null. */
export function faultOfAll({ taken, bytes }, { most_files: most, room }) {
  if (!taken.length) return "none";
  if (taken.length > most) return "many";
  return bytes > room ? "room" : null;
}

/** The folders whose names hold every word of a search. */
export function searched(folders, words) {
  const wanted = words.trim().toLocaleLowerCase().split(/\s+/).filter(Boolean);
  return folders.filter(({ name, shown }) => wanted.every((word) => `${shown} ${name}`.toLocaleLowerCase().includes(word)));
}

/** A name for a new folder that none of the folders has: the wished one, else with a number. */
export function freeName(wished, folders) {
  const taken = new Set(folders.map(({ name }) => name.toLowerCase()));
  for (let number = 1; ; number += 1) {
    const name = number === 1 ? wished : `${wished} ${number}`;
    if (!taken.has(name.toLowerCase())) return name;
  }
}
