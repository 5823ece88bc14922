// Differences between two masks in few bytes: most are zero, and most others are the same for a long stretch.
const RUN = 128;
const SHORTEST = 4;
const LONGEST = 65535 + SHORTEST;

/** Bytes as stretches: a byte below 128 announces one more literal than it says, 128 a length (2 bytes) and a value. */
export function pack(bytes) {
  const out = [];
  let literal = 0;
  const flush = (end) => {
    for (let at = literal; at < end; ) {
      const count = Math.min(128, end - at);
      out.push(count - 1);
      for (let i = 0; i < count; i++) out.push(bytes[at + i]);
      at += count;
    }
  };
  for (let at = 0; at < bytes.length; ) {
    let end = at + 1;
    while (end < bytes.length && end - at < LONGEST && bytes[end] === bytes[at]) end++;
    if (end - at >= SHORTEST) {
      flush(at);
      const length = end - at - SHORTEST;
      out.push(RUN, length & 255, length >> 8, bytes[at]);
      literal = end;
    }
    at = end;
  }
  flush(bytes.length);
  return Uint8Array.from(out);
}

/** The bytes that were packed. */
export function unpack(packed, length) {
  const bytes = new Uint8Array(length);
  let to = 0;
  for (let at = 0; at < packed.length; ) {
    const head = packed[at];
    if (head === RUN) {
      const end = to + packed[at + 1] + (packed[at + 2] << 8) + SHORTEST;
      bytes.fill(packed[at + 3], to, end);
      to = end;
      at += 4;
    } else {
      bytes.set(packed.subarray(at + 1, at + 2 + head), to);
      to += head + 1;
      at += head + 2;
    }
  }
  return bytes;
}
