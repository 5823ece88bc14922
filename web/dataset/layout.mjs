// Which tiles of a long grid are in view, and where each lies. Pure functions.
const GAP = 8;

/**
 * Columns and tile size for a width.
 * @param {{width: number, wanted: number, caption: number}} options px: of the grid, of a tile at least, of the text
 *   under a picture.
 */
export function gridOf({ width, wanted, caption }) {
  const columns = Math.max(1, Math.floor((width + GAP) / (wanted + GAP)));
  const side = Math.max(40, Math.floor((width - GAP * (columns - 1)) / columns));
  return { columns, side, rowHeight: side + caption + GAP, gap: GAP };
}

export function heightOf(count, grid) {
  return Math.max(0, Math.ceil(count / grid.columns) * grid.rowHeight - grid.gap);
}

/** The half-open range of positions that a viewport shows, with `spare` rows more on either side. */
export function visible(count, grid, { top, height, spare = 1 }) {
  const first = Math.max(0, Math.floor(top / grid.rowHeight) - spare);
  const last = Math.ceil((top + height) / grid.rowHeight) + spare;
  return [Math.min(count, first * grid.columns), Math.min(count, last * grid.columns)];
}

export function placeOf(position, grid) {
  const row = Math.floor(position / grid.columns);
  return { x: (position % grid.columns) * (grid.side + grid.gap), y: row * grid.rowHeight };
}

/** How far to scroll so that a position is in view; `top` itself where it is. */
export function scrollTo(position, grid, { top, height }) {
  const { y } = placeOf(position, grid);
  if (y < top) return y;
  return y + grid.rowHeight > top + height ? y + grid.rowHeight - height : top;
}
