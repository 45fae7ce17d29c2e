// The page: what is said goes to the gateway, what comes back is shown as it comes.

import { Problem, caption, chat, setKey, whatMayBeChosen } from "./api.js";
import { Turn } from "./answer.js";
import { Choices } from "./choices.js";
import { $, make, say } from "./dom.js";
import { Recording } from "./sound.js";
import { MEANINGS, seconds } from "./words.js";

const WIDE = matchMedia("(min-width: 68rem)");
const NEAR_END_PX = 120;

let choices = null;
let offered = null;
let messages = [];
let underWay = null; // an AbortController
let recording = null;
let isStarting = false; // while the browser asks whether the microphone may be used

async function begin() {
  offered = await withKey(whatMayBeChosen);
  choices = new Choices($("chosen"), offered);
  $("who").textContent = offered.model;
  document.title = `skydraft · ${offered.model}`;
  $("legend").replaceChildren(...Object.entries(MEANINGS).map(([origin, meaning]) => make("li", { class: origin }, meaning)));
  $("welcome-text").textContent = welcome();
  for (const id of ["say", "write"]) $(id).hidden = !offered.can_chat;
  for (const id of ["record", "choose-sound"]) $(id).hidden = !offered.can_hear;
  $("choices").open = WIDE.matches;
  WIDE.addEventListener("change", () => ($("choices").open = WIDE.matches));
  document.body.classList.add("is-ready");
  if (offered.can_chat) $("say").focus({ preventScroll: true });
}

function welcome() {
  const what = offered.can_chat && offered.can_hear ? "Write, speak or drop a sound." : offered.can_hear ? "Speak, or drop a sound: it is said how the voice sounds." : "Write something.";
  return `${what} A small model on this device drafts, a large one in the cloud judges, and each token has the colour of where it came from.`;
}

/** Do what needs a key; where it is missing or wrong, ask for one. */
async function withKey(work) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401) throw error;
      await askForKey();
    }
  }
}

function askForKey() {
  const dialog = $("ask-key");
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      setKey($("key").value);
      resolve();
    }, { once: true });
  });
}

// Writing

async function writeText() {
  const prompt = $("say").value;
  if (!prompt.trim() || underWay || !offered.can_chat) return;
  $("say").value = "";
  fit();
  const asked = [...messages, { role: "user", content: prompt }];
  const chosen = choices.chosen;
  const fields = { max_tokens: choices.maxTokens };
  const turn = addTurn([make("p", {}, prompt)], false, "The text");
  const end = await follow(turn, (signal) => chat(asked, chosen, fields, signal));
  if (!end) return;
  messages = [...asked, { role: "assistant", content: turn.text.text }];
  turn.end(end, comparable(end) && (() => written((signal) => chat(asked, { ...chosen, mode: "cloud" }, { ...fields, ...seedOf(end) }, signal))));
}

async function writeCaption(sound, name) {
  if (underWay || !offered.can_hear) return;
  const player = make("audio", { controls: true, src: URL.createObjectURL(sound), "aria-label": name });
  const chosen = choices.chosen;
  const turn = addTurn([make("p", { class: "sound-name" }, name), player], true, "The caption");
  const end = await follow(turn, (signal) => caption(sound, name, chosen, signal));
  if (end) turn.end(end, comparable(end) && end.skydraft.seed === null && (() => written((signal) => caption(sound, name, { ...chosen, mode: "cloud", evidence: "always" }, signal))));
}

/** Whether the cloud alone would be given the same, and may be. */
const comparable = (end) => end.skydraft.is_cloud_text && end.skydraft.mode !== "cloud" && offered.choices.mode.includes("cloud");
const seedOf = (end) => (end.skydraft.seed === null ? {} : { seed: end.skydraft.seed });

function addTurn(asked, isSound, label) {
  $("welcome").hidden = true;
  $("anew").hidden = false;
  const turn = new Turn(asked, { isSound, label, numRanks: choices.numRanks });
  turn.text.onshow = keepEndInSight;
  $("talk").append(turn.element);
  turn.element.scrollIntoView({ block: "start", behavior: "instant" });
  return turn;
}

