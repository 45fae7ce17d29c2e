// The time line of a text, to scale: the device above, the cloud below, time from left to right. An offer goes down, is
// judged there, and its verdict comes up again; what is in flight at once stands side by side.

import { draw, make } from "./dom.js";
import { showTip, tellOn } from "./tip.js";
import { MEANINGS, count, milliseconds, seconds } from "./words.js";

const DEVICE_Y = 58;
const CLOUD_Y = 124;
const HEIGHT = 156;
const LEFT = 10;
const BAR = 8;
const TOKEN = 4; // high, of the marks of tokens that have arrived
const MOST_MARKS = 11;
const ROUND_PX = 26; // that a round takes at least, unless all fit anyway
const MOST_PX = 16000;
const STEPS_S = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500];
const TICK_PX = 90;

export class TimeLine {
  /** light(round): told which round is pointed at; null: none. */
  constructor(trace, light) {
    this.line = trace.time_line;
    this.origins = trace.pieces.flatMap((piece) => piece.tokens.map((token) => token.origin));
    this.lastOrigins = new Map(trace.pieces.flatMap((piece) => piece.tokens.map((token) => [token.round, token.origin])));
    this.groups = new Map();
    this.scroller = make("div", { class: "time-scroll", tabindex: 0, role: "group", "aria-label": `Time line: ${this.summary()} The arrow keys walk through the rounds.` });
    tellOn(this.scroller, (group) => this.tell(group, light), () => {
      this.light(null);
      light(null);
    });
    const zoom = (factor, label, sign) => {
      const button = make("button", { type: "button", class: "quiet zoom", "aria-label": label }, sign);
      button.addEventListener("click", () => this.render(this.width * factor));
      return button;
    };
    this.element = make("figure", { class: "time-line" },
      make("figcaption", {}, make("h2", {}, "Time line"), make("span", { class: "muted small" }, this.summary()),
        make("span", { class: "zooms" }, zoom(0.5, "Time line: smaller", "−"), zoom(2, "Time line: larger", "+"))),
      this.scroller,
      this.table());
    new ResizeObserver(([entry], observer) => {
      if (!entry.contentRect.width) return;
      observer.disconnect();
      requestAnimationFrame(() => this.render()); // in a frame of its own: what stands above is there before
    }).observe(this.scroller);
  }

  summary() {
    const { rounds, dropped_s: dropped, round_trip_s: roundTrip, total_s: total } = this.line;
    const parts = [`${count(rounds.length, "round")} in ${seconds(total)}`];
    if (roundTrip !== null) parts.push(`round trip ${milliseconds(roundTrip)}`);
    if (dropped.length) parts.push(`${count(dropped.length, "offer")} overtaken`);
    return `${parts.join(", ")}.`;
  }

