// The editor's icons: lines in a square of 20 units, drawn in the colour of the words beside them.
const SVG = "http://www.w3.org/2000/svg";

const LINES = {
  brush: "M17 3 9.5 10.5M9.5 10.5a3 3 0 0 0-4.2 1.1C4.4 13.3 4.6 15.3 2.5 16.5 6 17.6 9.6 16.8 10.7 14.3A3 3 0 0 0 9.5 10.5Z",
  eraser: "M8 16 3.5 11.5a1.5 1.5 0 0 1 0-2.1L9.9 3a1.5 1.5 0 0 1 2.1 0L16.5 7.5a1.5 1.5 0 0 1 0 2.1L10 16ZM6.5 6.5 13 13M4 17.5H17",
  fill: "M8 3 15.5 10.5 9.5 16.5a1.5 1.5 0 0 1-2.1 0L2.6 11.7a1.5 1.5 0 0 1 0-2.1ZM2.5 10.5H15.5M17.5 13.5c1.4 2 1.2 3.5 0 3.5s-1.4-1.5 0-3.5",
  box: "M3 5H17V15H3Z",
  lasso: "M6.5 13.3C4.2 12.4 2.5 10.7 2.5 8.5 2.5 5.5 5.9 3 10 3S17.5 5.5 17.5 8.5 14.1 14 10 14C9.3 14 8.6 13.9 8 13.8M8 13.8a1.6 1.6 0 1 0-1.5-.5M7.5 15c.8 1.3.6 2.4-.5 3",
  grabcut: "M2.5 6V2.5H6M14 2.5H17.5V6M17.5 14V17.5H14M6 17.5H2.5V14M10 5.5C13 5.5 14.5 7.5 14 10S12.5 14.5 10 14.5 6.5 13 6 10.5 7 5.5 10 5.5Z",
  select: "M8.5 8.5 17 12 13.3 13.3 12 17ZM5 2V4M2 5H4M7.2 2.8 6.5 4.2M2.8 7.2 4.2 6.5",
  previousPicture: "M12.5 4 6.5 10 12.5 16",
  nextPicture: "M7.5 4 13.5 10 7.5 16",
  undo: "M7 4 3 8 7 12M3 8H12a4.5 4.5 0 0 1 0 9H8",
  redo: "M13 4 17 8 13 12M17 8H8a4.5 4.5 0 0 0 0 9H12",
};

/** The icon of an action, hidden from a screen reader, which reads the words; null where there is none. */
export function icon(action) {
  if (!(action in LINES)) return null;
  const element = document.createElementNS(SVG, "svg");
  element.setAttribute("viewBox", "0 0 20 20");
  element.setAttribute("class", "mlt-icon");
  element.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", LINES[action]);
  element.append(path);
  return element;
}
