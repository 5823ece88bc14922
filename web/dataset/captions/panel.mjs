// Beside the large view's list: the tags of all captions, and changes to many captions at once.
import { make } from "../../page/elements.mjs?v=0.1.0";
import { text } from "../../page/strings.mjs?v=0.1.0";
import { BulkChange } from "./bulk.mjs?v=0.1.0";
import { TagList } from "./tag_list.mjs?v=0.1.0";

export class CaptionsPanel {
  /**
   * @param source a DatasetSource.
   * @param {{shown: () => number[], before: () => Promise<boolean>, onFilter: () => void}} options as of BulkChange
   *   and TagList.
   */
  constructor(source, { shown, before, onFilter }) {
    this.bulk = new BulkChange(source, { shown, before });
    this.tags = new TagList(source, { onFilter, onTag: (name) => this.bulk.offer(name) });
    this.element = make(
      "section",
      { className: "mlt-captions", "aria-label": text("dataset.tags.title"), hidden: true },
      this.tags.element,
      this.bulk.element,
    );
  }

  /** Whether the picture of an index is among those that the chosen tags leave. */
  get passes() {
    return this.element.hidden ? () => true : this.tags.passes;
  }

  toggle() {
    this.element.hidden = !this.element.hidden;
    if (this.element.hidden) this.tags.clear();
    else {
      this.tags.load();
      this.bulk.open();
      this.tags.search.focus();
    }
    return !this.element.hidden;
  }

  /** Takes over that captions may have changed. */
  refresh() {
    if (!this.element.hidden) this.tags.load();
  }

  /** Tells how many pictures are shown now; another choice needs another preview. */
  filtered() {
    if (this.bulk.scope.value === "shown" && !this.bulk.work.running) this.bulk.forget();
    else this.bulk.update();
  }

  destroy() {
    this.bulk.closed = true;
  }
}
