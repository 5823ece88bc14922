// The whole mask grown, shrunk or softened; each gives new levels. Outside of the picture it goes on as at its edge.
const TILE = 256;

/** Every pixel gets the largest level within a disc of `radius`; a negative radius shrinks. */
export function grow(levels, width, height, radius) {
  const r = Math.abs(radius);
  const source = radius < 0 ? levels.map((level) => 255 - level) : levels;
  const grown = source.every((level) => level === 0 || level === 255)
    ? growHard(source, width, height, r)
    : byTiles(source, width, height, Math.floor(r), (area, side) => growSoft(area, side, r));
  return radius < 0 ? grown.map((level) => 255 - level) : grown;
}

/** How far a disc reaches to the side, by the distance from its middle row. */
function halfWidths(radius) {
  return Array.from({ length: Math.floor(radius) + 1 }, (_, d) => Math.floor(Math.sqrt(radius * radius - d * d)));
}

/** Black and white only: the nearest white pixel above or below says how far each column reaches to its sides. */
function growHard(levels, width, height, radius) {
  const far = Math.floor(radius) + 1;
  const near = new Uint16Array(levels.length);
  for (let i = 0; i < near.length; i++) near[i] = levels[i] ? 0 : i < width ? far : Math.min(far, near[i - width] + 1);
  for (let i = near.length - width - 1; i >= 0; i--) near[i] = Math.min(near[i], near[i + width] + 1);
  const reach = halfWidths(radius);
  const grown = new Uint8Array(levels.length);
  const edges = new Int32Array(width + 1);
  for (let row = 0; row < near.length; row += width) {
    edges.fill(0);
    for (let x = 0; x < width; x++) {
      if (near[row + x] >= far) continue;
      const w = reach[near[row + x]];
      edges[Math.max(0, x - w)]++;
      edges[Math.min(width, x + w + 1)]--;
    }
    for (let x = 0, inside = 0; x < width; x++) {
      inside += edges[x];
      if (inside) grown[row + x] = 255;
    }
  }
  return grown;
}

function growSoft(area, side, radius) {
  const reach = halfWidths(radius);
  const r = reach.length - 1;
  const out = new Uint8Array(TILE * TILE);
  for (let y = 0; y < side; y++) {
    const tables = maxima(area.subarray(y * side, (y + 1) * side), 2 * r + 1);
    for (let to = Math.max(0, y - 2 * r); to <= Math.min(TILE - 1, y); to++) {
      const w = reach[Math.abs(to + r - y)];
      const step = 31 - Math.clz32(2 * w + 1);
      const table = tables[step];
      const second = 2 * w + 1 - (1 << step);
      for (let x = 0, from = r - w, at = to * TILE; x < TILE; x++, from++, at++) {
        const most = table[from] > table[from + second] ? table[from] : table[from + second];
        if (most > out[at]) out[at] = most;
      }
    }
  }
  return out;
}

/** For each k the largest of 2^k values from each place on. */
function maxima(row, longest) {
  const tables = [row];
  for (let span = 1; 2 * span <= longest; span *= 2) {
    const last = tables[tables.length - 1];
    const next = new Uint8Array(row.length);
    for (let i = 0; i + 2 * span <= row.length; i++) next[i] = Math.max(last[i], last[i + span]);
    tables.push(next);
  }
  return tables;
}

/** The mask softened as by a Gaussian of `sigma` pixels, by three boxes in a row. */
export function feather(levels, width, height, sigma) {
  const radii = boxes(sigma);
  const reach = radii.reduce((sum, radius) => sum + radius, 0);
  return byTiles(levels, width, height, reach, (area, side) => {
    let now = Float32Array.from(area);
    for (const radius of radii) now = blurred(now, side, radius);
    now = turned(now, side);
    for (const radius of radii) now = blurred(now, side, radius);
    now = turned(now, side);
    const out = new Uint8Array(TILE * TILE);
    for (let y = 0; y < TILE; y++) for (let x = 0; x < TILE; x++) out[y * TILE + x] = Math.round(now[(y + reach) * side + x + reach]);
    return out;
  });
}

/** Radii of three boxes that together have the variance of a Gaussian, as nearly as whole pixels can. */
export function boxes(sigma) {
  const wanted = Math.sqrt((12 * sigma * sigma) / 3 + 1);
  const low = Math.max(1, 2 * Math.floor((wanted - 1) / 2) + 1);
  const smaller = Math.round((12 * sigma * sigma - 3 * low * low - 12 * low - 9) / (-4 * low - 4));
  return [0, 1, 2].map((i) => ((i < smaller ? low : low + 2) - 1) / 2);
}

function blurred(values, side, radius) {
  const out = new Float32Array(values.length);
  const count = 2 * radius + 1;
  for (let row = 0; row < values.length; row += side) {
    let sum = 0;
    for (let x = -radius; x < side; x++) {
      if (x + radius < side) sum += values[row + x + radius];
      if (x > radius) sum -= values[row + x - radius - 1];
      // Near the rim, which no one looks at, some are missing.
      if (x >= 0) out[row + x] = sum / count;
    }
  }
  return out;
}

function turned(values, side) {
  const out = new Float32Array(values.length);
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) out[x * side + y] = values[y * side + x];
  return out;
}

/** New levels tile by tile from the tile with `reach` pixels around it; tiles amid a single level stay as they are. */
function byTiles(levels, width, height, reach, work) {
  const out = Uint8Array.from(levels);
  const side = TILE + 2 * reach;
  const area = new Uint8Array(side * side);
  for (let top = 0; top < height; top += TILE) {
    for (let left = 0; left < width; left += TILE) {
      if (!fill(area, side, levels, width, height, left - reach, top - reach)) continue;
      const tile = work(area, side);
      const [right, bottom] = [Math.min(width, left + TILE), Math.min(height, top + TILE)];
      for (let y = top; y < bottom; y++) out.set(tile.subarray((y - top) * TILE, (y - top) * TILE + right - left), y * width + left);
    }
  }
  return out;
}

/** Copies a square of the mask; whether it holds more than one level. */
function fill(area, side, levels, width, height, left, top) {
  let mixed = false;
  const first = levels[Math.min(height - 1, Math.max(0, top)) * width + Math.min(width - 1, Math.max(0, left))];
  for (let y = 0; y < side; y++) {
    const row = Math.min(height - 1, Math.max(0, top + y)) * width;
    for (let x = 0; x < side; x++) {
      const level = levels[row + Math.min(width - 1, Math.max(0, left + x))];
      area[y * side + x] = level;
      mixed ||= level !== first;
    }
  }
  return mixed;
}
