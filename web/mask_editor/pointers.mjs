// Mouse, pen and fingers on the canvas: one draws, the middle button or two fingers move the picture. While a pen is
// down, fingers do nothing: the hand that holds it rests on the screen.
const WHEEL = 0.0015;

export class Pointers {
  /**
   * @param {HTMLElement} element
   * @param hand {start, move, end, cancel}(x, y, event), hover(x, y, event), leave(), pan(dx, dy), zoom(factor, x, y),
   *   wantsPan(): whether the first button moves the picture now. Places are pixels of the page within the element.
   */
  constructor(element, hand) {
    Object.assign(this, { element, hand });
    this.down = new Map();
    this.fingers = new Set();
    this.pen = null;
    this.doing = null;
    this.penSeen = false;
    const listen = (name, call, options) => element.addEventListener(name, call, options);
    listen("pointerdown", (event) => this.press(event));
    listen("pointermove", (event) => this.move(event));
    listen("pointerup", (event) => this.release(event));
    listen("pointercancel", (event) => this.abort(event));
    listen("pointerleave", (event) => this.isPalm(event) || hand.leave());
    listen("contextmenu", (event) => event.preventDefault());
    listen("wheel", (event) => this.wheel(event), { passive: false });
  }

  place(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  press(event) {
    // A middle button would scroll; the first one would take the focus elsewhere.
    event.preventDefault();
    this.element.focus({ preventScroll: true });
    if (this.isPalm(event)) return;
    this.element.setPointerCapture(event.pointerId);
    if (event.pointerType === "pen") this.takePen(event.pointerId);
    if (event.pointerType === "touch") this.fingers.add(event.pointerId);
    this.down.set(event.pointerId, this.place(event));
    if (this.down.size > 1) {
      if (this.doing === "draw") this.hand.cancel();
      this.doing = "pinch";
      return;
    }
    // Beside a pen a finger, or the hand that holds it, does not draw.
    const finger = this.penSeen && event.pointerType === "touch";
    this.doing = event.button === 1 || finger || this.hand.wantsPan() ? "pan" : event.button === 0 || event.button === 5 ? "draw" : null;
    if (this.doing === "draw") this.hand.start(...this.place(event), event);
  }

  /** Whether it is a finger while a pen is down. */
  isPalm(event) {
    return this.pen !== null && event.pointerType === "touch";
  }

  /** A pen comes down: fingers that were there before it are forgotten, with what they have begun. */
  takePen(id) {
    this.pen = id;
    this.penSeen = true;
    const fingers = [...this.fingers].filter((finger) => this.down.delete(finger)).length;
    this.fingers.clear();
    if (!fingers) return;
    if (this.doing === "draw") this.hand.cancel();
    this.doing = null;
  }

  /** Whether the pointer was down, which it is no longer. */
  lift(id) {
    if (id === this.pen) this.pen = null;
    this.fingers.delete(id);
    return this.down.delete(id);
  }

  move(event) {
    const now = this.place(event);
    const before = this.down.get(event.pointerId);
    if (!before) {
      // A finger that is not known here has been forgotten for a pen.
      if (event.pointerType !== "touch") this.hand.hover(...now, event);
      return;
    }
    if (this.doing === "draw") {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this.hand.move(...this.place(one), one);
    } else if (this.doing === "pan") {
      this.hand.pan(now[0] - before[0], now[1] - before[1]);
    } else if (this.doing === "pinch") {
      this.pinch(event.pointerId, before, now);
    }
    this.down.set(event.pointerId, now);
    this.hand.hover(...now, event);
  }

  /** One of two fingers has moved: the other stays where it is on the picture, both keep theirs. */
  pinch(id, before, now) {
    const other = [...this.down].find(([one]) => one !== id)?.[1];
    if (!other) return;
    const [was, is] = [before, now].map(([x, y]) => Math.hypot(x - other[0], y - other[1]));
    const middle = ([x, y]) => [(x + other[0]) / 2, (y + other[1]) / 2];
    this.hand.pan(middle(now)[0] - middle(before)[0], middle(now)[1] - middle(before)[1]);
    if (was > 10 && is > 10) this.hand.zoom(is / was, ...middle(now));
  }

  release(event) {
    if (!this.lift(event.pointerId)) return;
    if (this.doing === "draw") this.hand.end(...this.place(event), event);
    // The last finger of two does not begin to draw.
    if (!this.down.size || this.doing === "draw") this.doing = null;
  }

  abort(event) {
    if (!this.lift(event.pointerId)) return;
    if (this.doing === "draw") this.hand.cancel();
    if (!this.down.size) this.doing = null;
  }

  wheel(event) {
    event.preventDefault();
    event.stopPropagation();
    const lines = event.deltaMode === 1 ? 30 : 1;
    this.hand.zoom(Math.exp(-event.deltaY * lines * WHEEL), ...this.place(event));
  }
}
