// The order of the rows in the table of pictures. Pure functions.

export const COLUMNS = ["name", "relative", "loss", "showings", "coverage", "leak"];
// With fewer showings a number is mostly chance.
export const FEW = 4;

const names = new Intl.Collator(undefined, { numeric: true });

/** Whether the first click on a column shows its largest first. */
export const falls = (column) => column !== "name";

/**
 * The rows in another order; what has no number stands last either way, and equals stay as they were.
 * @param {string} column one of COLUMNS. @param {boolean} down largest first.
 */
export function sorted(rows, column, down) {
  const sign = down ? -1 : 1;
  return rows.toSorted((a, b) => {
    const [one, other] = [a[column], b[column]];
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * (typeof one === "string" ? names.compare(one, other) : one - other);
  });
}
