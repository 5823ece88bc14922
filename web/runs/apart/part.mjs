// A training apart in a panel: the button that starts it, and the lines that tell how it is doing.
import { askCount } from "./dialog.mjs?v=0.1.0";
import { buttonName, details, stateLine, warnings } from "./describe.mjs?v=0.1.0";
import { goesOn } from "./store.mjs?v=0.1.0";
import { button, make, say } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";

/**
 * A button that trains the open graph apart, and says what came in its way to `tell`; `update()` shows whether it can.
 * @param apart an ApartStore.
 * @param page tells the graph: {whole()}, as {prompt, workflow}.
 */
export function apartButton(apart, page, tell) {
  const element = button("", "", async () => {
    try {
      await apart.refresh();
      if (!apart.choices) throw new Error(text("runs.offline"));
      const count = await askCount(document.body, apart.choices);
      if (count === null) return;
      tell("");
      await apart.begin(await page.whole(), count);
    } catch (error) {
      tell(text("runs.failed", { reason: error.message }));
    }
  });
  const update = () => {
    const { choices, start } = apart;
    element.hidden = !choices;
    element.disabled = goesOn(start);
    say(element, buttonName(choices));
    element.title = text(goesOn(start) ? "runs.apart.goesOn" : choices?.cards > 1 ? "runs.apart.allCardsHint" : "runs.apart.ownProcessHint");
  };
  update();
  return { element, update };
}

export class ApartPart {
  /**
   * @param apart an ApartStore.
   * @param {(start: object) => boolean} concerns whether a training apart is shown here; without it all are, by name.
   */
  constructor(apart, concerns = null) {
    Object.assign(this, { apart, concerns });
    this.name = make("div", { className: "mlt-title", hidden: Boolean(concerns) });
    this.line = make("strong", { role: "status" });
    this.details = make("div", { className: "mlt-apart-details" });
    this.warnings = make("ul", { className: "mlt-notes" });
    this.error = make("div", { className: "mlt-bad", role: "status" });
    this.cancel = button("", "", () => this.act(() => this.apart.cancel()));
    this.hide = button(text("runs.apart.hide"), text("runs.apart.hide"), () => this.act(() => this.apart.hide()));
    this.element = make(
      "div",
      { className: "mlt-apart", role: "group", "aria-label": text("runs.apart.part"), hidden: true },
      this.name,
      make("div", { className: "mlt-row" }, this.line, this.cancel, this.hide),
      this.details, this.warnings, this.error,
    );
  }

  async act(wish) {
    try {
      say(this.error, "");
      await wish();
    } catch (error) {
      say(this.error, text("runs.failed", { reason: error.message }));
    }
  }

  update() {
    const { shown } = this.apart;
    this.element.hidden = !shown || this.concerns?.(shown) === false;
    if (this.element.hidden) return;
    const going = goesOn(shown);
    say(this.name, shown.name);
    say(this.line, stateLine(shown));
    this.element.dataset.state = going ? shown.state : shown.end.state;
    say(this.details, details(shown));
    const told = warnings(shown);
    this.warnings.hidden = !told.length;
    if (told.join("\n") !== this.told) {
      this.told = told.join("\n");
      this.warnings.replaceChildren(...told.map((one) => make("li", { className: "mlt-bad" }, one)));
    }
    this.cancel.hidden = !going;
    this.hide.hidden = going;
    say(this.cancel, text(shown.cancelled ? "runs.apart.endNow" : "runs.apart.cancel"));
    this.cancel.title = text(shown.cancelled ? "runs.apart.endNowHint" : "runs.apart.cancelHint");
  }
}
