// Rectangles of pixels: {left, top, right, bottom}, right and bottom beyond the last.

/** The smallest that holds both; either may be null. */
export function join(a, b) {
  if (!a || !b) return a ?? b;
  return {
    left: Math.min(a.left, b.left),
    top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right),
    bottom: Math.max(a.bottom, b.bottom),
  };
}

/** What both share, null if nothing. */
export function cut(a, b) {
  const shared = {
    left: Math.max(a.left, b.left),
    top: Math.max(a.top, b.top),
    right: Math.min(a.right, b.right),
    bottom: Math.min(a.bottom, b.bottom),
  };
  return shared.left < shared.right && shared.top < shared.bottom ? shared : null;
}

/** Of two corners (x, y) in fractions of pixels, whole pixels, at least one. */
export function between([x1, y1], [x2, y2]) {
  const left = Math.round(Math.min(x1, x2));
  const top = Math.round(Math.min(y1, y2));
  return { left, top, right: Math.max(left + 1, Math.round(Math.max(x1, x2))), bottom: Math.max(top + 1, Math.round(Math.max(y1, y2))) };
}
