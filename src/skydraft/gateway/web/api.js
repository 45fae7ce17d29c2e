// Asks the gateway that gave this page, and nobody else.

const KEY = "skydraft-key";

export class Problem extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** What texts are written with, and what may be chosen. */
export async function whatMayBeChosen() {
  return (await ask("/v1/choices", {})).json();
}

/** Answer a conversation; `chosen` are the values of X-Skydraft headers. Yields what `answerOf` gives. */
export async function* chat(messages, chosen, fields, signal) {
  const body = JSON.stringify({ messages, stream: true, ...fields });
  const headers = { "Content-Type": "application/json", ...asHeaders(chosen) };
  const response = await ask("/v1/chat/completions", { method: "POST", headers, body, signal });
  for await (const event of events(response)) {
    const delta = event.choices?.[0]?.delta;
    if (delta?.content && event.skydraft) yield { pieces: event.skydraft.pieces };
    if (event.skydraft?.traces) yield { end: event };
  }
}

/** Say what there is to be said of a sound. */
export async function* caption(sound, name, chosen, signal) {
  const body = new FormData();
  body.append("file", sound, name);
  body.append("stream", "true");
  const response = await ask("/v1/audio/captions", { method: "POST", headers: asHeaders(chosen), body, signal });
  for await (const event of events(response)) {
    if (event.type === "transcript.text.delta") yield { pieces: event.skydraft.pieces };
    if (event.type === "transcript.text.done") yield { end: event };
  }
}

const asHeaders = (chosen) =>
  Object.fromEntries(Object.entries(chosen).map(([name, value]) => [`X-Skydraft-${name.replaceAll("_", "-")}`, value]));

async function ask(path, options) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The gateway does not answer: is skydraft serve still running?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  throw new Problem(response.status, said?.error?.message ?? `${response.status} ${response.statusText}`);
}

/** The objects of server-sent events. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const data = event.slice(event.indexOf("data: ") + 6);
      if (data === "[DONE]") return;
      const object = JSON.parse(data);
      if (object.error) throw new Problem(200, object.error.message);
      yield object;
    }
  }
}
