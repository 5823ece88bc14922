// What is known of one picture, for the side of the large view.
import { button, make } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";

/** Elements with the facts of a picture; `onInfill(number)` shows one of its replaced backgrounds. */
export function facts(detail, row, percent, { onInfill }) {
  const weights = detail.weights;
  const active = weights.filter((weight) => weight > 0).length;
  const mean = weights.reduce((sum, weight) => sum + weight, 0) / weights.length;
  const [rows, columns] = detail.grid;
  const lines = [
    ["coverage", detail.has_mask ? percent(row.coverage) : text("dataset.noMask")],
    ["size", detail.size.join("×")],
    ...(detail.clip ? [["clip", clipWords(detail.clip)], ["shown", text("dataset.firstFrame")]] : []),
    ["bucket", detail.bucket.join("×")],
    ...detail.references.map(({ name, size }) => ["reference", `${name}, ${size.join("×")}`]),
    ["cells", text("dataset.cellsOf", { active, columns, rows })],
    ["weight", percent(mean)],
    ...(detail.stale.length ? [["stale", detail.stale.map((kind) => text(`dataset.kind.${kind}`)).join(", ")]] : []),
  ];
  return [
    make("strong", { className: "mlt-title" }, detail.name),
    make("dl", { className: "mlt-lines" }, ...lines.flatMap(([key, value]) => [make("dt", {}, text(`dataset.fact.${key}`)), make("dd", {}, value)])),
    ...(row.warnings.length
      ? [make("ul", { className: "mlt-warnings" }, ...row.warnings.map((one) => make("li", {}, text(`dataset.warning.${one}`))))]
      : []),
    ...(detail.infills.length ? [infills(detail.infills, onInfill)] : []),
  ];
}

/**
 * Why the view infill shows the picture as it is; empty where it shows a replaced background.
 * @param {boolean} cached whether a cache is connected, which alone knows what it puts behind the pictures.
 */
export function withoutInfill(detail, cached) {
  if (detail.infills.length) return "";
  return text(`dataset.noInfill.${detail.has_mask ? (cached ? "none" : "withoutCache") : "noMask"}`);
}

/** "81 frames, 16/s", as far as the clip tells; "clip" of one that tells nothing. */
export function clipWords({ frames, rate }) {
  const told = frames ? text("dataset.clipFrames", { count: frames }) : text("dataset.clip");
  return rate ? text("dataset.clipRate", { frames: told, rate: Number(rate.toFixed(2)) }) : told;
}

function infills(found, onInfill) {
  const buttons = found.map((infill, i) =>
    button(`${i + 1}`, [text(`dataset.infill.${infill.kind}`), infill.from].filter(Boolean).join(": "), () => {
      for (const one of buttons) one.setAttribute("aria-pressed", String(one === buttons[i]));
      onInfill(i);
    }));
  return make("div", { className: "mlt-row", role: "group", "aria-label": text("dataset.infills") }, text("dataset.infills"), ...buttons);
}
