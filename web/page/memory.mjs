// What this browser remembers for us. It may be full or may not be read at all, which is no reason to stop.

/** What was kept under a key; null where there is nothing, or nothing that can be read. */
export function remembered(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // It holds until the page is closed.
  }
}