/** Show a text as it comes; returns the last event, or null where there is none. */
async function follow(turn, begin) {
  underWay = new AbortController();
  showUnderWay(true);
  try {
    return await withKey(async () => {
      let end = null;
      for await (const news of begin(underWay.signal)) {
        if (news.pieces) turn.text.add(news.pieces);
        end = news.end ?? end;
      }
      if (!end) throw new Problem(0, "The gateway ended in the midst of the text.");
      return end;
    });
  } catch (error) {
    turn.text.show();
    turn.fail(error.name === "AbortError" ? "Stopped." : error.message);
    return null;
  } finally {
    underWay = null;
    showUnderWay(false);
  }
}

/** The same for comparison: what was written, unseen, and the last event. */
async function written(begin) {
  let text = "";
  let end = null;
  for await (const news of begin()) {
    text += (news.pieces ?? []).map((piece) => piece.text).join("");
    end = news.end ?? end;
  }
  return { text, end };
}

function showUnderWay(isUnderWay) {
  $("stop").hidden = !isUnderWay;
  $("write").hidden = isUnderWay || !offered.can_chat;
  for (const id of ["record", "choose-sound"]) $(id).disabled = isUnderWay;
}

/** While a text grows below, go with it, unless the reader looks at something else. */
function keepEndInSight() {
  const page = document.scrollingElement;
  if (page.scrollHeight - page.scrollTop - page.clientHeight < NEAR_END_PX) page.scrollTop = page.scrollHeight;
}

// Sounds

async function record() {
  if (isStarting) return;
  if (recording) return endRecording();
  isStarting = true;
  try {
    recording = await Recording.begin(showLevel);
  } catch (error) {
    showListening(`The microphone cannot be used: ${error.message}`);
    return;
  } finally {
    isStarting = false;
  }
  $("record").setAttribute("aria-pressed", "true");
  $("record").querySelector("span").textContent = "Done";
  showListening("Listening. Nothing leaves the page before you say done.");
}

async function endRecording() {
  const ended = recording;
  recording = null;
  const length = seconds(ended.numSamples / ended.context.sampleRate);
  const sound = await ended.end();
  $("record").setAttribute("aria-pressed", "false");
  $("record").querySelector("span").textContent = "Record";
  $("listening").hidden = true;
  $("listening-time").textContent = "";
  await writeCaption(sound, `Your voice, ${length}`);
}

function showListening(sentence) {
  $("listening").hidden = false;
  $("listening-text").textContent = sentence;
}

function showLevel(level, length) {
  $("listening-time").textContent = `${length.toFixed(1)} s`;
  $("level").style.width = `${Math.min(100, Math.round(400 * level))}%`;
}

function take(files) {
  const [file] = files;
  if (file) writeCaption(file, file.name);
}

// What the page listens to

function fit() {
  const box = $("say");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  writeText();
});
$("say").addEventListener("input", fit);
$("say").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  writeText();
});
$("stop").addEventListener("click", () => underWay?.abort());
document.addEventListener("keydown", (event) => event.key === "Escape" && underWay?.abort());
$("record").addEventListener("click", record);
$("choose-sound").addEventListener("click", () => $("sound").click());
$("sound").addEventListener("change", () => {
  take($("sound").files);
  $("sound").value = "";
});
$("anew").addEventListener("click", () => {
  underWay?.abort();
  messages = [];
  for (const player of $("talk").querySelectorAll("audio")) URL.revokeObjectURL(player.src);
  for (const turn of $("talk").querySelectorAll(".turn")) turn.remove();
  $("welcome").hidden = false;
  $("anew").hidden = true;
  say("A new conversation.");
  (offered.can_chat ? $("say") : $("record")).focus();
});

const carriesFiles = (event) => offered?.can_hear && event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
document.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = true;
  take(event.dataTransfer.files);
});

begin().catch((error) => {
  $("talk").replaceChildren(make("p", { class: "problem", role: "alert" }, error.message));
});
