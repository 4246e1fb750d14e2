// The chat: streams through the proxy like any other tool, and keeps its text over a reload.

import { $, copyButton, count, el, seconds, setOptions } from "./dom.js";
import { markdown } from "./markdown.js";
import { ask } from "./proxy.js";
import { word } from "./words.js";

const KEPT = "chat";

/** Turns: {role, content, reasoning, note, failed}. What has failed isn't sent again. */
let turns = [];
let stopping = null;
let language = "";
let listed = false;

export function startChat() {
  try {
    ({ turns = [], draft: $("words").value = "" } = JSON.parse(sessionStorage.getItem(KEPT)) ?? {});
  } catch { /* nothing that could be read was kept */ }
  $("chat-model").append(el("option", { value: "" }));
  $("say").onsubmit = () => send();
  $("words").oninput = keep;
  $("words").onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  };
  $("chat-page").onkeydown = (event) => {
    if (event.key === "Escape") stopping?.abort();
  };
  $("stop").onclick = () => stopping?.abort();
  $("clear").onclick = () => {
    stopping?.abort();
    turns = [];
    keep();
    showAll();
    $("words").focus();
  };
  $("chat-model").onchange = () => sessionStorage.setItem("chat-model", $("chat-model").value);
}

/** The models to choose from, once the page is looked at. */
export async function showChat(now) {
  $("chat-model").firstElementChild.textContent = word("chatDefault", now.model.replace(/:free$/, ""));
  if (language !== document.documentElement.lang) {
    language = document.documentElement.lang;
    if (!stopping) showAll();
  }
  if (listed || $("chat-page").hidden) return;
  listed = true;
  try {
    const { models } = await ask("/debug/models", 20_000);
    const ids = models.filter((m) => m.listed && !m.expired && m.setting === "MODEL").map((m) => m.id);
    setOptions($("chat-model"), ["best", ...ids], (id) => id.replace(/:free$/, ""));
    $("chat-model").value = sessionStorage.getItem("chat-model") ?? "";
    if ($("chat-model").selectedIndex < 0) $("chat-model").selectedIndex = 0;
  } catch {
    listed = false; // the next round asks again
  }
}

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ turns, draft: $("words").value }));
  } catch { /* more than the browser keeps: this page still has it */ }
}

function showAll() {
  $("talk").replaceChildren(...(turns.length ? turns.map((turn) => bubble(turn).box) : [el("p", { class: "dim" }, word("chatEmpty"))]));
  $("talk").scrollTop = $("talk").scrollHeight;
}

/** A turn as it is shown; `show` shows it again after it has changed. */
function bubble(turn) {
  const mine = turn.role === "user";
  const thinking = el("details", { class: "dim thinking" }, el("summary", {}, word("reasoning")), el("div"));
  const text = el("div", { class: mine ? "plain" : "" });
  const note = el("small");
  const again = el("span", {});
  const box = el("div", { class: `said ${mine ? "mine" : ""}` }, el("b", {}, mine ? word("you") : (turn.model ?? "")), thinking, text, el("div", { class: "row" }, note, again));
  const show = () => {
    thinking.hidden = !turn.reasoning;
    if (turn.reasoning) thinking.lastChild.textContent = turn.reasoning;
    if (mine) text.textContent = turn.content;
    else text.replaceChildren(markdown(turn.content));
    note.textContent = turn.note ?? "";
    box.classList.toggle("bad", Boolean(turn.failed));
    if (!mine) box.firstChild.textContent = turn.model ?? "";
    again.replaceChildren(...(turn.content && !mine && turn.ended ? [copyButton(word("copy"), () => turn.content)] : []),
      ...(turn.failed && turn === turns.at(-1) ? [el("button", { class: "quiet", onclick: retry }, word("retry"))] : []));
  };
  show();
  return { box, show, note };
}

/** Adds to the talk, and follows it only where its end was in sight. */
function following(change) {
  const talk = $("talk");
  const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 32;
  change();
  if (atEnd) talk.scrollTop = talk.scrollHeight;
}

function retry() {
  if (stopping) return;
  turns.pop();
  answer();
}

function send() {
  const words = $("words").value.trim();
  if (!words || stopping) return;
  $("words").value = "";
  turns.push({ role: "user", content: words, ended: true });
  answer();
}

async function answer() {
  const model = $("chat-model").value;
  const sent = turns.filter((turn) => turn.content && !turn.failed).map(({ role, content }) => ({ role, content }));
  const turn = { role: "assistant", content: "", reasoning: "", model: model || $("chat-model").selectedOptions[0]?.textContent };
  turns.push(turn);
  keep();
  showAll();
  const { box, show, note } = bubble(turn);
  $("talk").lastElementChild.replaceWith(box);
  $("talk").scrollTop = $("talk").scrollHeight;
  stopping = new AbortController();
  $("stop").disabled = false;
  $("send").disabled = true;
  const began = performance.now();
  const spent = () => performance.now() - began;
  const waiting = setInterval(() => (note.textContent = word("waiting", Math.floor(spent() / 1000))), 1000);
  let first = null;
  let tokens = null;
  let problem = null;
  let frame = null;
  const soon = () => {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      following(show);
    });
  };
  try {
    const response = await fetch(`${location.origin}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...(model && { model }), messages: sent, stream: true }),
      signal: stopping.signal,
    });
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
      const { error } = await response.json().catch(() => ({}));
      throw new Error(`${response.status} ${error?.code && error.code !== response.status ? `${error.code}: ` : ""}${error?.message ?? response.statusText}`);
    }
    for await (const chunk of events(response.body)) {
      if (chunk.error) throw new Error(`${chunk.error.code ?? ""} ${chunk.error.message}`.trim());
      turn.model = chunk.model ?? turn.model;
      tokens = chunk.usage ?? tokens;
      const delta = chunk.choices?.[0]?.delta;
      if (delta?.reasoning || delta?.content) {
        first ??= spent();
        clearInterval(waiting);
        note.textContent = "";
      }
      turn.reasoning += delta?.reasoning ?? "";
      turn.content += delta?.content ?? "";
      soon();
    }
  } catch (error) {
    turn.failed = error.name !== "AbortError" && !leaving;
    problem = !turn.failed ? word("stopped") : error instanceof TypeError ? word("noAnswer") : error.message;
  }
  clearInterval(waiting);
  cancelAnimationFrame(frame);
  turn.ended = true;
  const facts = [problem, first === null ? null : `${word("noteFirst")} ${seconds(first)} s`, `${word("noteTotal")} ${seconds(spent())} s`];
  if (tokens?.completion_tokens !== undefined) facts.push(word("inTokens", `${count(tokens.prompt_tokens)} + ${count(tokens.completion_tokens)}`));
  turn.note = facts.filter(Boolean).join(" · ");
  stopping = null;
  following(show);
  keep();
  $("stop").disabled = true;
  $("send").disabled = false;
  $("words").focus();
}

/** Whoever leaves the page has stopped the answer. */
let leaving = false;
addEventListener("pagehide", () => (leaving = true));
addEventListener("beforeunload", () => {
  leaving = true;
  setTimeout(() => (leaving = false), 3000); // a download doesn't leave it
});

async function* events(body) {
  let rest = "";
  for await (const text of read(body.pipeThrough(new TextDecoderStream()))) {
    const parts = (rest + text).split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function* read(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
