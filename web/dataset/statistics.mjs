// The whole set in numbers: coverage, training sizes, what matched.
import { make } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { buckets, counts, histogram } from "./rows.mjs?v=0.1.0";
import { told } from "../page/told.mjs?v=0.1.0";

const BINS = 20;
const NAMES_SHOWN = 50;

/** An element with the statistics of `rows` and of the server's `facts`. */
export function statistics(rows, facts) {
  const found = counts(rows);
  const paired = rows.filter((row) => row.references).length;
  const lists = ["orphaned", "skipped", "left_unpaired", "reference_extra"].map((key) => [key, facts[key]]);
  const facing = [
    [text("dataset.filter.all"), rows.length],
    [text("dataset.matched"), rows.length - found.no_mask],
    [text("dataset.filter.no_mask"), found.no_mask],
    [text("dataset.orphaned"), facts.orphaned.length],
    [text("dataset.skipped"), facts.skipped.length],
    ...(paired ? [[text("dataset.paired"), paired], [text("dataset.reference_extra"), facts.reference_extra.length]] : []),
    [text("dataset.filter.warned"), found.warned],
    ...(facts.cached ? [[text("dataset.filter.stale"), found.stale]] : []),
  ];
  return make(
    "div",
    { className: "mlt-statistics" },
    table(text("dataset.pictures"), facing),
    coverage(rows),
    table(text("dataset.buckets"), buckets(rows)),
    ...lists.filter(([, names]) => names.length).map(([key, names]) => list(key, names)),
    ...facts.notes.map((note) => make("p", { className: "mlt-note" }, told(note))),
  );
}

function table(title, lines) {
  const rows = lines.map(([words, number]) =>
    make("tr", {}, make("th", { scope: "row" }, words), make("td", {}, String(number))));
  return make("table", { className: "mlt-table" }, make("caption", {}, title), make("tbody", {}, ...rows));
}

function coverage(rows) {
  const bins = histogram(rows, BINS);
  const most = Math.max(1, ...bins);
  const bars = bins.map((count, i) => {
    const range = `${(i * 100) / BINS}–${((i + 1) * 100) / BINS} %: ${count}`;
    const bar = make("span", { className: "mlt-bar", title: range });
    bar.style.height = `${count ? Math.max(3, (count / most) * 100) : 0}%`;
    return bar;
  });
  const words = bins.map((count, i) => (count ? `${(i * 100) / BINS}–${((i + 1) * 100) / BINS} %: ${count}` : "")).filter(Boolean).join(", ");
  return make(
    "figure",
    { className: "mlt-histogram" },
    make("figcaption", {}, text("dataset.coverageOfMasks")),
    make("div", { className: "mlt-bars", role: "img", "aria-label": words || text("dataset.noMask") }, ...bars),
    make("div", { className: "mlt-row mlt-note mlt-ends" }, make("span", {}, "0 %"), make("span", {}, "100 %")),
  );
}

function list(key, names) {
  const shown = names.slice(0, NAMES_SHOWN).map((name) => make("li", {}, name));
  const more = names.length - NAMES_SHOWN;
  if (more > 0) shown.push(make("li", {}, text("dataset.more", { count: more })));
  return make("details", {}, make("summary", {}, text(`dataset.${key}`)), make("ul", {}, ...shown));
}
