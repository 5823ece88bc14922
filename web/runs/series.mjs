// Rows of numbers as they come from the server, and the columns that a chart takes. Pure functions.

export const CURVES = [
  "loss", "inside", "outside", "prior", "drift", "preservation", "loss_low", "inside_low", "outside_low", "validation",
  "leak", "drift_plain", "picture_likeness", "picture_leak", "picture_drift", "learning_rate",
];
/** Those of the sample pictures. */
export const OF_PICTURES = CURVES.filter((key) => key.startsWith("picture_"));
/** What is measured at single steps, each time of the same in the same noise: it does not jump by chance. */
export const MEASURED = new Set(["validation", "leak", "drift_plain", ...OF_PICTURES]);
export const MOST_ROWS = 4000;

/** Rows sorted by step, `fresh` laid over `old`; steps after `last` are gone, because a run went back to one. */
export function mergeRows(old, fresh, last = Infinity) {
  const merged = [];
  let i = 0, j = 0;
  while (i < old.length || j < fresh.length) {
    const a = old[i], b = fresh[j];
    if (b === undefined || (a !== undefined && a.step < b.step)) {
      merged.push(a);
      i += 1;
    } else {
      const same = a !== undefined && a.step === b.step;
      merged.push(same ? { ...a, ...b } : b);
      i += same ? 1 : 0;
      j += 1;
    }
  }
  return merged.filter((row) => row.step <= last);
}

/**
 * At most `most` rows: neighbours are put together to their mean, at the step of the last of them. Each stands for
 * equally many steps, so that what was put together before is not put together again and again.
 */
export function thin(rows, most = MOST_ROWS) {
  if (rows.length <= most) return rows;
  const first = rows[0].step - 1;
  const width = Math.ceil((lastStep(rows) - first) / most);
  const groups = [];
  for (const row of rows) {
    const at = Math.ceil((row.step - first) / width);
    if (groups.at(-1)?.at !== at) groups.push({ at, rows: [] });
    groups.at(-1).rows.push(row);
  }
  return groups.map((group) => mean(group.rows));
}

function mean(rows) {
  const row = { step: rows[rows.length - 1].step };
  for (const key of CURVES) {
    const values = rows.map((one) => one[key]).filter((value) => value !== undefined);
    if (values.length) row[key] = values.reduce((sum, value) => sum + value, 0) / values.length;
  }
  return row;
}

/** The last step up to which nothing is missing; 0 without rows. */
export function lastStep(rows) {
  return rows.length ? rows[rows.length - 1].step : 0;
}

/**
 * Exponential mean of `values` (null where there is none) over their steps.
 * @param {number} weight 0: as they are, towards 1: smoother. It is the weight of the past per step, so that a
 *   curve looks the same whether its rows stand for one step each or for many.
 */
export function smooth(steps, values, weight) {
  let past = null, at = 0;
  return values.map((value, i) => {
    if (value === null) return null;
    const keep = past === null ? 0 : weight ** Math.max(1, steps[i] - at);
    past = past === null ? value : keep * past + (1 - keep) * value;
    at = steps[i];
    return past;
  });
}

/** The axis of a curve: that of the losses, or one of its own, because its numbers are of another size. */
export const scaleOf = (key) => (key === "learning_rate" ? "rate" : OF_PICTURES.includes(key) ? "pictures" : "y");

const drawn = (key, steps, values, weight) =>
  key === "learning_rate" || MEASURED.has(key) ? values : smooth(steps, values, weight);

/** The curves that any of the rows has, in the order of CURVES. */
export function curvesIn(rows) {
  return CURVES.filter((key) => rows.some((row) => row[key] !== undefined));
}

/**
 * What uPlot takes: [steps, values, values, …], one column for each run and curve, runs outermost.
 * @param {Array<Array<object>>} runs rows of each run.
 * @param {{curves: string[], weight: number, log: boolean}} options a log scale, which only losses have, leaves
 *   out what is not above 0.
 */
export function columns(runs, { curves, weight = 0, log = false }) {
  const steps = [...new Set(runs.flatMap((rows) => rows.map((row) => row.step)))].sort((a, b) => a - b);
  const data = [steps];
  for (const rows of runs) {
    const own = rows.map((row) => row.step);
    const place = new Map(own.map((step, i) => [step, i]));
    for (const key of curves) {
      const smoothed = drawn(key, own, rows.map((row) => row[key] ?? null), weight);
      data.push(steps.map((step) => {
        const i = place.get(step);
        const value = i === undefined ? null : smoothed[i];
        return log && scaleOf(key) === "y" && value !== null && value <= 0 ? null : value;
      }));
    }
  }
  return data;
}

/** The numbers of each curve at `step`, as the chart draws them. */
export function valuesAt(rows, weight, step) {
  return newest(rows.filter((row) => row.step <= step), weight);
}

/** The last number of each curve as the chart draws it: {loss: 0.1, …}. */
export function newest(rows, weight) {
  const steps = rows.map((row) => row.step);
  const found = {};
  for (const key of curvesIn(rows)) {
    const shown = drawn(key, steps, rows.map((row) => row[key] ?? null), weight);
    found[key] = shown.findLast((value) => value !== null);
  }
  return found;
}
