// One picture drawn into a canvas in each view; lengths are pixels of the picture unless said otherwise.
const CHECKER = 16;
// More pixels of a mask than a screen shows are not worth the time.
const MOST_SIDE = 2048;
const NUMBER_PX = 26;
const LINE_PX = 6;
const DIM = 0.65;

function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** A canvas whose alpha is the mask, from a grey picture or bitmap. */
export function alphaOf(mask) {
  const [width, height] = [mask.naturalWidth ?? mask.width, mask.naturalHeight ?? mask.height];
  const scale = Math.min(1, MOST_SIDE / Math.max(width, height));
  const canvas = canvasOf(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(mask, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = pixels;
  for (let i = 0; i < data.length; i += 4) {
    data[i + 3] = data[i];
    data[i] = data[i + 1] = data[i + 2] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** A canvas with a pixel per latent cell: black, and the more opaque the less the cell weighs. */
export function shadeOf(weights, [rows, columns]) {
  const canvas = canvasOf(columns, rows);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  weights.forEach((weight, i) => {
    pixels.data[4 * i + 3] = Math.round((1 - weight) * 255);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** The canvas transform from cells to the picture, as [a, b, c, d, e, f], from the crop's corners. */
export function cellTransform(corners, [rows, columns], flip) {
  const [first, second, , last] = flip ? [corners[1], corners[0], corners[3], corners[2]] : corners;
  return [
    (second[0] - first[0]) / columns,
    (second[1] - first[1]) / columns,
    (last[0] - first[0]) / rows,
    (last[1] - first[1]) / rows,
    first[0],
    first[1],
  ];
}

/** The cell [row, column] and its weight at a place of the picture; null outside of the crop. */
export function cellAt(detail, x, y) {
  const [a, b, c, d, e, f] = cellTransform(detail.corners, detail.grid, detail.flip);
  const [rows, columns] = detail.grid;
  const det = a * d - b * c;
  const column = Math.floor((d * (x - e) - c * (y - f)) / det);
  const row = Math.floor((a * (y - f) - b * (x - e)) / det);
  if (column < 0 || row < 0 || column >= columns || row >= rows) return null;
  return { row, column, weight: detail.weights[row * columns + column] };
}

/**
 * Draws one view.
 * @param context of a canvas that has the frame's size.
 * @param {{view: string, size: [number, number], picture: CanvasImageSource, alpha: HTMLCanvasElement?, detail: object,
 *   port: Viewport, colour: string, opacity: number, ratio: number}} what size: of the picture that is shown; opacity of tint and shade in 0..1; ratio: canvas pixels per
 *   CSS pixel.
 */
export function drawPicture(context, what) {
  const { view, picture, detail, port, ratio } = what;
  const { canvas } = context;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const place = () => context.setTransform(port.scale * ratio, 0, 0, port.scale * ratio, port.x * ratio, port.y * ratio);
  place();
  context.imageSmoothingEnabled = port.scale < 2;
  const [width, height] = what.size;
  if (view === "cut-out") drawBoard(context, width, height);
  if (view === "mask") {
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    if (what.alpha) context.drawImage(what.alpha, 0, 0, width, height);
    return;
  }
  if (view === "cut-out" && what.alpha) {
    context.drawImage(masked(picture, what.alpha, "destination-in"), 0, 0, width, height);
    return;
  }
  context.drawImage(picture, 0, 0, width, height);
  if (view === "overlay" && what.alpha) {
    context.globalAlpha = what.opacity;
    context.drawImage(masked(what.colour, what.alpha, "destination-out"), 0, 0, width, height);
    context.globalAlpha = 1;
  }
  if (view === "latent grid") drawCells(context, what, place);
  if (view === "crop" || view === "latent grid") drawCrop(context, detail, [width, height], 2 / port.scale);
}

function masked(below, alpha, operation) {
  const canvas = canvasOf(alpha.width, alpha.height);
  const context = canvas.getContext("2d");
  if (typeof below === "string") {
    context.fillStyle = below;
    context.fillRect(0, 0, canvas.width, canvas.height);
  } else {
    context.drawImage(below, 0, 0, canvas.width, canvas.height);
  }
  context.globalCompositeOperation = operation;
  context.drawImage(alpha, 0, 0);
  return canvas;
}

function drawBoard(context, width, height) {
  const board = canvasOf(2 * CHECKER, 2 * CHECKER);
  const paint = board.getContext("2d");
  paint.fillStyle = "#c8c8c8";
  paint.fillRect(0, 0, board.width, board.height);
  paint.fillStyle = "#969696";
  paint.fillRect(CHECKER, 0, CHECKER, CHECKER);
  paint.fillRect(0, CHECKER, CHECKER, CHECKER);
  context.fillStyle = context.createPattern(board, "repeat");
  context.fillRect(0, 0, width, height);
}

function drawCells(context, { detail, opacity, port, ratio, shade }, place) {
  const [rows, columns] = detail.grid;
  const transform = cellTransform(detail.corners, detail.grid, detail.flip);
  const size = Math.hypot(transform[0], transform[1]) * port.scale;
  context.imageSmoothingEnabled = false;
  context.globalAlpha = opacity;
  context.transform(...transform);
  context.drawImage(shade, 0, 0);
  context.globalAlpha = 1;
  if (size >= LINE_PX) {
    context.beginPath();
    for (let i = 0; i <= columns; i += 1) context.moveTo(i, 0), context.lineTo(i, rows);
    for (let i = 0; i <= rows; i += 1) context.moveTo(0, i), context.lineTo(columns, i);
    context.lineWidth = 1 / size;
    context.strokeStyle = "rgb(128 128 128 / 70%)";
    context.stroke();
  }
  if (size >= NUMBER_PX) drawNumbers(context, detail, size, ratio);
  place();
}

function drawNumbers(context, detail, size, ratio) {
  const [, columns] = detail.grid;
  const { width, height } = context.canvas;
  const matrix = context.getTransform();
  context.font = `${11 / size}px sans-serif`;
  context.textAlign = "right";
  context.lineWidth = 3 / size;
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  detail.weights.forEach((weight, i) => {
    const column = i % columns, row = Math.floor(i / columns);
    const { x, y } = matrix.transformPoint({ x: column, y: row });
    if (x < -size * ratio || y < -size * ratio || x > width || y > height) return;
    const words = weight > 0 && weight < 1 ? weight.toFixed(2).replace(/^0/, "") : String(weight);
    // In the corner, so that the middle of the cell shows its weight alone.
    context.strokeText(words, column + 1 - 3 / size, row + 1 - 3 / size);
    context.fillText(words, column + 1 - 3 / size, row + 1 - 3 / size);
  });
}

function drawCrop(context, { corners }, [width, height], line) {
  context.beginPath();
  context.rect(0, 0, width, height);
  corners.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
  context.fillStyle = `rgb(0 0 0 / ${DIM * 100}%)`;
  context.fill("evenodd");
  context.beginPath();
  corners.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
  context.lineWidth = line;
  context.strokeStyle = "#fff";
  context.stroke();
  context.setLineDash([4 * line, 4 * line]);
  context.strokeStyle = "#000";
  context.stroke();
  context.setLineDash([]);
}
