// The opened call: what became of it, its tries and its timing, then what was said, and the JSON.

import { conversation } from "./conversation.js";
import { $, copyButton, count, el, folded, seconds } from "./dom.js";
import { section } from "./json.js";
import { clock } from "./time.js";
import { word } from "./words.js";

/** Shows what is known of a call; `note` says why that isn't all. */
export function showCall(call, note, close) {
  const heading = el("div", { class: "row" },
    el("b", {}, call.refused ?? (call.model || call.asked || "–")),
    el("span", { class: "dim" }, `${clock(call.timestamp)}  ${call.message_id}`),
    el("button", { class: "quiet close", onclick: close, "aria-label": word("close") }, "✕"));
  const figures = [
    call.status === null ? word("running") : `${word("status")} ${[...new Set([String(call.status), call.error_code])].filter(Boolean).join(" ")}`,
    call.path ? `POST ${call.path}` : null,
    call.stream ? word("stream") : null,
    call.prompt_tokens === null && call.completion_tokens === null ? null : `${tokens(call)} ${word("noteTokens")}`,
    call.backup ? word("byBackup", call.backup) : null,
    call.reused != null ? word("reused", count(call.reused)) : null,
  ];
  const facts = el("p", { class: "dim" }, figures.filter(Boolean).join(" · "));
  let said = [];
  try {
    said = note ? [el("p", { class: "dim" }, note)] : [call.refused ? null : el("h2", {}, word("conversation")), ...conversation(call)];
  } catch { /* in no shape that is known: it is there as JSON */ }
  $("call").replaceChildren(...[heading, facts, timing(call), tries(call), ...said, ...(note ? [] : whole(call))].filter(Boolean));
}

/** Those of the request and those of the answer, where it has any. */
export const tokens = (call) => [call.prompt_tokens, call.completion_tokens].filter((n) => n !== null).map(count).join(" + ") || "–";

/** Both bodies as they are, and the stream as it came. */
function whole(call) {
  const answer = call.response ?? (call.error ? { error: call.error, ...(call.partial && { partial: call.partial }) } : null);
  const body = JSON.stringify(call.request);
  const isWindows = navigator.platform.startsWith("Win"); // cmd has quotes of its own
  const argument = () => (isWindows ? `"${body.replace(/(\\*)"/g, '$1$1\\"')}"` : `'${body.replaceAll("'", "'\\''")}'`);
  const quoted = () => `curl ${location.origin}${call.path} -d ${argument()}`;
  return [
    call.request ? section(word("request"), call.request, call.path ? copyButton(word("copyCurl"), quoted) : null) : null,
    answer ? section(word(call.response ? "response" : "error"), answer) : null,
    call.events ? el("section", {}, folded(el("h2", {}, word("events")), () => el("pre", {}, call.events))) : null,
  ];
}

/** From the beginning to the end. */
function timing(call) {
  const { total_ms: total, waited_ms: waited, first_token_ms: first } = call;
  if (!total) return null;
  const rest = first === null ? [["bar-soft", "noteTotal", waited, total]] : [["bar-soft", "noteFirst", waited, first], ["bar-good", "noteTotal", first, total]];
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
  if (!call.tries.length) return null;
  const items = call.tries.map((t) => el("li", {}, `${t.model}: ${t.failed} (${seconds(t.after_ms)} s)`));
  const last = [call.backup, call.model].filter(Boolean).join(" · ");
  if (call.status !== null) items.push(el("li", {}, `${last}: ${call.status} (${seconds(call.total_ms)} s)`));
  return el("div", {}, el("h2", {}, word("attempts")), el("ol", {}, ...items));
}
