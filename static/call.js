// The opened call: as a conversation, as JSON, with its timing and its tries.

import { $, clock, copy, count, el, seconds, svg } from "./dom.js";
import { word } from "./words.js";

const FOLDED_BELOW = 2;

export function showCall(call, close) {
  const head = el("div", { class: "row" },
    el("b", {}, call.model ?? call.asked ?? word("none")),
    el("span", { class: "dim" }, `${clock(call.timestamp)}  ${call.message_id}`),
    el("button", { type: "button", class: "quiet close", onclick: close, "aria-label": word("close") }, "✕"));
  const figures = [
    call.status === null ? word("running") : `${word("status")} ${call.status}`,
    call.waited_ms ? `${word("waited")} ${seconds(call.waited_ms)} s` : null,
    call.first_token_ms === null ? null : `${word("noteFirst")} ${seconds(call.first_token_ms)} s`,
    call.total_ms === null ? null : `${word("noteTotal")} ${seconds(call.total_ms)} s`,
    call.completion_tokens === null ? null : `${count(call.prompt_tokens)} + ${count(call.completion_tokens)} ${word("noteTokens")}`,
  ];
  const parts = [head, el("p", { class: "dim" }, figures.filter(Boolean).join(" · ")), timing(call), tries(call)];
  if (call.request === null) {
    parts.push(el("p", { class: "dim" }, word("noText")));
  } else {
    parts.push(el("h2", {}, word("text")), ...conversation(call));
    parts.push(section(word("request"), call.request, call.request, curl(call.request)));
    const answer = call.response ?? (call.error ? { error: call.error, partial: call.partial } : null);
    if (answer) parts.push(section(word(call.response ? "response" : "error"), answer, answer));
    if (call.events) parts.push(el("section", {}, el("details", {}, el("summary", {}, el("h2", {}, word("events"))), el("pre", {}, call.events))));
  }
  $("call").replaceChildren(...parts.filter(Boolean));
}

function timing(call) {
  if (!call.total_ms) return null;
  const total = call.total_ms;
  const waited = (call.waited_ms / total) * 100;
  const first = ((call.first_token_ms ?? total) / total) * 100;
  const bar = (x, width, kind) => svg("rect", { x, y: 0, width: Math.max(width, 0), height: 8, class: kind });
  return el("div", { class: "timing", title: `${word("waited")} ${seconds(call.waited_ms)} s` },
    svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", width: "100%" },
      bar(0, waited, "bar-bad"), bar(waited, first - waited, "band"), bar(first, 100 - first, "bar-good")));
}

function tries(call) {
  if (!call.tries?.length) return null;
  const items = call.tries.map((t) => el("li", {}, `${t.model}: ${t.failed} (${seconds(t.after_ms)} s)`));
  return el("div", {}, el("h2", {}, word("attempts")), el("ol", {}, ...items));
}

function conversation(call) {
  const messages = Array.isArray(call.request?.messages) ? call.request.messages : [];
  const answer = (call.response ?? call.partial)?.choices?.[0]?.message;
  const said = messages.map(message);
  if (answer) said.push(message(answer));
  if (call.error) said.push(el("div", { class: "said bad" }, el("b", {}, word("error")), call.error.message ?? JSON.stringify(call.error)));
  return said;
}

function message(m) {
  const box = el("div", { class: "said" }, el("b", {}, String(m?.role ?? "")));
  if (m?.reasoning) box.append(el("details", {}, el("summary", { class: "dim" }, word("reasoning")), String(m.reasoning)));
  if (typeof m?.content === "string") box.append(m.content);
  for (const part of Array.isArray(m?.content) ? m.content : []) {
    const url = part?.image_url?.url;
    if (typeof part?.text === "string") box.append(part.text);
    else if (typeof url === "string" && url.startsWith("data:image/")) box.append(el("img", { src: url, alt: "image" }));
    else box.append(`[${part?.type ?? "?"}] ${typeof url === "string" ? url.slice(0, 200) : ""}`);
  }
  for (const call of Array.isArray(m?.tool_calls) ? m.tool_calls : []) {
    const name = `${word("callTool")}: ${call?.function?.name ?? "?"}`;
    box.append(el("details", {}, el("summary", {}, name), el("pre", {}, String(call?.function?.arguments ?? ""))));
  }
  return box;
}

function section(title, value, copied, command) {
  const copyButton = el("button", { type: "button", class: "quiet" }, word("copy"));
  copyButton.addEventListener("click", () => copy(JSON.stringify(copied, null, 2), copyButton, word("copied")));
  const row = el("div", { class: "row" }, el("h2", {}, title), copyButton);
  if (command) {
    const curlButton = el("button", { type: "button", class: "quiet" }, word("copyCurl"));
    curlButton.addEventListener("click", () => copy(command, curlButton, word("copied")));
    row.append(curlButton);
  }
  const search = el("input", { type: "search", placeholder: word("search"), "aria-label": `${word("search")}: ${title}` });
  row.append(search);
  const tree = el("div", { class: "json" }, json(value, 0));
  search.addEventListener("input", () => {
    const text = search.value.trim().toLowerCase();
    const found = text ? prune(value, text) : value;
    tree.replaceChildren(found === undefined ? word("none") : json(found, text ? -1000 : 0));
  });
  return el("section", {}, row, tree);
}

/** What of a JSON value holds the text, in its keys or its values; undefined where nothing does. */
function prune(value, text) {
  if (value === null || typeof value !== "object") return String(value).toLowerCase().includes(text) ? value : undefined;
  const kept = Object.entries(value)
    .map(([key, v]) => [key, key.toLowerCase().includes(text) ? v : prune(v, text)])
    .filter(([, v]) => v !== undefined);
  return kept.length ? Object.fromEntries(kept) : undefined;
}

const curl = (request) => `curl ${location.origin}/v1/chat/completions -d '${JSON.stringify(request).replaceAll("'", "'\\''")}'`;

/** JSON that folds. Built when it is opened, so that a large one costs nothing until it is looked at. */
function json(value, depth) {
  if (value === null || typeof value !== "object") return document.createTextNode(JSON.stringify(value) ?? "null");
  const list = Array.isArray(value);
  const entries = Object.entries(value);
  const summary = el("summary", {}, list ? `[${entries.length}]` : `{${entries.map(([k]) => k).join(", ").slice(0, 80)}}`);
  const details = el("details", depth < FOLDED_BELOW ? { open: "" } : {}, summary);
  const fill = () => {
    if (details.open && details.children.length === 1) {
      details.append(el("div", {}, ...entries.map(([key, v]) => el("div", {}, el("span", { class: "key" }, `${key}: `), json(v, depth + 1)))));
    }
  };
  details.addEventListener("toggle", fill);
  fill();
  return details;
}
