// The page: asks the proxy every 5 s and shows what changed.

import { showCall } from "./call.js";
import { startChat } from "./chat.js";
import { $, clock, copy, count, el, failed, seconds, setText } from "./dom.js";
import * as plots from "./plots.js";
import { showWords, switchLanguage, word } from "./words.js";

const REFRESH_MS = 5000;
const ROWS_AT_ONCE = 200;

let calls = [];
let hours = [];
let opened = null;
let rowsShown = ROWS_AT_ONCE;

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(4000) });
  if (response.status === 403) throw Object.assign(new Error(), { off: true });
  if (!response.ok) throw new Error(response.status);
  return response.json();
}

async function refresh() {
  try {
    const [stats, list, state] = await Promise.all([ask("/debug/stats"), ask("/debug/calls"), ask("/debug/state")]);
    calls = list.calls;
    showState(state);
    showFigures(stats, state);
    hours = stats.hours;
    showPlots();
    showRows();
    await refreshOpened();
    if (!$("settings-page").hidden) showSettings(await ask("/debug/settings"));
    document.querySelector("main").classList.remove("stale");
  } catch (error) {
    state("bad", word(error.off ? "off" : "gone"));
    document.querySelector("main").classList.add("stale");
  }
}

function state(kind, text) {
  $("state").dataset.state = kind;
  setText($("state").lastElementChild, text);
}

function showState(now) {
  setText($("model"), now.model);
  if (now.test_mode) state("warn", word("testMode"));
  else if (!now.key) state("bad", word("noKey"));
  else if (now.limit_until) state("warn", `${word("limitUntil")} ${now.limit_until}`);
  else if (calls.find((call) => call.status !== null)?.error_code === "upstream_unreachable") state("bad", word("unreachable"));
  else state("ok", word("ok"));
}

function showFigures(stats, now) {
  setText($("count"), count(stats.count));
  setText($("updated"), stats.last_updated ? `${word("lastUpdate")} ${clock(stats.last_updated)}` : "");
  setText($("errors"), count(stats.errors));
  const firsts = calls.map((call) => call.first_token_ms).filter((ms) => ms !== null).sort((a, b) => a - b);
  setText($("first"), firsts.length ? `${seconds(firsts[Math.floor(firsts.length / 2)])} s` : "–");
  setText($("quota"), now.quota ? `${count(now.quota.remaining)} / ${count(now.quota.limit)}` : "–");
  setText($("quota-reset"), now.quota ? `${count(now.quota.used)} ${word("used")} · ${word("resets")} ${nextDayOfQuota()}` : "");
  $("saving").hidden = now.saving && !stats.files_not_saved;
  setText($("saving"), now.saving ? `${count(stats.files_not_saved)} ${word("notSaved")}` : word("notSaving"));
}

/** OpenRouter counts its days in UTC. */
function nextDayOfQuota() {
  const now = new Date();
  const next = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate() + 1));
  return `${String(next.getHours()).padStart(2, "0")}:${String(next.getMinutes()).padStart(2, "0")}`;
}

/** Drawn anew only when there is something new to draw. */
let drawn = "";
function showPlots() {
  const width = $("plot-hours").clientWidth;
  if (!width) return; // another tab is in front
  const now = `${width} ${new Date().getHours()} ${JSON.stringify(hours)} ${calls.length} ${calls[0]?.message_id}`;
  if (now === drawn) return;
  drawn = now;
  $("plot-hours").replaceChildren(plots.hours(hours, width));
  $("plot-latency").replaceChildren(plots.latency(calls, width));
  $("plot-tokens").replaceChildren(plots.tokens(calls, width));
}

function filtered() {
  const text = $("filter-text").value.trim().toLowerCase();
  const status = $("filter-status").value;
  const model = $("filter-model").value;
  return calls.filter((call) =>
    (!model || call.model === model) &&
    (!status || (status === "errors") === failed(call)) &&
    (!text || `${call.asked} ${call.model} ${call.status} ${call.message_id} ${call.timestamp}`.toLowerCase().includes(text)));
}

function showRows() {
  showModels();
  const matching = filtered();
  const rows = $("rows");
  const known = new Map([...rows.children].map((row) => [row.dataset.id, row]));
  const wanted = matching.slice(0, rowsShown).map((call) => {
    const row = known.get(call.message_id) ?? newRow(call);
    if (row.dataset.status !== String(call.status)) fillRow(row, call);
    row.setAttribute("aria-selected", String(call.message_id === opened));
    return row;
  });
  const ids = new Set(wanted.map((row) => row.dataset.id));
  for (const [id, row] of known) if (!ids.has(id)) row.remove();
  wanted.forEach((row, i) => rows.children[i] !== row && rows.insertBefore(row, rows.children[i] ?? null));
  // One stop for the Tab key; the arrows go on from there.
  const stop = wanted.find((row) => row === document.activeElement) ?? wanted.find((row) => row.dataset.id === opened) ?? wanted[0];
  for (const row of wanted) row.tabIndex = row === stop ? 0 : -1;
  $("more").hidden = matching.length <= rowsShown;
  setText($("more"), word("more"));
  setText($("shown"), calls.length ? `${count(matching.length)} ${word("of")} ${count(calls.length)}` : "");
  showEmpty(matching);
}

