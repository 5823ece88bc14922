// The question about pictures without a mask in a set that has masks: such a picture is learned whole, backdrop and all.
import { button, make, say } from "../page/elements.mjs?v=0.1.0";
import { setWidget } from "../page/nodes.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { feeder, isFed } from "./upstream.mjs?v=0.1.0";

/** The node that loads a folder. */
export const LOADER = "MLT_LoadDataset";
const WIDGET = "missing_mask";
const WHOLE = "train whole image", LEFT_OUT = "skip image";
const ANSWERED = "masked_lora_maskless";
const FAR = 50;

/** The Load Dataset node that a node's data set comes from, however many nodes lie between; null where it is another. */
export function loaderOf(node) {
  let origin = feeder(node, "dataset");
  for (let i = 0; i < FAR && origin && origin.type !== LOADER; i += 1) origin = feeder(origin, "dataset");
  return origin?.type === LOADER ? origin : null;
}

/** The rows of pictures without a mask where others have one; empty where all or none have. */
export function bareIn(rows) {
  const bare = rows.filter((row) => !row.hasMask);
  return bare.length < rows.length ? bare : [];
}

export class MasklessQuestion {
  /** @param node Inspect Dataset. @param {(index: number) => void} paint opens a picture in the mask editor. */
  constructor(node, paint) {
    this.node = node;
    this.words = make("span", {});
    this.element = make(
      "div",
      { className: "mlt-row mlt-question", role: "group", hidden: true },
      this.words,
      button(text("dataset.maskless.paint"), text("dataset.maskless.paintHint"), () => paint(this.bare[0].index)),
      button(text("dataset.maskless.leave"), text("dataset.maskless.leaveHint"), () => this.leaveOut()),
      button(text("dataset.maskless.whole"), text("dataset.maskless.wholeHint"), () => this.answer()),
    );
  }

  update(rows) {
    this.bare = bareIn(rows);
    const widget = loaderOf(this.node)?.widgets?.find((one) => one.name === WIDGET);
    const open = widget?.value === WHOLE && !isFed(loaderOf(this.node), WIDGET);
    const isAsked = open && this.bare.length > 0 && this.node.properties?.[ANSWERED] !== this.key();
    this.element.hidden = !isAsked;
    say(this.words, isAsked ? text("dataset.maskless.question", { count: this.bare.length }) : "");
  }

  /** Asked again when it is about other pictures. */
  key() {
    return this.bare.map((row) => row.name).join("\n").slice(0, 2000);
  }

  leaveOut() {
    setWidget(loaderOf(this.node), WIDGET, LEFT_OUT);
    this.element.hidden = true;
  }

  answer() {
    this.node.properties[ANSWERED] = this.key();
    this.element.hidden = true;
  }
}
