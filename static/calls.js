// The table of calls, its filters, and the call that is opened beside it.

import { showCall, tokens } from "./call.js";
import { $, copy, count, el, failed, seconds, setText, showRows } from "./dom.js";
import { ask } from "./proxy.js";
import { clock } from "./time.js";
import { word } from "./words.js";

const ROWS_AT_ONCE = 200;

let calls = [];
let opened = null;
let rowsShown = ROWS_AT_ONCE;

export async function showCalls(now) {
  calls = now;
  show();
  await look();
}

export function startCalls() {
  $("filter").oninput = $("filter").onchange = () => {
    rowsShown = ROWS_AT_ONCE;
    show();
  };
  $("more").onclick = () => {
    rowsShown += ROWS_AT_ONCE;
    show();
  };
  // Quoted so that it works in sh and in cmd.exe.
  $("try").textContent = `curl ${location.origin}/v1/chat/completions -d "{\\"messages\\":[{\\"role\\":\\"user\\",\\"content\\":\\"hello\\"}]}"`;
  $("try-copy").onclick = () => copy($("try").textContent, $("try-copy"));
  $("rows").onclick = (event) => open(event.target.closest("tr").dataset.id);
  $("rows").onkeydown = (event) => {
    const row = event.target.closest("tr");
    const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
    if (event.key === "Enter" || event.key === " ") open(row.dataset.id);
    else if (next) next.focus();
    else return;
    event.preventDefault();
  };
  $("calls-page").onkeydown = (event) => {
    if (event.key === "Escape" && opened !== null) close();
  };
}

function show() {
  showModels();
  const matching = filtered();
  const rows = showRows($("rows"), matching.slice(0, rowsShown), (call) => call.message_id, version, fill);
  // One stop for the Tab key; the arrows go on from there.
  const stop = rows.find((row) => row === document.activeElement) ?? rows.find((row) => row.dataset.id === opened) ?? rows[0];
  for (const row of rows) {
    row.tabIndex = row === stop ? 0 : -1;
    row.setAttribute("aria-selected", String(row.dataset.id === opened));
  }
  $("more").hidden = matching.length <= rowsShown;
  setText("shown", calls.length ? word("shown", count(matching.length), count(calls.length)) : "");
  $("no-calls").hidden = calls.length > 0;
  $("no-match").hidden = matching.length > 0 || !calls.length;
}

function filtered() {
  const text = $("filter-text").value.trim().toLowerCase();
  const status = $("filter-status").value;
  const model = $("filter-model").value;
  return calls.filter((call) =>
    (!model || call.model === model) &&
    (!status || (status === "errors") === failed(call)) &&
    (!text || Object.values(call).join(" ").toLowerCase().includes(text)));
}

function fill(row, call) {
  row.className = call.refused ? "refused" : "";
  const status = call.status === null ? el("span", { class: "dim" }, word("running")) : el("span", { class: failed(call) ? "bad" : "good", title: call.error_code }, String(call.status));
  const tries = call.attempts > 1 ? el("span", { class: "warn", title: word("attempts") }, ` ×${call.attempts}`) : "";
  const reused = call.reused != null ? el("span", { class: "dim", title: word("reused", count(call.reused)) }, " ↺") : "";
  const asked = call.refused ?? (call.asked || "–");
  const model = [call.backup, call.model].filter(Boolean).join(" · ") || "–";
  row.replaceChildren(
    el("td", {}, clock(call.timestamp)),
    el("td", { class: "api dim", title: call.path }, call.dialect || "–"),
    el("td", { class: "asked", title: asked }, asked),
    el("td", { class: "model", title: model }, model),
    el("td", { class: "status" }, status, tries, reused),
    el("td", { class: "first number" }, seconds(call.first_token_ms)),
    el("td", { class: "number" }, call.refused ? "–" : seconds(call.total_ms)),
    el("td", { class: "tokens number" }, tokens(call)));
}

let modelsShown = "";
function showModels() {
  const models = [...new Set(calls.map((call) => call.model).filter(Boolean))].sort();
  if (models.join() === modelsShown) return;
  modelsShown = models.join();
  const select = $("filter-model");
  const chosen = select.value;
  select.replaceChildren(select.firstElementChild, ...models.map((model) => el("option", { value: model }, model)));
  select.value = chosen;
}

async function open(id) {
  opened = id;
  show();
  $("call").hidden = false;
  $("call").dataset.version = "";
  showCall(calls.find((call) => call.message_id === id), word("loading"), close);
  $("call").scrollTop = 0;
  // Beside the table, it leaves the table where it is; below it, on a phone, it would open out of sight.
  const below = $("call").offsetTop > $("table").offsetTop;
  $("call").focus({ preventScroll: !below });
  if (below) $("call").scrollIntoView();
  await look();
}

/** Shows the whole of the opened call, or why it can't be had; anew only when it has come to its end meanwhile. */
async function look() {
  let call = calls.find((call) => call.message_id === opened);
  if (!call || $("call").dataset.version === version(call)) return;
  let isKept = false;
  try {
    call = await ask(`/debug/calls/${call.message_id}`);
    isKept = call.request || call.response || call.error;
  } catch (error) {
    if (error.status !== 404) return; // the next look may find it
  }
  if (opened !== call.message_id) return;
  $("call").dataset.version = version(call);
  showCall(call, isKept ? null : word("notKept"), close);
}

function close() {
  const row = $("rows").querySelector("[aria-selected=true]");
  opened = null;
  $("call").hidden = true;
  show();
  row?.focus();
}

/** What is shown of a call changes with these. */
const version = (call) => `${call.message_id} ${call.status} ${document.documentElement.lang}`;
