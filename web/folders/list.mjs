// The folders to choose from: a search, and the list below it, which the arrow keys of the search walk.
import { make, say } from "../page/elements.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";
import { searched } from "./sorting.mjs?v=0.1.0";

const PAGE = 10;
let lists = 0;

export class FolderList {
  /** @param {(name: string) => void} onChoose given what the widget takes. */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.id = `mlt-folders-${(lists += 1)}`;
    this.folders = this.rows = [];
    this.at = 0;
    this.search = make("input", {
      type: "search", className: "mlt-field", role: "combobox", placeholder: text("folders.search"),
      "aria-label": text("folders.search"), "aria-controls": this.id, "aria-expanded": "true", autocomplete: "off",
      oninput: () => this.draw(),
      onkeydown: (event) => this.key(event),
    });
    this.list = make("ul", { id: this.id, className: "mlt-folder-list", role: "listbox", "aria-label": text("folders.title") });
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest("li");
      if (row) this.onChoose(this.rows[Number(row.dataset.at)].name);
    });
    this.note = make("p", { className: "mlt-note", role: "status" });
    this.element = make("div", { className: "mlt-folder-choice" }, this.search, this.list, this.note);
  }

  /**
   * @param folders as the server lists them. @param {boolean} complete whether that is all.
   * @param {string} current the one that the keys begin at.
   */
  show(folders, complete, current) {
    Object.assign(this, { folders, complete, current });
    this.draw();
  }

  draw() {
    this.rows = searched(this.folders, this.search.value);
    this.list.replaceChildren(...this.rows.map((folder, at) => this.row(folder, at)));
    this.point(Math.max(0, this.rows.findIndex((folder) => folder.name === this.current)));
    say(this.note, this.words());
  }

  words() {
    if (!this.folders.length) return text("folders.none");
    if (!this.rows.length) return text("folders.noneFound");
    return this.complete ? "" : text("folders.incomplete");
  }

  row({ name, shown, place, pictures, clips = 0, masks, changed }, at) {
    const date = new Date(changed * 1000);
    const lies = place === "input" ? [] : [make("span", { className: "mlt-folder-place" }, text(`folders.place.${place}`))];
    return make(
      "li",
      { id: `${this.id}-${at}`, role: "option", title: name, "data-at": at, "data-current": String(name === this.current) },
      make("span", { className: "mlt-folder-name" }, make("bdi", {}, shown), ...lies),
      make("span", {}, holds(pictures - clips, clips)),
      // Masks by their names: in a folder without them the pictures' own alpha may be masks.
      make("span", {}, masks ? text("folders.masks", { count: masks }) : ""),
      make("time", { dateTime: date.toISOString(), title: date.toLocaleString() }, date.toLocaleDateString()),
    );
  }

  point(at) {
    this.list.children[this.at]?.setAttribute("aria-selected", "false");
    this.at = Math.min(Math.max(0, at), this.rows.length - 1);
    const row = this.list.children[this.at];
    row?.setAttribute("aria-selected", "true");
    row?.scrollIntoView({ block: "nearest" });
    this.search.setAttribute("aria-activedescendant", row?.id ?? "");
  }

  key(event) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE }[event.key];
    if (by) this.point(this.at + by);
    else if (event.key === "Enter" && this.rows.length) this.onChoose(this.rows[this.at].name);
    else return;
    event.preventDefault();
  }
}

/** How many pictures and clips a folder holds, in words; of none, no pictures. */
function holds(pictures, clips) {
  const told = clips ? [text("folders.clips", { count: clips })] : [];
  return [...(pictures || !clips ? [text("folders.pictures", { count: pictures })] : []), ...told].join(", ");
}
