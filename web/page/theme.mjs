// Whether ComfyUI's theme is dark. Its versions say it by different classes, people bring palettes of their own: what
// counts is the ground that our panels lie on.
const MIDDLE = 0.5;
const GROUND = "--comfy-menu-bg";

/** Keeps `data-mlt-theme` of the page, which our style sheets read, at "dark" or "light". */
export function followTheme() {
  const look = () => {
    const theme = isDark(colourOf(GROUND)) ? "dark" : "light";
    if (document.documentElement.dataset.mltTheme !== theme) document.documentElement.dataset.mltTheme = theme;
  };
  const observer = new MutationObserver(look);
  for (const one of [document.documentElement, document.body]) {
    observer.observe(one, { attributes: true, attributeFilter: ["style", "class"] });
  }
  look();
}

/** Whether a colour, [red, green, blue] in 0 to 255, is a dark one. */
export function isDark([red, green, blue]) {
  return (0.299 * red + 0.587 * green + 0.114 * blue) / 255 < MIDDLE;
}

/** What a variable of ComfyUI's theme stands for, as numbers; black where it is not set. */
function colourOf(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name}, black)`;
  document.body.append(probe);
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  pixel.fillStyle = getComputedStyle(probe).color;
  probe.remove();
  pixel.fillRect(0, 0, 1, 1);
  return [...pixel.getImageData(0, 0, 1, 1).data];
}
