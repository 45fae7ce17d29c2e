// One turn: what was asked, the text as it comes, and how it came about.

import { draw, make, say } from "./dom.js";
import { showTip, tellOn } from "./tip.js";
import { TimeLine } from "./timeline.js";
import { MEANINGS, UNASKED, UNDRAFTED, bytes, count, exactBytes, leftSentence, pace, percent, seconds, tokenLines } from "./words.js";

/** A text that grows. Pieces are put into the page once a frame, however fast they come. */
export class GrowingText {
  constructor(label, numRanks) {
    this.pieces = [];
    this.numRanks = numRanks;
    this.element = make("div", { class: "text", tabindex: 0, role: "group", "aria-label": label });
    this.frame = 0;
    this.numShown = 0;
    tellOn(this.element, (span) => this.tell(span), () => this.light(null));
  }

  add(pieces) {
    this.pieces.push(...pieces);
    this.frame ||= requestAnimationFrame(() => this.show());
  }

  show() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const spans = document.createDocumentFragment();
    for (; this.numShown < this.pieces.length; this.numShown++) {
      const piece = this.pieces[this.numShown];
      const token = piece.tokens.at(-1);
      if (token) this.origin = token.origin;
      if (piece.text) spans.append(tokenSpan(piece.text, this.origin, token ? this.numShown : false));
    }
    this.element.append(spans);
    this.onshow?.();
  }

  /** The text has ended: what is known of its tokens now. */
  end(pieces) {
    this.show();
    const isShown = this.pieces.length === pieces.length;
    this.pieces = pieces;
    this.element.classList.add("has-ended");
    if (isShown) return;
    this.numShown = 0;
    this.element.replaceChildren();
    this.show();
  }

  get text() {
    return this.pieces.map((piece) => piece.text).join("");
  }

  tell(span) {
    const tokens = this.pieces[span.dataset.tells].tokens;
    const token = tokens.at(-1);
    showTip(span, token.origin, MEANINGS[token.origin], tokens.flatMap((each) => tokenLines(each, this.numRanks)));
    this.lit?.classList.remove("is-told");
    this.lit = span;
    span.classList.add("is-told");
    this.ontell?.(token.round);
  }

  /** Mark the tokens of a round; null: none. */
  light(round) {
    for (const span of this.element.children) {
      const told = this.pieces[span.dataset.tells]?.tokens.at(-1);
      span.classList.toggle("is-lit", round !== null && told?.round === round);
      if (round === null) span.classList.remove("is-told");
    }
    if (round === null) this.ontell?.(null);
  }
}

/** A piece of text in the colour of its origin; no spaces are underlined. */
function tokenSpan(text, origin, number) {
  const word = text.trim();
  const start = text.indexOf(word);
  const parts = [text.slice(0, start), word && make("span", { class: "word" }, word), text.slice(start + word.length)];
  return make("span", { class: `token ${origin ?? ""}`, "data-tells": number }, ...(origin === "corrected" ? parts : [text]));
}

/** A turn. asked: elements that say what was asked. again(chosen): writes it again, for comparison; null: not possible. */
export class Turn {
  constructor(asked, { isSound, numRanks, label }) {
    this.isSound = isSound;
    this.text = new GrowingText(label, numRanks);
    this.below = make("div", { class: "below" });
    this.element = make("article", { class: "turn" }, make("div", { class: "asked" }, ...asked), this.text.element, this.below);
    this.element.classList.add("is-writing");
  }

  fail(sentence) {
    this.element.classList.remove("is-writing");
    this.below.replaceChildren(make("p", { class: "problem", role: "alert" }, sentence));
  }

  /** end: the last event. compare: has the same written by the cloud alone, and gives its last event; null: it cannot. */
  end(end, compare) {
    const facts = end.skydraft;
    const [trace] = facts.traces;
    this.facts = facts;
    this.totalS = trace.time_line.total_s;
    this.element.classList.remove("is-writing");
    this.text.end(trace.pieces);
    const num = numTokens(facts);
    if (!this.text.text) this.text.element.append(make("span", { class: "muted" }, this.isSound ? "No speech." : "(an empty text)"));
    this.timeLine = new TimeLine(trace, (round) => this.text.light(round));
    this.text.ontell = (round) => this.timeLine.light(round ?? null);
    this.below.replaceChildren(
      origins(facts),
      meters(facts, end.timings, this.totalS, trace.time_line.first_token_s),
      remark(facts),
      num && compare ? this.comparison(compare) : "",
      num ? this.timeLine.element : "",
      left(facts, this.isSound),
    );
    say(`${this.text.text}. ${count(num, "token")}. ${leftSentence(facts, this.isSound)}`);
  }

  comparison(compare) {
    const button = make("button", { type: "button", class: "quiet" }, "Compare with the cloud alone");
    const box = make("div", { class: "compare" }, button);
    button.addEventListener("click", async () => {
      button.disabled = true;
      button.textContent = "The cloud writes it alone …";
      try {
        this.showComparison(box, await compare());
      } catch (error) {
        box.replaceChildren(make("p", { class: "problem", role: "alert" }, error.message));
      }
    });
    return box;
  }

