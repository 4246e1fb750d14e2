// The table of calls, its filters, and the call that is opened beside it.

import { showCall } from "./call.js";
import { $, about, copy, count, el, middle, modelName, seconds, setOptions, setText, showRows } from "./dom.js";
import { ask } from "./proxy.js";
import { brief, elapsed, minute, today } from "./time.js";
import { isChinese, word } from "./words.js";

/** On a phone the plots stand below them. */
const ROWS_AT_ONCE = innerWidth >= 820 ? 200 : 50;
const MOST_KEPT = 1000;
const SEARCH_PAUSE_MS = 250;
/** Of what is looked for, so many words are; each of them is asked for. */
const MAX_WORDS = 4;

/** By their ids, and the newest first. */
const known = new Map();
let calls = [];
let matching = [];
let rowsShown = ROWS_AT_ONCE;
/** The id in the address, and the call itself once it has come: it may be older than all in the table. */
let opened = null;
let whole = null;
/** Where the table was on a phone, where an opened call takes the page. */
let scrolledTo = 0;
let refresh = () => {};

export function startCalls(refreshAll) {
  refresh = refreshAll;
  $("filter").oninput = (event) => {
    rowsShown = ROWS_AT_ONCE;
    if (event.target === $("filter-text")) search();
    show();
  };
  $("more").onclick = () => {
    rowsShown += ROWS_AT_ONCE;
    show();
  };
  // Quoted so that it works in sh and in cmd.exe.
  $("try").textContent = `curl ${location.origin}/v1/chat/completions -d "{\\"messages\\":[{\\"role\\":\\"user\\",\\"content\\":\\"hello\\"}]}"`;
  $("try-copy").onclick = () => copy($("try").textContent, $("try-copy"));
  $("rows").onclick = (event) => {
    const row = event.target.closest("tr");
    if (event.target.closest("button")) cancel(row.dataset.id, event.target);
    else if (!event.target.closest("a") && !String(getSelection())) open(row.dataset.id);
  };
  addEventListener("keydown", onKey);
  setInterval(tick, 1000);
}

function onKey(event) {
  if ($("calls-page").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    if (event.target === $("filter-text") && $("filter-text").value) return; // the browser empties it
    if (opened) close();
    else if (typing) event.target.blur();
    return;
  }
  if (typing) return;
  const inTable = Boolean(event.target.closest("#rows"));
  // Up and down scroll an opened call; right and left have their own meaning on tabs and in wide code.
  const sideways = opened && !event.target.closest("[role=tab], pre");
  const steps = { j: 1, k: -1, ...(inTable && { ArrowDown: 1, ArrowUp: -1 }), ...(sideways && { ArrowRight: 1, ArrowLeft: -1 }) };
  if (event.key === "/") $("filter-text").focus();
  else if (event.key in steps) step(steps[event.key], inTable);
  else return;
  event.preventDefault();
}

/** To the next or the previous call: opens it where one is open, else only goes there. */
function step(by, inTable = false) {
  const focused = document.activeElement.closest?.("#rows tr")?.dataset.id;
  const from = matching.findIndex((call) => call.message_id === (inTable ? focused : opened ?? focused));
  const to = from < 0 ? 0 : from + by;
  const call = matching[to];
  if (!call) return;
  if (to >= rowsShown) {
    rowsShown += ROWS_AT_ONCE;
    show();
  }
  const row = rowOf(call.message_id);
  if (opened || !inTable) open(call.message_id, true);
  if (inTable || !opened) row?.querySelector("a").focus();
  row?.scrollIntoView({ block: "nearest" });
}

const rowOf = (id) => [...$("rows").children].find((row) => row.dataset.id === id);

/** Takes in what is new. */
export async function takeCalls(list) {
  if (list.whole) known.clear();
  for (const call of list.calls) known.set(call.message_id, call);
  for (const id of list.dropped) known.delete(id);
  calls = [...known.values()].sort((a, b) => b.time_ms - a.time_ms);
  if (list.calls.length && words().length) search();
  show();
  await look();
}

/** Shows only those that ended so; all of them where they are shown already. */
export function showCalls(status) {
  $("filter-status").value = $("filter-status").value === status ? "" : status;
  rowsShown = ROWS_AT_ONCE;
  show();
}

