// Grey PNGs of 8 bits to and from levels, without a canvas: browsers may falsify what is read back from one.
const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c >>> 0;
});

/** A PNG file of levels, row by row. */
export async function encodeGrey(levels, width, height) {
  const rows = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) rows.set(levels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const head = new Uint8Array(13);
  const view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head[8] = 8;
  const pixels = await through(rows, new CompressionStream("deflate"));
  return joined([Uint8Array.from(SIGNATURE), chunk("IHDR", head), chunk("IDAT", pixels), chunk("IEND", new Uint8Array())]);
}

/** {levels, width, height} of a grey PNG of 8 bits; throws for any other file. */
export async function decodeGrey(bytes) {
  if (SIGNATURE.some((value, i) => bytes[i] !== value)) throw new Error("not a PNG");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const pieces = [];
  let width = 0;
  let height = 0;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "IHDR") {
      width = view.getUint32(at + 8);
      height = view.getUint32(at + 12);
      if (bytes[at + 16] !== 8 || bytes[at + 17] !== 0 || bytes[at + 20] !== 0) throw new Error("not a grey PNG of 8 bits");
    }
    if (kind === "IDAT") pieces.push(bytes.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  const rows = await through(joined(pieces), new DecompressionStream("deflate"));
  if (rows.length !== (width + 1) * height) throw new Error("a damaged PNG");
  return { levels: unfiltered(rows, width, height), width, height };
}

function unfiltered(rows, width, height) {
  const levels = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const kind = rows[y * (width + 1)];
    const from = y * (width + 1) + 1;
    const to = y * width;
    for (let x = 0; x < width; x++) {
      const left = x ? levels[to + x - 1] : 0;
      const up = y ? levels[to + x - width] : 0;
      const corner = x && y ? levels[to + x - width - 1] : 0;
      levels[to + x] = rows[from + x] + predicted(kind, left, up, corner);
    }
  }
  return levels;
}

function predicted(kind, left, up, corner) {
  if (kind === 0) return 0;
  if (kind === 1) return left;
  if (kind === 2) return up;
  if (kind === 3) return (left + up) >> 1;
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

async function through(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

function chunk(kind, data) {
  const whole = new Uint8Array(12 + data.length);
  const view = new DataView(whole.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) whole[4 + i] = kind.charCodeAt(i);
  whole.set(data, 8);
  view.setUint32(8 + data.length, checksum(whole.subarray(4, 8 + data.length)));
  return whole;
}

function checksum(bytes) {
  let c = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) c = TABLE[(c ^ bytes[i]) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