  showComparison(box, { end, text }) {
    const alone = end.skydraft.traces[0].time_line.total_s;
    const ratio = alone / this.totalS;
    const most = Math.max(alone, this.totalS);
    const sameness = text === this.text.text ? ", the same text" : ", another text";
    const verdict =
      ratio >= 1.05 ? `${ratio.toFixed(1)} × as fast as the cloud alone${sameness}.`
      : ratio <= 0.95 ? `The cloud alone was ${(1 / ratio).toFixed(1)} × as fast here${sameness}.`
      : `As fast as the cloud alone${sameness}.`;
    const row = (name, total, origin) =>
      make("div", { class: "race" },
        make("span", { class: "race-name" }, name),
        draw("svg", { class: "race-bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
          draw("rect", { width: (100 * total) / most, height: 8, rx: 1, class: origin })),
        make("span", { class: "race-time" }, seconds(total)));
    box.replaceChildren(
      make("p", { class: "verdict", role: "status" }, verdict),
      row("together", this.totalS, "accepted"),
      row("cloud alone", alone, "cloud"),
      make("p", { class: "muted small" }, `Measured just now, one after the other: the same ${this.isSound ? "sound" : "prompt and seed"}, over the same link. What a cloud remembers of the first, such as its prompt, helps the second: the cloud alone.`),
    );
  }
}

const numTokens = (facts) => Object.values(facts.tokens).reduce((sum, n) => sum + n, 0);

/** Where the tokens came from: a bar to scale, and its legend. */
function origins(facts) {
  const total = numTokens(facts);
  const bar = draw("svg", { class: "origins", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" });
  let x = 0;
  for (const [origin, n] of Object.entries(facts.tokens)) {
    if (n) bar.append(draw("rect", { x, width: (100 * n) / total, height: 4, class: origin }));
    x += (100 * n) / total;
  }
  const legend = make("ul", { class: "legend", "aria-label": "Where the tokens came from" },
    ...Object.entries(facts.tokens).filter(([, n]) => n).map(([origin, n]) =>
      make("li", { class: origin }, make("b", {}, String(n)), ` ${MEANINGS[origin]}`)));
  return make("div", {}, bar, legend);
}

function meters(facts, timings, totalS, firstS) {
  const total = numTokens(facts);
  const { up, down } = facts.bytes;
  const isAsked = up > 0;
  const fromCloud = facts.tokens.cloud + facts.tokens.corrected;
  const list = [
    meter("Speed", pace(total / Math.max(totalS, 1e-9)), "tokens/s", `${count(total, "token")} in ${seconds(totalS)}`),
    meter("First token", seconds(firstS), "", "from the start, prompt included"),
    isAsked && meter("From the cloud", percent(fromCloud, total), "", "corrected or its own"),
    timings.draft_n > 0 && meter("Accepted", percent(timings.draft_n_accepted, timings.draft_n), "", `${timings.draft_n_accepted} of ${timings.draft_n} offered, ${count(facts.rounds, "round")}`),
    meter("Bytes up, down", `↑ ${bytes(up)}`, isAsked ? `↓ ${bytes(down)}` : "", isAsked ? "of messages, without frames" : "no byte left this device"),
  ];
  return make("dl", { class: "meters" }, ...list.filter(Boolean));
}

const meter = (name, value, unit, note) =>
  make("div", { class: "meter" },
    make("dt", {}, name), make("dd", {}, make("span", { class: "value" }, value), unit ? make("span", { class: "unit" }, ` ${unit}`) : "",
      make("span", { class: "note" }, note)));

/** Whose text it is, and why nobody was asked or nothing drafted. */
function remark(facts) {
  const parts = [];
  if (facts.is_cloud_text && facts.bytes.up) parts.push("The cloud's own text, token for token.");
  for (const [words, why] of [[UNASKED, facts.unasked], [UNDRAFTED, facts.undrafted]]) if (words[why]) parts.push(sentence(words[why]));
  if (facts.is_alone) parts.push("The cloud was lost for a time, and the device went on alone.");
  if (facts.ended_early) parts.push(sentence(facts.ended_early));
  return parts.length ? make("p", { class: "remark" }, parts.join(" ")) : "";
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1).replace(/\.?$/, ".");

/** What left this device: a sentence, and byte by byte. */
function left(facts, isSound) {
  const { up, down, contents } = facts.disclosure;
  const rows = (title, kinds) => Object.entries(kinds).map(([kind, n]) => make("tr", {}, make("th", { scope: "row" }, `${title}: ${kind}`), make("td", {}, exactBytes(n))));
  const told = Object.entries(contents).map(([kind, n]) => make("tr", {}, make("th", { scope: "row" }, kind), make("td", {}, n === 1 ? "once" : `${n} times`)));
  const table = make("table", {}, make("caption", { class: "hidden-label" }, "What crossed the border of this device"), make("tbody", {}, ...told, ...rows("up", up), ...rows("down", down)));
  return make("section", { class: "left", "aria-label": "What left this device" },
    make("h2", {}, "What left this device"),
    make("p", {}, leftSentence(facts, isSound)),
    facts.bytes.up ? make("details", {}, make("summary", {}, "Byte by byte"), table) : "");
}
