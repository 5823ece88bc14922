// How a tint is kept in this browser. Which one stands out from a picture is the server's word, also for thumbnails.

/** The usual tint, before the picture is known. */
export const USUAL = "#dc1e3c";
/** Stands, where a person has chosen no tint, for the one that stands out from each picture. */
export const AUTOMATIC = "automatic";

/** Whether it is a tint as it is kept: AUTOMATIC, or a colour such as "#dc1e3c". */
export function isTint(value) {
  return value === AUTOMATIC || /^#[0-9a-f]{6}$/.test(value);
}
