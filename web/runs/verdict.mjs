// What a training's curves say about its mask, by the rules of the help page "Masks that work". Pure functions.

// Losses jump with the noise level that each step draws: fewer steps than these say nothing.
const LEAST_STEPS = 200;
// A change is one where it stands out from the jumps so many times, and is so large a part of the loss.
const CERTAIN = 3;
const WORTH_TELLING = 0.02;
// The outside is learned, too, where it falls at least so much of what the inside does.
const ALIKE = 0.5;
// A drift begins at nothing and rises somewhat in every training.
const DRIFTS = 0.5;
// In the leakage benchmark LoRAs that paint the training background unasked stay above, and below all but one of those
// that never do.
export const LEAKS = 0.03;

/**
 * How a curve has changed from its first quarter to its last, as a share of where it was: below 0 it fell.
 * 0 where the change does not stand out from how the numbers jump; null where there are too few.
 */
export function change(rows, key) {
  const known = rows.filter((row) => Number.isFinite(row[key]));
  if (!known.length || known.at(-1).step - known[0].step + 1 < LEAST_STEPS) return null;
  const quarter = Math.floor(known.length / 4);
  if (quarter < 8) return null;
  const [first, last] = [known.slice(0, quarter), known.slice(-quarter)].map((part) => moments(part.map((row) => row[key])));
  const apart = last.mean - first.mean;
  const noise = Math.sqrt((first.variance + last.variance) / quarter);
  if (!(Math.abs(apart) > CERTAIN * noise) || first.mean === 0) return 0;
  const share = apart / Math.abs(first.mean);
  return Math.abs(share) < WORTH_TELLING ? 0 : share;
}

function moments(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  return { mean, variance };
}

/**
 * The verdict on a run's rows: "works", "outsideFalls", "notLearning", "driftRises", "noMask", or "" as long as nothing
 * can be said; where the leak was measured, "leaks", or "noLeak" in place of "works" and of "".
 */
export function verdict(rows) {
  const inside = change(rows, "inside");
  const leak = rows.findLast((row) => Number.isFinite(row.leak))?.leak;
  if (leak > LEAKS) return "leaks";
  if (inside === null) return leak === undefined ? "" : "noLeak";
  if (!rows.some((row) => Number.isFinite(row.outside))) return "noMask";
  const outside = change(rows, "outside");
  if (inside >= 0) return "notLearning";
  if (outside < 0 && outside <= ALIKE * inside) return "outsideFalls";
  if (change(rows, "drift") > DRIFTS) return "driftRises";
  return leak === undefined ? "works" : "noLeak";
}
