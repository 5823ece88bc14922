// Plays a clip at its own rate, as fast as its frames come: one that is not there yet is waited for, none is made up.
import { frameAt, lasts } from "./pace.mjs?v=0.1.0";

export class Player {
  /**
   * @param {{times: number[], isReady: (number) => boolean, show: (number) => void, frame?: (call) => number}} clip
   *   times in seconds; frame calls back with the time in milliseconds, as requestAnimationFrame does.
   */
  constructor({ times, isReady, show, frame = (call) => requestAnimationFrame(call) }) {
    Object.assign(this, { times, isReady, show, frame });
    this.playing = false;
    this.at = 0;
  }

  /** Plays on from a frame; from the last one it begins anew, as it does whenever it comes to the end. */
  start(number) {
    this.at = number;
    this.playing = true;
    this.since = null;
    const ticket = (this.ticket = {});
    const tick = (now) => {
      if (this.ticket !== ticket) return;
      this.tick(now);
      this.frame(tick);
    };
    this.frame(tick);
  }

  stop() {
    this.playing = false;
    this.ticket = null;
  }

  tick(now) {
    const { times } = this;
    const whole = lasts(times);
    this.since ??= now - times[this.at] * 1000;
    const due = frameAt(times, ((now - this.since) / 1000) % whole);
    let reached = this.at;
    while (reached !== due && this.isReady((reached + 1) % times.length)) reached = (reached + 1) % times.length;
    if (reached !== due) {
      // Its clock stands still until the next one is there.
      const next = reached + 1 < times.length ? times[reached + 1] : whole;
      this.since = now - next * 1000;
    }
    if (reached === this.at) return;
    this.at = reached;
    this.show(reached);
  }
}
