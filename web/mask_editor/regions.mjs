// Parts of a picture, as how much each pixel belongs to them: {left, top, width, height, data}, data 0 to 255.

/** A rectangle of whole pixels, within the picture; null if nothing of it is. */
export function boxRegion({ left, top, right, bottom }, width, height) {
  const [x1, y1, x2, y2] = [Math.max(0, left), Math.max(0, top), Math.min(width, right), Math.min(height, bottom)];
  if (x1 >= x2 || y1 >= y2) return null;
  return { left: x1, top: y1, width: x2 - x1, height: y2 - y1, data: new Uint8Array((x2 - x1) * (y2 - y1)).fill(255) };
}

const LINES = 4;

/** What a closed line of points [x, y] encloses, wherever it winds around; null if that is nothing. */
export function polygonRegion(points, width, height) {
  if (points.length < 3) return null;
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const box = boxRegion({ left: Math.floor(least(xs)), top: Math.floor(least(ys)), right: Math.ceil(most(xs)), bottom: Math.ceil(most(ys)) }, width, height);
  if (!box) return null;
  box.data.fill(0);
  const sums = new Float32Array(box.width);
  let any = false;
  for (let y = 0; y < box.height; y++) {
    sums.fill(0);
    for (let line = 0; line < LINES; line++) {
      for (const [from, to] of spans(points, box.top + y + (line + 0.5) / LINES)) addSpan(sums, from - box.left, to - box.left);
    }
    for (let x = 0; x < box.width; x++) {
      box.data[y * box.width + x] = Math.round(Math.min(1, sums[x] / LINES) * 255);
      any ||= box.data[y * box.width + x] > 0;
    }
  }
  return any ? box : null;
}

const least = (values) => values.reduce((a, b) => Math.min(a, b));
const most = (values) => values.reduce((a, b) => Math.max(a, b));

/** Where a horizontal line at `y` is inside: pairs [from, to]. */
function spans(points, y) {
  const crossings = [];
  for (let i = 0; i < points.length; i++) {
    const [x1, y1] = points[i];
    const [x2, y2] = points[(i + 1) % points.length];
    if (y1 <= y !== y2 <= y) crossings.push([x1 + ((y - y1) / (y2 - y1)) * (x2 - x1), y2 > y1 ? 1 : -1]);
  }
  crossings.sort((a, b) => a[0] - b[0]);
  const found = [];
  let winding = 0;
  let start = 0;
  for (const [x, way] of crossings) {
    if (winding === 0) start = x;
    winding += way;
    if (winding === 0) found.push([start, x]);
  }
  return found;
}

/** Adds to each pixel how much of it lies between two places. */
function addSpan(sums, from, to) {
  const [a, b] = [Math.max(0, from), Math.min(sums.length, to)];
  for (let x = Math.floor(a); x < b; x++) sums[x] += Math.min(b, x + 1) - Math.max(a, x);
}

/**
 * Pixels of the colour at (x, y), give or take.
 * @param {Uint8ClampedArray} rgba the picture.
 * @param {number} tolerance how far each of red, green and blue may be off, 0 to 255.
 * @param {boolean} contiguous only those that hang together with (x, y), by their sides.
 */
export function colourRegion(rgba, width, height, x, y, { tolerance, contiguous }) {
  const start = 4 * (y * width + x);
  const [red, green, blue] = [rgba[start], rgba[start + 1], rgba[start + 2]];
  const alike = (i) =>
    Math.abs(rgba[4 * i] - red) <= tolerance && Math.abs(rgba[4 * i + 1] - green) <= tolerance && Math.abs(rgba[4 * i + 2] - blue) <= tolerance;
  const data = new Uint8Array(width * height);
  if (contiguous) flood(data, width, height, x, y, alike);
  else for (let i = 0; i < data.length; i++) if (alike(i)) data[i] = 255;
  return { left: 0, top: 0, width, height, data };
}

function flood(data, width, height, x, y, alike) {
  const waiting = [y * width + x];
  while (waiting.length) {
    const seed = waiting.pop();
    if (data[seed]) continue;
    const row = seed - (seed % width);
    let left = seed;
    let right = seed;
    while (left > row && !data[left - 1] && alike(left - 1)) left--;
    while (right + 1 < row + width && !data[right + 1] && alike(right + 1)) right++;
    data.fill(255, left, right + 1);
    for (const next of [-width, width]) {
      if (row + next < 0 || row + next >= width * height) continue;
      let inside = false;
      for (let i = left + next; i <= right + next; i++) {
        const fits = !data[i] && alike(i);
        if (fits && !inside) waiting.push(i);
        inside = fits;
      }
    }
  }
}