const words = () => $("filter-text").value.trim().toLowerCase().split(/\s+/).filter(Boolean).slice(0, MAX_WORDS);

/** For each word the calls in whose prompt or answer it stands, as the proxy says. */
let found = new Map();
let searching = 0;
let timer;
function search() {
  clearTimeout(timer);
  const wanted = words();
  found = new Map([...found].filter(([text]) => wanted.includes(text)));
  if (!wanted.length) return;
  const number = ++searching;
  timer = setTimeout(async () => {
    const answers = await Promise.all(wanted.map((text) => ask(`/debug/calls?find=${encodeURIComponent(text)}`, 15_000).catch(() => ({ found: [], complete: false }))));
    if (number !== searching) return;
    found = new Map(wanted.map((text, i) => [text, { ids: new Set(answers[i].found), complete: answers[i].complete }]));
    show();
  }, SEARCH_PAUSE_MS);
}

const kindOf = (call) => (call.refused ? "refused" : call.status === null ? "running" : call.status === 499 ? "cancelled" : call.status >= 400 ? "errors" : "answered");
const told = (call) => [call.message_id, call.tool, call.first_words, call.asked, call.model, call.backup, call.refused, call.status, call.error_code, call.dialect, call.path].join(" ").toLowerCase();

function filtered() {
  const wanted = words();
  const status = $("filter-status").value;
  const tool = $("filter-tool").value;
  const model = $("filter-model").value;
  return calls.filter((call) =>
    (!status || kindOf(call) === status) && (!tool || (call.tool || word("unknownTool")) === tool) && (!model || call.model === model) &&
    (!wanted.length || wanted.every((text) => told(call).includes(text) || found.get(text)?.ids.has(call.message_id))));
}

