// The opened call: what became of it, its timing, its tries, what was changed, then what was said, and the JSON.

import { reasonOf, statusOf, tokens, waits } from "./calls.js";
import { conversation } from "./conversation.js";
import { curl } from "./curl.js";
import { $, copyButton, count, el, expandAll, folded, seconds } from "./dom.js";
import { section } from "./json.js";
import { clock, elapsed, minute } from "./time.js";
import { word } from "./words.js";

/** Shows what is known of a call; `note` says why that isn't all. At first the answer is brought into sight. */
export function showCall(call, { note, actions, first }) {
  const box = $("call");
  const scrolled = box.scrollTop;
  const button = (label, text, onclick) => el("button", { class: "quiet", title: label, "aria-label": label, onclick }, text);
  const heading = el("div", { class: "row top" },
    el("button", { class: "quiet back", onclick: actions.close }, `← ${word("back")}`),
    el("span", { class: "dim" }, `${clock(call.timestamp)} · ${call.message_id}`),
    el("span", { class: "end" }, button(word("newer"), "↑", () => actions.step(-1)), button(word("older"), "↓", () => actions.step(1)), button(word("close"), "✕", actions.close)));
  const title = el("h2", {}, call.refused ?? (call.first_words || call.model || "–"));
  let said = [];
  let answer = null;
  try {
    if (note) said = [el("p", { class: "dim" }, note)];
    else {
      const boxes = conversation(call);
      answer = boxes.answer;
      const expand = el("button", { class: "quiet", onclick: () => expandAll(talk) }, word("expandAll"));
      const talk = el("div", {}, boxes.all);
      said = [call.refused ? null : el("div", { class: "row" }, el("h3", {}, word("conversation")), expand), talk];
    }
  } catch { /* in no shape that is known: it is there as JSON */ }
  const large = (call.too_large ?? []).map(({ path, bytes }) => el("p", { class: "warn" }, word("tooLarge", count(Math.round(bytes / 2 ** 20)), path)));
  box.replaceChildren(...[heading, title, facts(call, actions), timing(call), tries(call), changes(call), ...large, ...said, ...(note ? [] : bodies(call))].filter(Boolean));
  box.scrollTop = scrolled;
  if (first && answer && answer.getBoundingClientRect().top > Math.min(box.getBoundingClientRect().bottom, innerHeight) - 120) {
    answer.scrollIntoView({ block: answer.clientHeight > box.clientHeight / 2 ? "start" : "nearest" });
  }
}

function facts(call, actions) {
  const running = call.status === null;
  const asked = call.asked && call.asked !== call.model ? `${call.asked} → ` : "";
  const parts = [
    call.tool || null,
    call.path ? `POST ${call.path}${call.stream ? ` · ${word("stream")}` : ""}` : null,
    call.model && !call.refused ? `${asked}${call.model}` : null,
    call.backup ? word(call.status >= 400 ? "triedBackup" : "byBackup", call.backup) : null,
    call.reused != null ? word("reused", count(call.reused)) : null,
    call.prompt_tokens == null && call.completion_tokens == null ? null : word("inTokens", tokens(call)),
  ].filter(Boolean);
  const code = call.error_code && ![String(call.status), "cancelled"].includes(call.error_code) ? ` ${call.error_code}` : "";
  const state = running
    ? [el("span", { class: "running" }, waits(call) ?? word("running")), " ", el("span", { "data-since": call.time_ms }, elapsed(call.time_ms)), " ", el("button", { class: "quiet cancel", onclick: (event) => actions.cancel(event.target) }, word("cancel"))]
    : call.status === undefined ? [] : [...statusOf(call), code];
  return el("p", { class: "facts" }, state, parts.map((part) => [" · ", el("span", { class: "dim" }, part)]));
}

/** From the beginning to the end. */
function timing(call) {
  const { total_ms: total, waited_ms: waited, first_token_ms: first } = call;
  if (!total) return null;
  const rest = first === null ? [["bar-soft", call.status >= 400 ? "noteTotal" : "noteAnswer", waited, total]] : [["bar-soft", "noteFirst", waited, first], ["bar-good", "noteTotal", first, total]];
  const spans = [["bar-warn", "waited", 0, waited], ...rest].filter(([, , , to]) => to > 0);
  const bar = ([kind, , from, to]) => {
    const part = el("i", { class: kind });
    part.style.flexGrow = Math.max(to - from, 0) * 1000; // below 1 it would leave a gap
    return part;
  };
  const label = ([kind, name, , to]) => el("span", {}, el("i", { class: kind }), ` ${word(name)} ${seconds(to)} s`);
  return el("div", { class: "timing" }, el("div", {}, ...spans.map(bar)), ...spans.map(label));
}

function tries(call) {
  if (!call.tries?.length) return null;
  const items = call.tries.map((t) => el("li", {}, `${t.model}: ${reasonOf(t)} (${seconds(t.after_ms)} s)`, t.rests_until_ms ? el("span", { class: "dim" }, ` · ${word("restsUntil", minute(t.rests_until_ms))}`) : null));
  const last = [call.backup, call.model].filter(Boolean).join(" · ");
  if (call.status !== null) items.push(el("li", {}, `${last}: ${call.status} (${seconds(call.total_ms)} s)`));
  return el("div", {}, el("h3", {}, word("attempts")), el("ol", {}, ...items));
}

function changes(call) {
  if (!call.changes?.length) return null;
  const said = ({ from, to }) => (to === null ? word("dropped") : from === null ? word("added", to) : `${from} → ${to}`);
  const rows = call.changes.map((change) => el("li", {}, el("code", {}, change.field), " ", el("span", { class: "dim" }, said(change))));
  return el("div", {}, el("h3", {}, word("changes")), el("ul", {}, ...rows));
}

/** Both bodies as they are, and the stream as it came. */
function bodies(call) {
  const error = call.error ? { error: call.error, ...(call.partial && { partial: call.partial }) } : null;
  const answer = call.response ?? error ?? call.partial;
  const name = call.response ? "response" : error ? "error" : "partial";
  return [
    call.request ? section(word("request"), call.request, call.path ? copyButton(word("copyCurl"), () => curl(call)) : null) : null,
    answer ? section(word(name), answer) : null,
    call.events ? el("section", {}, folded(el("h3", {}, word("events")), () => el("pre", { tabindex: 0 }, call.events))) : null,
  ];
}
