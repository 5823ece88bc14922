// A training under the LoRA's name in the tab's title and, where a person asked for it, a notification at its end.
import { stateLine } from "./apart/describe.mjs?v=0.1.0";
import { goesOn } from "./apart/store.mjs?v=0.1.0";
import { filesOf } from "./ending.mjs?v=0.1.0";
import { isLive } from "./describe.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";

const SETTING = "masked_lora.notify";
// The training apart whose end was told last, for all pages of this browser.
const TOLD = "masked_lora.told";
// By then a page that is looked at has seen the end too.
const OTHERS_MS = 4000;

export class Announcer {
  /**
   * @param store a RunStore, which hears of the runs that this page has queued.
   * @param {string} type of the training node: ComfyUI puts the name of the node that works into the title.
   */
  constructor(store, type) {
    this.store = store;
    this.type = type;
    this.live = new Map();
    this.wanted = false;
    // What stands before ComfyUI's own title.
    this.lead = "";
    store.onHeard = (run) => this.hear(run);
    store.apart.onHeard = (start, ended) => this.hearApart(start, ended);
    // Of a training apart that goes on as the page is opened no event tells.
    store.apart.refresh();
    const title = document.querySelector("title") ?? document.head.appendChild(document.createElement("title"));
    new MutationObserver(() => this.rename()).observe(title, { childList: true, characterData: true, subtree: true });
  }

  /** What ComfyUI's settings need to show the switch; turning it on asks the browser for leave. */
  setting() {
    return {
      id: SETTING,
      name: text("runs.notifySetting"),
      tooltip: text("runs.notifyHint"),
      type: "boolean",
      defaultValue: false,
      onChange: (on) => {
        this.wanted = on;
        if (on && globalThis.Notification?.permission === "default") Notification.requestPermission();
      },
    };
  }

  hear(run) {
    const was = this.live.get(run.id);
    if (isLive(run)) this.live.set(run.id, run);
    else if (was && this.live.delete(run.id)) this.tell(run);
    this.rename();
  }

  tell(run) {
    if (this.mayNotify()) this.notify(run.name, run.written ? written(run) : text(`runs.state.${run.state}`), run.id);
  }

  /** All pages hear of a training apart: one that is looked at shows the end itself, of the others one tells it. */
  hearApart(start, ended) {
    this.rename();
    if (!ended) return;
    if (!document.hidden) claim(start.id);
    else setTimeout(() => this.mayNotify() && claim(start.id) && this.tellApart(start), OTHERS_MS);
  }

  tellApart(start) {
    const run = this.store.run(start.run);
    const wrote = start.end.state === "finished" && run?.written;
    this.notify(start.name, wrote ? written(run) : stateLine(start), start.id);
  }

  /** Not while the page is looked at: it shows the end itself. */
  mayNotify() {
    return this.wanted && document.hidden && globalThis.Notification?.permission === "granted";
  }

  notify(name, body, tag) {
    const shown = new Notification(name, { body, tag });
    shown.onclick = () => window.focus();
  }

  rename() {
    const { title } = document;
    let own = title.startsWith(this.lead) ? title.slice(this.lead.length) : title;
    const run = [...this.live.values()].at(-1);
    if (run) own = own.replace(this.type, run.name);
    this.lead = this.leadOf(this.store.apart.start);
    if (title !== this.lead + own) document.title = this.lead + own;
  }

  /** Of a training apart the title of ComfyUI, whose queue is free, tells nothing. */
  leadOf(start) {
    if (!goesOn(start)) return "";
    const total = this.store.run(start.run)?.total;
    const far = total ? `[${Math.floor((100 * start.step) / total)}%] ` : "";
    return `${far}${start.name} · `;
  }
}

function written(run) {
  return text("runs.written", { file: filesOf(run).join(", ") });
}

/** Whether no page of this browser has told an end before. */
function claim(id) {
  try {
    if (localStorage.getItem(TOLD) === id) return false;
    localStorage.setItem(TOLD, id);
  } catch {
    // Without a storage notifications of one tag still take each other's place.
  }
  return true;
}
