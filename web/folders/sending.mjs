// Files on their way into a folder: some at a time, each whole or not at all.
import { told } from "../page/told.mjs?v=0.1.0";
const ROUTE = "/masked_lora/folders";
const AT_A_TIME = 3;
const TAKEN = 409;
// No later file would fare better.
const FATAL = [403, 404, 507];

/** What there is to choose and what may be sent. Rejects with the server's words. */
export function askFolders(api) {
  return ask(api, "", {});
}

export class Sending {
  /**
   * @param api ComfyUI's scripts/api.js
   * @param {{path: string, file: File}[]} files
   * @param {() => void} onProgress called whenever `done` has grown.
   */
  constructor(api, files, onProgress) {
    Object.assign(this, { api, files, onProgress });
    this.done = 0;
    this.kept = [];
    this.failed = [];
    this.stop = new AbortController();
  }

  /**
   * Announces the files to a folder of that name. Rejects with the server's words, with `status` 409 where the folder
   * has files and `add` is not set.
   */
  async begin(name, add) {
    const bytes = this.files.reduce((sum, { file }) => sum + file.size, 0);
    const body = JSON.stringify({ name, files: this.files.length, bytes, add });
    const told = await ask(this.api, "", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    Object.assign(this, told);
  }

  /** Sends all; `kept` are the names of those that came, `failed` those that did not: [{path, reason, taken}]. */
  async send() {
    const waiting = [...this.files];
    const work = async () => {
      while (waiting.length && !this.stop.signal.aborted) await this.sendOne(waiting.shift());
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, work));
  }

  async sendOne({ path, file }) {
    try {
      const { name } = await ask(this.api, `/${this.id}/files?path=${encodeURIComponent(path)}`, {
        method: "POST",
        headers: { "Content-Type": "application/octet-stream" },
        body: file,
        signal: this.stop.signal,
      });
      this.kept.push({ path, name });
    } catch (error) {
      if (this.stop.signal.aborted) return;
      const { message, status } = error;
      this.failed.push({ path, reason: message.includes(path) ? message : `${path}: ${message}`, taken: status === TAKEN });
      if (FATAL.includes(status)) this.stop.abort();
    }
    this.done += 1;
    this.onProgress();
  }

  /** Sends no more; what has come stays. */
  cancel() {
    this.cancelled = true;
    this.stop.abort();
  }
}

async function ask(api, path, options) {
  const answer = await api.fetchApi(ROUTE + path, { cache: "no-store", ...options });
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  throw Object.assign(new Error(told(content.error) ?? `${answer.status} ${answer.statusText}`), { status: answer.status });
}
