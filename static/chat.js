// The chat box: streams through the proxy like any other tool.

import { $, el, seconds } from "./dom.js";
import { word } from "./words.js";

const history = [];
let stopping = null;

export function startChat() {
  $("say").onsubmit = send;
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
    history.length = 0;
    $("talk").replaceChildren();
    $("words").focus();
  };
}

function bubble(who) {
  const text = document.createTextNode("");
  const thought = document.createTextNode("");
  const thinking = el("details", { class: "dim", hidden: "" }, el("summary", {}, word("reasoning")), thought);
  const note = el("small");
  const talk = $("talk");
  talk.append(el("div", { class: "said" }, el("b", {}, who), thinking, text, el("div", {}, note)));
  talk.scrollTop = talk.scrollHeight;
  return { text, thinking, thought, note };
}

/** Appends, and follows the text only where its end was in sight. */
function append(text, more) {
  const talk = $("talk");
  const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 24;
  text.appendData(more);
  if (atEnd) talk.scrollTop = talk.scrollHeight;
}

async function send() {
  const words = $("words").value.trim();
  if (!words || stopping) return;
  $("words").value = "";
  history.push({ role: "user", content: words });
  append(bubble(word("you")).text, words);
  const model = $("chat-model").value.trim();
  const answer = bubble(model || $("chat-model").placeholder);
  stopping = new AbortController();
  $("stop").disabled = false;
  $("send").disabled = true;
  const began = performance.now();
  let first = null;
  let used = model;
  let tokens = null;
  let said = "";
  let problem = "";
  let failed = false;
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...(model && { model }), messages: history, stream: true }),
      signal: stopping.signal,
    });
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
      const body = await response.json();
      throw new Error(body.error?.message ?? `HTTP ${response.status}`);
    }
    for await (const chunk of events(response.body)) {
      if (chunk.error) throw new Error(chunk.error.message);
      used = chunk.model ?? used;
      tokens = chunk.usage ?? tokens;
      const delta = chunk.choices?.[0]?.delta;
      const more = delta?.content;
      if (delta?.reasoning || more) first ??= performance.now() - began;
      if (delta?.reasoning) {
        answer.thinking.hidden = false;
        append(answer.thought, delta.reasoning);
      }
      if (more) {
        said += more;
        append(answer.text, more);
      }
    }
  } catch (error) {
    failed = error.name !== "AbortError";
    problem = failed ? error.message : word("stopped");
  }
  if (said) history.push({ role: "assistant", content: said });
  const facts = [problem, used, first === null ? null : `${word("noteFirst")} ${seconds(first)} s`, `${word("noteTotal")} ${seconds(performance.now() - began)} s`];
  if (tokens?.completion_tokens !== undefined) facts.push(`${tokens.prompt_tokens} + ${tokens.completion_tokens} ${word("noteTokens")}`);
  answer.note.textContent = facts.filter(Boolean).join(" · ");
  if (failed) answer.note.className = "bad";
  stopping = null;
  $("stop").disabled = true;
  $("send").disabled = false;
  $("words").focus();
}

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
