// A training under the LoRA's name in the tab's title and, where a person asked for it, a notification at its end.
import { filesOf } from "./ending.mjs?v=0.1.0";
import { isLive } from "./describe.mjs?v=0.1.0";
import { text } from "../page/strings.mjs?v=0.1.0";

const SETTING = "masked_lora.notify";

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
    store.onHeard = (run) => this.hear(run);
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

  /** Not while the page is looked at: it shows the end itself. */
  tell(run) {
    if (!this.wanted || !document.hidden || globalThis.Notification?.permission !== "granted") return;
    const body = run.written ? text("runs.written", { file: filesOf(run).join(", ") }) : text(`runs.state.${run.state}`);
    const shown = new Notification(run.name, { body, tag: run.id });
    shown.onclick = () => window.focus();
  }

  rename() {
    const run = [...this.live.values()].at(-1);
    if (run && document.title.includes(this.type)) document.title = document.title.replace(this.type, run.name);
  }
}