function show() {
  setOptions($("filter-tool"), [...new Set(calls.map((call) => call.tool || word("unknownTool")))].sort());
  setOptions($("filter-model"), [...new Set(calls.map((call) => call.model).filter(Boolean))].sort());
  matching = filtered();
  const rows = showRows($("rows"), matching.slice(0, rowsShown), (call) => call.message_id, (call) => `${version(call)} ${today()}`, fill);
  // One stop for the Tab key; the arrows go on from there.
  const stop = rows.find((row) => row.contains(document.activeElement)) ?? rows.find((row) => row.dataset.id === opened) ?? rows[0];
  for (const row of rows) {
    const link = row.querySelector("a");
    link.tabIndex = row === stop ? 0 : -1;
    if (row.dataset.id === opened) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  $("more").hidden = matching.length <= rowsShown;
  const wanted = words();
  const numbers = [count(matching.length), count(calls.length)];
  const pending = wanted.some((text) => !found.has(text));
  const all = wanted.every((text) => found.get(text)?.complete !== false);
  setText("shown", !calls.length ? "" : pending ? word("searching") : word(!all ? "notAllSearched" : calls.length >= MOST_KEPT ? "shownOfNewest" : "shown", ...numbers));
  $("no-calls").hidden = calls.length > 0;
  $("rows").parentElement.hidden = !matching.length;
  $("no-match").hidden = matching.length > 0 || !calls.length || pending;
  tick();
}

function fill(row, call) {
  const kind = kindOf(call);
  row.className = kind;
  const text = call.refused ?? (call.first_words || word("noWords"));
  const asked = call.asked && call.asked !== call.model ? call.asked : null;
  row.replaceChildren(
    el("td", { class: "time", title: call.timestamp }, brief(call.timestamp)),
    el("td", { class: "tool", title: call.tool }, call.tool || el("span", { class: "dim" }, word("unknownTool"))),
    el("td", { class: "words" }, el("a", { href: `#call=${call.message_id}`, title: text }, text)),
    el("td", { class: "asked dim" }, asked ? middle(asked) : ""),
    el("td", { class: "model" }, call.model && !call.refused ? el("span", { class: "row" }, call.backup ? el("span", { class: "dim" }, `${call.backup} · `) : null, modelName(call.model)) : ""),
    el("td", { class: "status" }, statusOf(call, kind)),
    el("td", { class: "first number" }, call.refused ? "" : seconds(call.first_token_ms)),
    el("td", { class: "total number", "data-since": kind === "running" ? call.time_ms : null }, call.refused ? "" : seconds(call.total_ms)),
    el("td", { class: "tokens number", title: tokens(call) }, kind === "running" ? el("button", { class: "quiet" }, word("cancel")) : tokens(call, about)));
}

export const reasonOf = (tried) => (isChinese() && tried.failed_in_chinese) || tried.failed;

export function statusOf(call, kind = kindOf(call)) {
  if (kind === "running") return [el("span", { class: "running", title: waits(call) }, waits(call, "Short") ?? word("running"))];
  const classes = { answered: "good", errors: "bad", cancelled: "dim", refused: "dim" };
  const status = kind === "cancelled" ? word("cancelled") : String(call.status);
  return [
    el("span", { class: classes[kind], title: call.error_code }, status),
    call.attempts > 1 ? el("span", { class: "warn", title: call.tries.map((t) => `${t.model}: ${reasonOf(t)}`).join("\n") }, ` ×${call.attempts}`) : null,
    call.reused != null ? el("span", { class: "dim", title: word("reused", count(call.reused)) }, " ↺") : null,
  ];
}

/** What a running call waits for beside an answer. */
export function waits(call, length = "") {
  const { for: what, until } = call.waiting ?? {};
  return { limit: word(`waitsLimit${length}`, minute(until)), place: word("waitsPlace"), pause: word("waitsPause"), another: word("waitsAnother") }[what];
}

/** Those of the request and those of the answer, where it has any. */
export const tokens = (call, written = count) => [call.prompt_tokens, call.completion_tokens].filter((n) => n != null).map(written).join(" + ") || (call.refused ? "" : "–");

/** Running calls say how long they have been. */
function tick() {
  for (const cell of document.querySelectorAll("[data-since]")) cell.textContent = elapsed(Number(cell.dataset.since));
  if (opened && (whole ?? known.get(opened))?.status === null && !document.hidden) look(true);
}

async function cancel(id, button) {
  button.disabled = true;
  await ask(`/debug/calls/${id}`, 4000, "DELETE").catch(() => {});
  await refresh();
}

/** The opened call is what the address says. */
export function applyAddress() {
  const id = location.hash.match(/^#call=([0-9a-f]{8})$/)?.[1] ?? null;
  if (id === opened) return;
  const before = opened;
  if (!before) scrolledTo = scrollY;
  opened = id;
  whole = null;
  document.body.classList.toggle("opened", Boolean(id));
  $("call").hidden = !id;
  $("call").dataset.version = "";
  show();
  if (!id) {
    $("call").replaceChildren();
    rowOf(before)?.querySelector("a").focus({ preventScroll: true });
    scrollTo(0, scrolledTo);
    return;
  }
  const call = known.get(id);
  if (call) showCall(call, { note: word("loading"), actions });
  $("call").scrollTop = 0;
  if (!before) scrollTo(0, 0);
  $("call").focus({ preventScroll: true });
  look();
}

/** Going from one to the next leaves one way back. */
function open(id, replaces = false) {
  if (replaces && opened) {
    history.replaceState(null, "", `#call=${id}`);
    applyAddress();
  } else {
    location.hash = `call=${id}`;
  }
}

function close() {
  location.hash = "calls";
}

const actions = { close, step, cancel: (button) => cancel(opened, button) };

/** Shows the whole of the opened call, or why it can't be had; anew only when it has changed meanwhile. */
let looking = false;
async function look(again = false) {
  const id = opened;
  const call = known.get(id);
  const shown = $("call").dataset.version;
  if (!id || (looking && again) || (!again && shown && shown === (call ? version(call) : id))) return;
  looking = true;
  let note = null;
  try {
    whole = await ask(`/debug/calls/${id}`, 15_000);
    const isKept = whole.request || whole.response || whole.error || whole.too_large;
    if (!isKept) note = word("notKept");
  } catch (error) {
    if (error.status !== 404) return; // the next look may find it
    whole = call ?? { message_id: id };
    note = word("notKept");
  } finally {
    looking = false;
  }
  if (opened !== id) return;
  const first = !shown;
  $("call").dataset.version = call ? version(call) : id;
  showCall(whole, { note, actions, first });
}

/** What is shown of a call changes with these. */
const version = (call) => [call.message_id, call.status, call.model, call.attempts, call.first_token_ms, call.waiting?.for, document.documentElement.lang].join(" ");
