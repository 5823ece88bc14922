// The frames of a clip by number and time. Pure functions.

/** The number of the frame that is shown at a time in seconds: the last one that has begun. */
export function frameAt(times, seconds) {
  let [low, high] = [0, times.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= seconds + 1e-6) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Seconds that a clip takes; its last frame as long as the others on average. */
export function lasts(times) {
  const last = times[times.length - 1];
  return times.length > 1 ? last + last / (times.length - 1) : 1;
}

/** For each frame the latent frame that it becomes, counted over all parts; −1 of one that is not learned. */
export function latentOf({ parts, step }, count) {
  const found = new Array(count).fill(-1);
  let base = 0;
  for (const part of parts) {
    const of = (place) => (place ? 1 + Math.floor((place - 1) / step) : 0);
    part.forEach((number, place) => {
      if (found[number] < 0) found[number] = base + of(place);
    });
    base += of(part.length - 1) + 1;
  }
  return found;
}

/** Stretches of equal values: [[first, behind the last, value], …]. */
export function stretches(values) {
  const found = [];
  values.forEach((value, i) => {
    const last = found[found.length - 1];
    if (last && last[2] === value) last[1] = i + 1;
    else found.push([i, i + 1, value]);
  });
  return found;
}

/** The frames that come next, the nearest first; behind the end those of the beginning. */
export function ahead(number, count, most) {
  return Array.from({ length: Math.min(most, count - 1) }, (_, i) => (number + 1 + i) % count);
}

/** A frame so many steps away, within the clip. */
export function stepped(number, by, count) {
  return Math.min(count - 1, Math.max(0, number + by));
}

/**
 * What a key means on the way through a clip: how many frames to go, Infinity to its end; null of another key. Alt,
 * because the arrows alone mean the picture before and after.
 */
export function stepOf({ key, altKey, shiftKey, ctrlKey, metaKey }) {
  if (!altKey || ctrlKey || metaKey) return null;
  const way = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (way) return way * (shiftKey ? 10 : 1);
  return { Home: -Infinity, End: Infinity }[key] ?? null;
}
