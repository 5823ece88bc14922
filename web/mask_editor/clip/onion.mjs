// The outlines of the masks of the frames before and after: what moved where.
const COLOURS = { before: "#2f6bff", after: "#ffb000" };
// Larger ones look the same through one another.
const MOST = 1024;

/** A canvas with a line of one colour around what is learned, outside of it, so that the picture stays clear. */
export function ghost({ levels, width, height }, when) {
  const scale = Math.min(1, MOST / Math.max(width, height));
  const [across, down] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  const canvas = Object.assign(document.createElement("canvas"), { width: across, height: down });
  const context = canvas.getContext("2d");
  const image = context.createImageData(across, down);
  for (let y = 0, to = 3; y < down; y++) {
    const row = Math.floor((y + 0.5) / scale) * width;
    for (let x = 0; x < across; x++, to += 4) image.data[to] = levels[row + Math.floor((x + 0.5) / scale)];
  }
  context.putImageData(image, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = COLOURS[when];
  context.fillRect(0, 0, across, down);
  return outlined(canvas);
}

function outlined(shape) {
  const { width, height } = shape;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const away = Math.max(1, Math.max(width, height) / 220);
  for (let turn = 0; turn < 12; turn++) context.drawImage(shape, away * Math.cos((turn * Math.PI) / 6), away * Math.sin((turn * Math.PI) / 6));
  context.globalCompositeOperation = "destination-out";
  context.drawImage(shape, 0, 0);
  return canvas;
}