  render(wanted) {
    const { line } = this;
    const room = this.scroller.clientWidth;
    const width = Math.min(MOST_PX, Math.max(room, wanted ?? line.rounds.length * ROUND_PX));
    this.width = width;
    const perS = (width - 2 * LEFT) / Math.max(line.total_s, 1e-6);
    const x = (s) => +(LEFT + s * perS).toFixed(2);
    const svg = draw("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
    svg.append(
      draw("line", { x1: 0, x2: width, y1: DEVICE_Y, y2: DEVICE_Y, class: "place" }),
      draw("line", { x1: 0, x2: width, y1: CLOUD_Y, y2: CLOUD_Y, class: "place" }),
      ...this.ticks(perS, width, x),
      ...line.dropped_s.map(([from, to]) => this.dropped(from, to, x)),
      ...line.drafted_s.map(([from, to]) => bar("draft", x(from), x(to), DEVICE_Y)),
      ...this.alone(x),
      ...line.rounds.map((round) => this.round(round, x)),
      ...this.marks(x),
      draw("text", { x: 2, y: DEVICE_Y + 20, class: "place-name" }, "device"),
      draw("text", { x: 2, y: CLOUD_Y - 10, class: "place-name" }, "cloud"),
    );
    this.scroller.replaceChildren(svg);
  }

  ticks(perS, width, x) {
    const step = STEPS_S.find((s) => s * perS >= TICK_PX) ?? 1000;
    const ticks = [];
    for (let i = 0; x(i * step) < width - 24; i++) {
      const at = x(i * step);
      ticks.push(
        draw("line", { x1: at, x2: at, y1: 8, y2: HEIGHT - 16, class: "tick" }),
        draw("text", { x: at + 3, y: HEIGHT - 4, class: "tick-name" }, i ? (step < 1 ? `${Math.round(1000 * i * step)} ms` : `${i * step} s`) : "0"));
    }
    return ticks;
  }

  round(round, x) {
    const [from, to] = round.at_cloud_s;
    const parts = round.sent_s.map((sent) => draw("path", { class: "way up", d: `M${x(sent)} ${DEVICE_Y}L${x(Math.max(sent, Math.min(from, sent + this.upS(round))))} ${CLOUD_Y}` }));
    const origin = this.originOf(round);
    parts.push(
      bar("judge", x(from), x(to), CLOUD_Y),
      draw("path", { class: `way down ${origin}`, d: `M${x(to)} ${CLOUD_Y}L${x(round.answered_s)} ${DEVICE_Y}` }));
    const first = round.sent_s[0] ?? round.answered_s;
    parts.push(draw("path", { class: "touch", d: `M${x(first)} ${DEVICE_Y}L${x(from)} ${CLOUD_Y}H${x(to)}L${x(round.answered_s)} ${DEVICE_Y}` }));
    const group = draw("g", { class: "round", "data-tells": round.round, "data-round": round.round }, ...parts);
    this.groups.set(round.round, group);
    return group;
  }

  /** Of the last token that a round brought. */
  originOf(round) {
    return this.lastOrigins.get(round.round) ?? "accepted";
  }

  /** How long an offer was on its way. */
  upS(round) {
    return round.sent_s.length ? round.at_cloud_s[0] - round.sent_s.at(-1) : 0;
  }

  dropped(from, to, x) {
    const half = (this.line.round_trip_s ?? 0) / 2;
    const reached = half ? Math.min(1, (to - from) / half) : 1;
    const at = from + reached * Math.min(half, to - from);
    return draw("path", { class: "way dropped", d: `M${x(from)} ${DEVICE_Y}L${x(at)} ${DEVICE_Y + reached * (CLOUD_Y - DEVICE_Y)}` });
  }

  /** What the cloud wrote by itself comes up only. */
  alone(x) {
    const half = (this.line.round_trip_s ?? 0) / 2;
    const answered = new Set(this.line.rounds.map((round) => round.answered_s.toFixed(3)));
    let next = 0;
    return this.line.grown.flatMap(([at, n]) => {
      const origin = this.origins[next];
      next += n;
      if (origin !== "cloud" || answered.has(at.toFixed(3))) return [];
      return [draw("path", { class: "way down cloud", d: `M${x(Math.max(0, at - half))} ${CLOUD_Y}L${x(at)} ${DEVICE_Y}` })];
    });
  }

  /** A mark for each token where it arrived, in the colour of its origin. */
  marks(x) {
    let next = 0;
    return this.line.grown.flatMap(([at, n]) => {
      const origins = this.origins.slice(next, next + n);
      next += n;
      return origins.slice(0, MOST_MARKS).map((origin, i) =>
        draw("rect", { class: `mark ${origin}`, x: x(at) - 2.5, y: DEVICE_Y - BAR / 2 - 2 - (i + 1) * (TOKEN - 0.2), width: 5, height: TOKEN - 1, rx: 1 }));
    });
  }

  tell(group, light) {
    const round = this.line.rounds.find((each) => each.round === Number(group.dataset.round));
    const [from, to] = round.at_cloud_s;
    const spent = round.sent_s.length ? `up ${milliseconds(this.upS(round))}, in the cloud ${milliseconds(to - from)}, down ${milliseconds(round.answered_s - to)}` : "the connection was lost meanwhile";
    showTip(group, this.originOf(round), `Round ${round.round}`, [`${round.accepted} of ${round.drafted} drafted held, ${count(round.tokens, "token")} gained`, spent]);
    this.light(round.round);
    light(round.round);
  }

  /** Mark a round; null: none. */
  light(round) {
    for (const [number, group] of this.groups) group.classList.toggle("is-lit", number === round);
    this.scroller.classList.toggle("has-lit", this.groups.has(round));
  }

  /** The same in numbers, for whoever does not see it. */
  table() {
    const { rounds } = this.line;
    if (!rounds.length) return "";
    const head = ["Round", "Sent", "Up", "In the cloud", "Down", "Drafted", "Held", "Gained"];
    const rows = () => rounds.map((round) => {
      const [from, to] = round.at_cloud_s;
      const cells = [round.round, round.sent_s.map(seconds).join(", ") || "–", milliseconds(this.upS(round)), milliseconds(to - from), milliseconds(round.answered_s - to), round.drafted, round.accepted, round.tokens];
      return make("tr", {}, ...cells.map((cell, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, String(cell))));
    });
    const details = make("details", { class: "in-numbers" }, make("summary", {}, "In numbers"));
    details.addEventListener("toggle", () => {
      if (!details.open || details.querySelector("table")) return;
      details.append(
        make("p", { class: "muted small" }, "Up and down are half of a measured ping each; what is left is the cloud's: the offer waits its turn there, and is judged."),
        make("div", { class: "table-scroll", tabindex: 0, role: "group", "aria-label": "Rounds in numbers" },
          make("table", {}, make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...rows()))));
    });
    return details;
  }
}

function bar(kind, from, to, y) {
  return draw("rect", { class: kind, x: from, y: y - BAR / 2, width: Math.max(1.5, to - from), height: BAR, rx: 2 });
}
