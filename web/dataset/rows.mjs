// The pictures of a data set as rows: filter, order, statistics. Pure functions.

export const WARNINGS = [
  "all_black", "all_white", "cut_away", "low_coverage", "high_coverage", "vanishing", "odd_polarity", "no_caption", "no_reference",
];
export const FILTERS = ["all", "warned", "no_mask", "stale", ...WARNINGS];
export const ORDERS = ["given", "name", "coverage", "coverage_down", "warnings"];

const names = new Intl.Collator(undefined, { numeric: true });

/** One object per picture from the server's lists, each as long as the data set. */
export function rowsOf(columns) {
  return columns.name.map((name, index) => ({
    index,
    name,
    size: columns.size[index],
    stamp: columns.stamp[index],
    hasMask: columns.has_mask[index],
    coverage: columns.coverage[index],
    bucket: columns.bucket[index],
    caption: columns.caption[index],
    warnings: columns.warnings[index],
    stale: columns.stale[index],
    clip: columns.clip[index],
    references: columns.references[index],
  }));
}

/**
 * The rows that pass, in order.
 * @param {{search?: string, filter?: string, order?: string}} options search looks in names and captions, whatever
 *   the case; filter is one of FILTERS, order one of ORDERS.
 */
export function choose(rows, { search = "", filter = "all", order = "given" } = {}) {
  const wanted = search.trim().toLowerCase();
  const found = rows.filter(
    (row) =>
      passes(row, filter) &&
      (!wanted || row.name.toLowerCase().includes(wanted) || (row.caption ?? "").toLowerCase().includes(wanted)),
  );
  return found.sort(COMPARE[order] ?? COMPARE.given);
}

const COMPARE = {
  given: (a, b) => a.index - b.index,
  name: (a, b) => names.compare(a.name, b.name) || a.index - b.index,
  coverage: (a, b) => a.coverage - b.coverage || a.index - b.index,
  coverage_down: (a, b) => b.coverage - a.coverage || a.index - b.index,
  warnings: (a, b) => b.warnings.length - a.warnings.length || a.index - b.index,
};

function passes(row, filter) {
  if (filter === "all") return true;
  if (filter === "warned") return row.warnings.length > 0;
  if (filter === "no_mask") return !row.hasMask;
  if (filter === "stale") return row.stale.length > 0;
  return row.warnings.includes(filter);
}

/**
 * The row so many places after that of a picture, past the ends too; null of none.
 * @param {number} at where the picture stood, should it no longer be among them: the one after it is there now.
 */
export function neighbour(rows, index, by, at = 0) {
  if (!rows.length) return null;
  const here = rows.findIndex((row) => row.index === index);
  const to = here < 0 ? at + by - (by > 0) : here + by;
  return rows[(to + rows.length) % rows.length];
}

/** How many rows pass each filter. */
export function counts(rows) {
  return Object.fromEntries(FILTERS.map((filter) => [filter, rows.filter((row) => passes(row, filter)).length]));
}

/** How many masks have a coverage in each of `bins` equal parts of 0..1; 1 belongs to the last. No mask, no count. */
export function histogram(rows, bins = 20) {
  const found = new Array(bins).fill(0);
  for (const row of rows) {
    if (row.hasMask) found[Math.min(bins - 1, Math.floor(row.coverage * bins))] += 1;
  }
  return found;
}

/** Training sizes with the number of their pictures, the most frequent first: [["512×512", 3], …]. */
export function buckets(rows) {
  const found = new Map();
  for (const { bucket } of rows) {
    const key = bucket.join("×");
    found.set(key, (found.get(key) ?? 0) + 1);
  }
  return [...found].sort((a, b) => b[1] - a[1] || names.compare(a[0], b[0]));
}

/** 0.1234 as "12.3 %", 0.5 as "50 %". */
export function percent(share) {
  return `${Number((share * 100).toPrecision(3))} %`;
}
