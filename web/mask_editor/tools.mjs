// What each tool does with a press, a move and a release; places are pixels of the picture, with fractions.
import { between } from "./rect.mjs?v=0.1.0";
import { boxRegion, colourRegion, polygonRegion } from "./regions.mjs?v=0.1.0";
import { tipRadius } from "./stroke.mjs?v=0.1.0";

/** Less than this, in pixels of the page, is a click and no drag. */
const CLICK = 4;

export const TOOLS = ["brush", "eraser", "fill", "box", "lasso", "grabcut", "select"];
/** Tools that change the mask by a region. */
export const REGION_TOOLS = ["fill", "box", "lasso", "grabcut", "select"];

/** What Alt makes of a choice, for one time. */
function combined(settings, event) {
  if (!event?.altKey || settings.combine === "replace") return settings.combine;
  return settings.combine === "add" ? "remove" : "add";
}

function painting(session, paints) {
  let stroke = null;
  const radius = (event) => tipRadius(session.size, event, session.settings.pressure);
  return {
    start([x, y], event) {
      const { hardness, opacity } = session.settings;
      const learn = (paints === "brush") !== Boolean(event.altKey || event.button === 5);
      stroke = session.mask.stroke({ value: learn ? 255 : 0, hardness: hardness / 100, opacity: opacity / 100 });
      session.mask.draw(stroke, x, y, radius(event));
    },
    move([x, y], event) {
      if (stroke) session.mask.draw(stroke, x, y, radius(event));
    },
    end() {
      if (stroke) session.report(session.mask.commit());
      stroke = null;
    },
    cancel() {
      if (stroke) session.mask.cancel();
      stroke = null;
    },
  };
}

function filling(session) {
  return {
    start([x, y], event) {
      const { width, height } = session.mask;
      const [px, py] = [Math.floor(x), Math.floor(y)];
      if (px < 0 || py < 0 || px >= width || py >= height) {
        session.report("missed");
        return;
      }
      const { tolerance, contiguous } = session.settings;
      session.apply(colourRegion(session.pixels(), width, height, px, py, { tolerance, contiguous }), combined(session.settings, event));
    },
    move() {},
    end() {},
    cancel() {},
  };
}

/** A tool that draws a box and does `done(rect, event)` with it; `clicked` instead of a box that is too small to be one. */
function boxing(session, done, clicked = () => session.report("clicked")) {
  let from = null;
  const shape = ([x1, y1], [x2, y2]) => [[x1, y1], [x2, y1], [x2, y2], [x1, y2]];
  const clear = () => {
    from = null;
    session.marks.show({ shape: [] });
  };
  return {
    byCorners: true,
    start(place) {
      from = place;
    },
    move(place) {
      if (from) session.marks.show({ shape: shape(from, place), closed: true });
    },
    end(place, event) {
      if (!from) return;
      const start = from;
      clear();
      const drag = Math.max(Math.abs(place[0] - start[0]), Math.abs(place[1] - start[1])) * session.scale;
      if (drag < CLICK) clicked(start, event);
      else done(between(start, place), event);
    },
    cancel: clear,
  };
}

function lassoing(session) {
  let points = [];
  const clear = () => {
    points = [];
    session.marks.show({ shape: [] });
  };
  return {
    byPoints: true,
    start(place) {
      points = [place];
    },
    move(place) {
      if (!points.length) return;
      points.push(place);
      session.marks.show({ shape: points, closed: false });
    },
    end(_, event) {
      const region = polygonRegion(points, session.mask.width, session.mask.height);
      clear();
      if (region) session.apply(region, combined(session.settings, event));
      else session.report("notAround");
    },
    cancel: clear,
  };
}

const asBox = ({ left, top, right, bottom }) => [left, top, right - left, bottom - top];

/** Shift adds a point to those before, Alt one that is not meant; what they mean then takes the place of what was. */
function selecting(session) {
  let points = [];
  let state = null;
  const forget = () => {
    points = [];
    state = null;
    session.marks.show({ points });
  };
  const ask = async (prompts, again) => {
    const region = await session.compute(() => session.server.select(prompts));
    if (!region) return false;
    // The same selection, better told: what it was before is not a step of its own.
    session.apply(region, session.settings.combine, again && session.mask.history.state === state);
    state = session.mask.history.state;
    return true;
  };
  const click = async ([x, y], event) => {
    const { width, height } = session.mask;
    const again = points.length > 0 && (event.shiftKey || event.altKey);
    const point = { x: Math.floor(x), y: Math.floor(y), inside: !(again && event.altKey) };
    if (point.x < 0 || point.y < 0 || point.x >= width || point.y >= height) {
      session.report("missed");
      return;
    }
    const before = points;
    points = again ? [...points, point] : [point];
    session.marks.show({ points });
    if (!(await ask({ points }, again))) session.marks.show({ points: (points = before) });
  };
  const box = (rect) => {
    forget();
    ask({ box: asBox(rect) }, false);
  };
  return { ...boxing(session, box, click), byCorners: false, forget };
}

/** The tools by name, for a session with mask, settings, marks, server, scale, apply, report, compute and pixels. */
export function makeTools(session) {
  const inPicture = (rect) => boxRegion(rect, session.mask.width, session.mask.height);
  const box = (rect, event) => {
    const region = inPicture(rect);
    if (region) session.apply(region, combined(session.settings, event));
    else session.report("missed");
  };
  const cut = async (rect, event) => {
    if (!inPicture(rect)) {
      session.report("missed");
      return;
    }
    const combine = combined(session.settings, event);
    const region = await session.compute(() => session.server.grabcut(asBox(rect)));
    if (region) session.apply(region, combine);
  };
  return {
    brush: painting(session, "brush"),
    eraser: painting(session, "eraser"),
    fill: filling(session),
    box: boxing(session, box),
    lasso: lassoing(session),
    grabcut: boxing(session, cut),
    select: selecting(session),
  };
}
