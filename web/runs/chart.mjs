// The curves of one run, or of two in one chart.
import uPlot from "../vendor/uplot/uPlot.esm.mjs?v=0.1.0";
import { columns, MEASURED, scaleOf } from "./series.mjs?v=0.1.0";

const FONT = "11px sans-serif";

/** Colour of a curve, from the panel's style sheet. */
export function colourOf(key) {
  return `var(--mlt-${key.replaceAll("_", "-")})`;
}

export class Chart {
  /** @param {function(number|null)} hover is told the step under the pointer, or null when it has left. */
  constructor(hover = () => {}) {
    this.hover = hover;
    this.element = document.createElement("div");
    this.element.className = "mlt-chart";
    this.plot = null;
    this.shape = "";
    this.observer = new ResizeObserver(() => this.fit());
  }

  /** Follows the size of its place from here on. */
  wake() {
    this.observer.observe(this.element);
  }

  sleep() {
    this.observer.disconnect();
  }

  /** Draws `runs` (rows of one or two) with `curves`; the second run's curves are dashed. */
  draw(runs, { curves, weight, log }) {
    const data = columns(runs, { curves, weight, log });
    const palette = this.palette(curves);
    const shape = JSON.stringify([runs.length, curves, log, palette]);
    if (shape !== this.shape || !this.plot) {
      this.plot?.destroy();
      this.plot = new uPlot(this.options(runs.length, curves, log, palette), data, this.element);
      this.shape = shape;
      this.fit();
    } else {
      this.plot.setData(data);
    }
  }

  /** The colours as a canvas takes them; they follow ComfyUI's theme. */
  palette(curves) {
    const style = getComputedStyle(this.element);
    const value = (name) => style.getPropertyValue(name).trim();
    return {
      text: value("--input-text") || "gray",
      grid: value("--border-color") || "gray",
      curves: curves.map((key) => value(`--mlt-${key.replaceAll("_", "-")}`) || "gray"),
    };
  }

  options(count, curves, log, palette) {
    const series = [{}];
    for (let run = 0; run < count; run += 1) {
      curves.forEach((key, i) => {
        series.push({
          label: key,
          scale: scaleOf(key),
          stroke: palette.curves[i],
          width: run ? 1 : 2,
          dash: run ? [6, 4] : undefined,
          spanGaps: true,
          // A line from a single measure to nowhere could not be seen.
          points: { show: MEASURED.has(key), size: 5 },
        });
      });
    }
    const beside = (scale) => ({
      ...axis, scale, side: 1, size: 56, values: short, grid: { show: false }, show: curves.some((key) => scaleOf(key) === scale),
    });
    const axis = { stroke: palette.text, font: FONT, grid: { stroke: palette.grid, width: 1 }, ticks: { show: false } };
    const short = (_, values) => values.map((value) => (value === null ? "" : String(Number(value.toPrecision(3)))));
    return {
      width: 300,
      height: 160,
      legend: { show: false },
      cursor: {
        y: false,
        drag: { x: false, y: false },
        points: { show: false },
        // The canvas zooms the whole panel, of which uPlot knows nothing.
        move: (plot, left, top) => {
          const { width, height } = plot.over.getBoundingClientRect();
          // Before the first move, and where the node is hidden: below zero, which is nowhere, has to stay so.
          if (left < 0 || top < 0 || !width || !height) return [left, top];
          return [(left * plot.over.offsetWidth) / width, (top * plot.over.offsetHeight) / height];
        },
      },
      hooks: {
        setCursor: [(plot) => this.hover(plot.cursor.idx == null || plot.cursor.left < 0 ? null : plot.data[0][plot.cursor.idx])],
      },
      scales: { x: { time: false }, y: { distr: log ? 3 : 1 }, rate: {}, pictures: {} },
      series,
      axes: [
        { ...axis, size: 24 },
        { ...axis, scale: "y", size: 52, values: short },
        beside("pictures"),
        beside("rate"),
      ],
    };
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (this.plot && width > 0 && height > 0) this.plot.setSize({ width, height });
  }

  destroy() {
    this.sleep();
    this.plot?.destroy();
    this.plot = null;
  }
}
