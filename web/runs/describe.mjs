// A run in words, and which run a node means. Pure functions.
import { locale, text } from "../page/strings.mjs?v=0.1.0";

const LIVE = new Set(["running", "paused", "stopping"]);

export function isLive(run) {
  return LIVE.has(run?.state);
}

/** Three significant digits, without a row of zeros: 0.0123, 1.00e-4, 12.3. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size < 0.001 || size >= 1e6 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

/** Seconds as 0:07, 12:30 or 3:05:00. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, i) => (i ? String(part).padStart(2, "0") : String(part))).join(":");
}

/** Bytes as a person reads them: 640 kB, 5.6 MB, 1.23 GB. */
export function size(bytes) {
  const [unit, power] = bytes < 1e6 ? ["kB", 3] : bytes < 1e9 ? ["MB", 6] : ["GB", 9];
  return text(`runs.size.${unit}`, { number: number(bytes / 10 ** power) });
}

/** When a run was begun, as the page's language writes dates; empty where that is not known. */
export function begun(run) {
  const style = { dateStyle: "medium", timeStyle: "short" };
  return run?.started ? new Date(run.started * 1000).toLocaleString(locale(), style) : "";
}

/** Step, speed and time left of a run, as far as they are known. */
export function progress(run) {
  const known = run.total !== null && run.total !== undefined;
  const words = [text(known ? "runs.progress" : "runs.progressOpen", { step: run.step, total: run.total })];
  if (isLive(run) && run.steps_per_second > 0) {
    words.push(text("runs.speed", { rate: number(run.steps_per_second) }));
    if (known && run.state === "running") {
      words.push(text("runs.left", { time: duration((run.total - run.step) / run.steps_per_second) }));
    }
  }
  return words.join(" · ");
}

/** Memory in use, or nothing where it is not known. */
export function memory(run) {
  if (!run?.memory) return "";
  const gib = (bytes) => number(bytes / 2 ** 30);
  return text("runs.memory", { used: gib(run.memory.used), total: gib(run.memory.total) });
}

/** The name that a run's folder carries for what is written in the node's widget `name`. */
export function safeName(name) {
  const plain = String(name ?? "").replace(/[^\p{L}\p{N}_.-]+/gu, "_").replace(/^[._]+|[._]+$/g, "");
  return [...plain].slice(0, 80).join("") || "run";
}

/**
 * The run that a node shows: the one it trains now, or that is trained under its name, else the newest of that name.
 * @param {object[]} runs newest first.
 */
export function runOf(runs, { node, name }) {
  const wanted = safeName(name);
  const live = runs.filter(isLive);
  return (
    live.find((run) => run.name === wanted && run.node === String(node)) ??
    live.find((run) => run.node === String(node)) ??
    // Another process does not tell its node: that may be one of another graph.
    live.find((run) => run.name === wanted) ??
    runs.find((run) => run.name === wanted) ??
    null
  );
}
