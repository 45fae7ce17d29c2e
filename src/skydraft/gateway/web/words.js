// The words of the terminal (cli/summaries.py): both tell one story, and a test compares them.

export const MEANINGS = {
  "edge": "device alone",
  "accepted": "drafted, accepted",
  "corrected": "corrected",
  "cloud": "cloud's own"
};

export const UNASKED = {
  "deaf": "the cloud was not asked, for it could not hear: --share features lets it",
  "sure": "the cloud was not asked, for the device was sure",
  "strange": "the cloud was not asked, for the voice is unlike those that the device knows: --evidence always lets the cloud say what it makes of it"
};

export const UNDRAFTED = {
  "slow_draft": "drafting would not have helped, for the cloud writes a token before the device drafts one",
  "far": "drafting would not have helped, for guesses would come too late over this link",
  "wrong": "drafting would not have helped, for too few guesses are right",
  "no_gain": "drafting would not have helped"
};

// The page's own.

export const CHOICES = {
  mode: {
    title: "Who writes",
    values: {
      hybrid: ["Both", "The device drafts, the cloud judges."],
      auto: ["Whoever suits", "Chosen for each text, and again during it."],
      edge: ["Device", "The device alone: nothing leaves it."],
      cloud: ["Cloud", "The cloud alone: the device only shows the text."],
    },
  },
  share: {
    title: "What may leave this device",
    values: {
      none: ["Nothing", "The device writes alone."],
      tokens: ["Tokens", "Words that were asked and guessed; never a sound."],
      features: ["Features", "What a model hears of a sound too: speech can be rebuilt from it."],
    },
  },
  evidence: {
    title: "A sound's features leave",
    values: {
      never: ["Never", "The device captions alone."],
      unsure: ["If unsure", "Only where the device is unsure of its own words."],
      always: ["Always", "The whole text is the cloud's."],
    },
  },
  objective: {
    title: "What for",
    values: {
      latency: ["Speed", "The soonest text."],
      cost: ["Cost", "The least work of the cloud."],
      energy: ["Battery", "The least work of the device."],
      privacy: ["Privacy", "The least that leaves the device."],
    },
  },
  round_trip_ms: {
    title: "Emulated round trip",
    values: {},
  },
};

const bytesFormat = new Intl.NumberFormat("en");

export const count = (number, noun) => `${bytesFormat.format(number)} ${noun}${number === 1 ? "" : "s"}`;
export const percent = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "–");
export const seconds = (s) => (s < 0.0995 ? `${Math.round(1000 * s)} ms` : s < 9.95 ? `${s.toFixed(2)} s` : `${s.toFixed(1)} s`);
export const milliseconds = (s) => (s < 0.00995 ? `${(1000 * s).toFixed(1)} ms` : `${Math.round(1000 * s)} ms`);
export const pace = (perSecond) => (perSecond >= 10 ? Math.round(perSecond).toString() : perSecond.toFixed(1));
export const bytes = (n) =>
  n < 1000 ? `${n} B` : n < 999_500 ? `${(n / 1000).toFixed(n < 9950 ? 1 : 0)} kB` : `${(n / 1e6).toFixed(1)} MB`;
export const exactBytes = (n) => count(n, "byte");

const ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"];

/** What is known of a token, in a line each. numRanks: of how many tokens probabilities were asked for. */
export function tokenLines(token, numRanks) {
  const lines = [];
  if (token.round) lines.push(`round ${token.round}`);
  else lines.push(token.origin === "edge" ? "no round: the cloud was not asked" : "no round: the cloud wrote on by itself");
  if (token.probability !== undefined) {
    const chance = token.probability >= 0.0995 ? `${Math.round(100 * token.probability)} %` : `${(100 * token.probability).toPrecision(1)} %`;
    if (token.rank) lines.push(`the cloud's ${ORDINALS[token.rank - 1] ?? `${token.rank}th`} choice, ${chance}`);
    else lines.push(`not among the cloud's first ${numRanks}, ${chance}`);
  }
  return lines;
}

/** What left the device, in a sentence or two, as the terminal says it. */
export function leftSentence(facts, isSound) {
  const { up, contents, has_evidence: hasEvidence } = facts.disclosure;
  const total = Object.values(up).reduce((sum, n) => sum + n, 0);
  if (!total) return isSound ? "Nothing left this device. The voice stayed." : "Nothing left this device.";
  const drafts = contents["drafts of the caption or text"] ?? 0;
  const words = drafts ? ` and the words of ${count(drafts, "draft")}` : "";
  if (hasEvidence) return `What the model heard left this device, from which speech can be reconstructed: ${exactBytes(total)} in all.`;
  if (isSound) return `The instruction${words} left, ${exactBytes(total)}; the voice did not.`;
  return `What you wrote${words} left, as tokens: ${exactBytes(total)}.`;
}
