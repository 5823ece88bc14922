// The controls of the data set browser: which view, tint and opacity, search, filter and order.
import { button, make } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { AUTOMATIC } from "../page/tint.mjs?v=0.1.0";
import { FILTERS, ORDERS } from "./rows.mjs?v=0.1.0";

/** A labelled drop-down; `set(values)` changes its options' texts, `onchange` gets the value. */
export function dropDown(label, options, value, onchange) {
  const field = make("select", { className: "mlt-field", "aria-label": label, title: label });
  field.append(...options.map(([key, words]) => make("option", { value: key }, words)));
  field.value = value;
  field.addEventListener("change", () => onchange(field.value));
  return field;
}

/** Hides the view of pairs, among options or buttons, from a set that has no references. */
export function offerPairs(choices, rows) {
  const none = rows.every((row) => !row.references);
  for (const one of choices) if ((one.value || one.dataset.view) === "pair") one.hidden = none;
}

/** A row of buttons of which one is pressed; keys 1 to 9 belong to whoever owns the row. */
export function viewButtons(views, current, onchange) {
  const buttons = views.map((view, i) => {
    const hint = text(`dataset.viewHint.${view}`, {});
    const one = make("button", { type: "button", className: "mlt-button", title: `${hint} (${i + 1})` }, text(`dataset.view.${view}`));
    one.dataset.view = view;
    one.addEventListener("click", () => press(view));
    return one;
  });
  const press = (view) => {
    for (const one of buttons) one.setAttribute("aria-pressed", String(one.dataset.view === view));
    onchange(view);
  };
  for (const one of buttons) one.setAttribute("aria-pressed", String(one.dataset.view === current));
  const element = make("div", { className: "mlt-row", role: "group", "aria-label": text("dataset.views") }, ...buttons);
  return { element, press };
}

/** Colour and opacity of the overlay; `show(colour, automatic)` shows the tint that there is. */
export function tintControls(look, onchange) {
  const colour = make("input", { type: "color", "aria-label": text("dataset.colour"), title: text("dataset.colour") });
  const automatic = button(text("tint.automatic"), text("tint.automaticHint"), () => onchange({ colour: AUTOMATIC }));
  const opacity = make("input", { type: "range", min: 0, max: 100, value: look.opacity, className: "mlt-range" });
  colour.addEventListener("input", () => onchange({ colour: colour.value }));
  opacity.addEventListener("input", () => onchange({ opacity: Number(opacity.value) }));
  const element = make("div", { className: "mlt-row" }, colour, automatic, make("label", { className: "mlt-row" }, text("dataset.opacity"), opacity));
  const show = (tint, isAutomatic) => {
    colour.value = tint;
    automatic.setAttribute("aria-pressed", String(isAutomatic));
  };
  return { element, show };
}

/** Search, filter and order; `onchange` gets {search, filter, order}; `count(counts)` shows how many pass each filter. */
export function chooser(onchange) {
  const state = { search: "", filter: "all", order: "given" };
  const change = (part) => onchange(Object.assign(state, part));
  const search = make("input", {
    type: "search", className: "mlt-field mlt-search", placeholder: text("dataset.search"), "aria-label": text("dataset.search"),
  });
  search.addEventListener("input", () => change({ search: search.value }));
  const words = (key) => text(key === "all" || key === "warned" || key === "no_mask" || key === "stale" ? `dataset.filter.${key}` : `dataset.warning.${key}`);
  const filter = dropDown(text("dataset.filterLabel"), FILTERS.map((key) => [key, words(key)]), "all", (value) => change({ filter: value }));
  const order = dropDown(text("dataset.orderLabel"), ORDERS.map((key) => [key, text(`dataset.order.${key}`)]), "given", (value) => change({ order: value }));
  const element = make("div", { className: "mlt-row mlt-chooser" }, search, filter, order);
  const count = (found) => {
    for (const option of filter.options) option.textContent = `${words(option.value)} (${found[option.value]})`;
  };
  return { element, state, search, count };
}