function newRow(call) {
  const open = () => openCall(call.message_id);
  const row = el("tr", { tabindex: -1, "data-id": call.message_id, onclick: open });
  row.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open();
    } else if (event.key === "ArrowDown") row.nextElementSibling?.focus();
    else if (event.key === "ArrowUp") row.previousElementSibling?.focus();
  });
  return row;
}

function fillRow(row, call) {
  row.dataset.status = String(call.status);
  const status = call.status === null ? el("span", { class: "dim" }, word("running")) : el("span", { class: failed(call) ? "bad" : "good", title: call.error_code }, String(call.status));
  const tries = call.attempts > 1 ? el("span", { class: "warn" }, ` ×${call.attempts}`) : "";
  const tokens = call.completion_tokens === null ? "–" : `${count(call.prompt_tokens)} + ${count(call.completion_tokens)}`;
  row.replaceChildren(
    el("td", {}, clock(call.timestamp)),
    el("td", { title: call.asked ?? "" }, call.asked ?? "–"),
    el("td", { title: call.model ?? "" }, call.model ?? "–"),
    el("td", {}, status, tries),
    el("td", { class: "number" }, seconds(call.first_token_ms)),
    el("td", { class: "number" }, seconds(call.total_ms)),
    el("td", { class: "number" }, tokens));
}

function showEmpty(matching) {
  $("empty").hidden = matching.length > 0;
  if (matching.length) return;
  if (calls.length) {
    delete $("empty").dataset.said;
    return $("empty").replaceChildren(word("noMatch"));
  }
  // Quoted so that it works in sh and in cmd.exe.
  const command = `curl ${location.origin}/v1/chat/completions -d "{\\"messages\\":[{\\"role\\":\\"user\\",\\"content\\":\\"hello\\"}]}"`;
  if ($("empty").dataset.said === word("noCalls")) return;
  $("empty").dataset.said = word("noCalls");
  const button = el("button", { type: "button" }, word("copy"));
  button.addEventListener("click", () => copy(command, button, word("copied")));
  $("empty").replaceChildren(word("noCalls"), el("pre", {}, command), button);
}

let modelsShown = "";
function showModels() {
  const models = [...new Set(calls.map((call) => call.model).filter(Boolean))].sort();
  const now = document.documentElement.lang + models.join();
  if (now === modelsShown) return;
  modelsShown = now;
  const chosen = $("filter-model").value;
  const chosenStatus = $("filter-status").value;
  $("filter-model").replaceChildren(el("option", { value: "" }, word("allModels")), ...models.map((m) => el("option", { value: m }, m)));
  $("filter-model").value = chosen;
  $("filter-status").replaceChildren(...[["", "allStatuses"], ["ok", "onlyOk"], ["errors", "onlyErrors"]].map(([v, w]) => el("option", { value: v }, word(w))));
  $("filter-status").value = chosenStatus;
}

async function openCall(id) {
  opened = id;
  showRows();
  const call = await ask(`/debug/calls/${id}`).catch(() => null);
  if (!call || opened !== id) return;
  $("call").hidden = false;
  $("call").dataset.status = String(call.status);
  showCall(call, closeCall);
  $("call").scrollTop = 0;
  // Beside the table, it leaves the table where it is; below it, on a phone, it would open out of sight.
  const below = $("call").offsetTop > $("table").offsetTop;
  $("call").focus({ preventScroll: !below });
  if (below) $("call").scrollIntoView();
}

/** An opened call is only shown anew when it has come to its end meanwhile. */
async function refreshOpened() {
  if (opened === null || $("call").dataset.status !== "null") return;
  const call = await ask(`/debug/calls/${opened}`).catch(() => null);
  if (call && call.status !== null) {
    $("call").dataset.status = String(call.status);
    showCall(call, closeCall);
  }
}

function closeCall() {
  const row = $("rows").querySelector("[aria-selected=true]");
  opened = null;
  $("call").hidden = true;
  showRows();
  row?.focus();
}

function showSettings({ settings }) {
  $("settings").replaceChildren(...settings.map((s) =>
    el("tr", {}, el("td", {}, s.name), el("td", {}, s.value), el("td", { class: "dim" }, s.needs_restart ? word("needsRestart") : ""))));
}

function choose(tab) {
  for (const other of document.querySelectorAll("[role=tab]")) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (tab.id === "tab-chat") $("words").focus();
  if (tab.id === "tab-settings") refresh();
}

function theme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
}

function start() {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  const words = () => {
    showWords();
    setText($("language"), word("language"));
    setText($("theme"), word("theme"));
    for (const row of $("rows").children) row.dataset.status = "";
    refresh();
  };
  setText($("address"), `${location.origin}/v1`);
  $("address").addEventListener("click", () => copy(`${location.origin}/v1`, $("address"), word("copied")));
  $("language").addEventListener("click", () => { switchLanguage(); words(); });
  $("theme").addEventListener("click", theme);
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const [i, tab] of tabs.entries()) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) {
        const next = tabs[(i + step + tabs.length) % tabs.length];
        choose(next);
        next.focus();
      }
    });
  }
  for (const id of ["filter-text", "filter-status", "filter-model"]) $(id).addEventListener("input", () => { rowsShown = ROWS_AT_ONCE; showRows(); });
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", () => { rowsShown += ROWS_AT_ONCE; showRows(); });
  $("calls-page").addEventListener("keydown", (event) => event.key === "Escape" && opened !== null && closeCall());
  addEventListener("resize", showPlots);
  startChat();
  words();
  setInterval(() => document.hidden || refresh(), REFRESH_MS);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
}

start();
