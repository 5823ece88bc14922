// The tags of captions as a list and as a filter, and what a change does to a text. Pure functions.

export const ORDERS = ["count", "name"];
export const WITH = "with", WITHOUT = "without";
const NEXT = { [WITH]: WITHOUT, [WITHOUT]: null };
const names = new Intl.Collator(undefined, { numeric: true });

/** What a click on a tag makes of its state: with it, without it, whatever it has (null). */
export function nextState(state) {
  return state in NEXT ? NEXT[state] : WITH;
}

/**
 * The positions of the tags to list, in order.
 * @param {{names: string[]}} table as the server gives it, the most frequent first.
 */
export function listed(table, { search = "", order = "count" } = {}) {
  const wanted = search.trim().toLowerCase();
  const found = table.names.map((_, at) => at).filter((at) => table.names[at].toLowerCase().includes(wanted));
  return order === "name" ? found.sort((a, b) => names.compare(table.names[a], table.names[b])) : found;
}

/**
 * A function that tells whether the picture of an index has every tag that is wanted and none that is not.
 * @param {Map<string, string>} wanted tags with their states; those that are not in the table are no caption's.
 */
export function passing(table, wanted) {
  if (!wanted.size) return () => true;
  const places = new Map(table.names.map((name, at) => [name, at]));
  const states = [...wanted].map(([name, state]) => [places.get(name), state === WITH]);
  return (index) => states.every(([at, has]) => (table.pictures[index] ?? []).includes(at) === has);
}

/** A text before and after a change as [what stays before, what goes, what comes, what stays after], in whole words. */
export function difference(before, after) {
  const [old, now] = [before, after].map((words) => words.match(/[^\s,]+|[\s,]/gu) ?? []);
  const most = Math.min(old.length, now.length);
  let head = 0, tail = 0;
  while (head < most && old[head] === now[head]) head += 1;
  while (tail < most - head && old[old.length - 1 - tail] === now[now.length - 1 - tail]) tail += 1;
  const part = (words, from, to) => words.slice(from, to).join("");
  return [part(old, 0, head), part(old, head, old.length - tail), part(now, head, now.length - tail), part(old, old.length - tail)];
}
