// The page: asks the proxy every 5 s and shows what changed.

import { showCalls, startCalls } from "./calls.js";
import { startChat } from "./chat.js";
import { $, copy, count, el, seconds, setText } from "./dom.js";
import { refreshModels, startModels } from "./models.js";
import * as plots from "./plots.js";
import { ask } from "./proxy.js";
import { clock, hour, lastHours, nextDayOfQuota, setClock } from "./time.js";
import { showWords, switchLanguage, word } from "./words.js";

const REFRESH_MS = 5000;
const root = document.documentElement;

let calls = [];
/** Those that were calls, and no answers of before. */
let made = [];
let hours = [];

async function refresh() {
  try {
    const [stats, list, now] = await Promise.all([ask("/debug/stats"), ask("/debug/calls"), ask("/debug/state")]);
    setClock(stats.now_ms, stats.utc_offset_minutes);
    calls = list.calls;
    made = calls.filter((call) => call.reused == null);
    hours = stats.hours;
    showState(now);
    showFigures(stats, now);
    showPlots();
    await showCalls(calls);
    if (!$("models-page").hidden) refreshModels(now);
    if (!$("settings-page").hidden) showSettings(await ask("/debug/settings"));
    document.body.classList.remove("stale");
  } catch (error) {
    state("bad", word(error.status === 403 ? "off" : "gone"));
    document.body.classList.add("stale");
  }
}

function state(kind, text) {
  $("state").firstElementChild.className = kind;
  setText("state-text", text);
}

function showState(now) {
  setText("model", now.model);
  $("chat-model").placeholder = now.model;
  const last = calls.find((call) => call.status !== null && !call.refused);
  if (now.test_mode) state("warn", word("testMode"));
  else if (!now.key) state("bad", word("noKey"));
  else if (now.limit_until) state("warn", word("limitUntil", now.limit_until));
  else if (last?.status === 401) state("bad", word("keyRefused"));
  else if (last?.error_code === "upstream_unreachable") state("bad", word("unreachable"));
  else state("good", word("ok"));
}

function showFigures(stats, now) {
  setText("count", count(stats.count));
  const below = [stats.reused && word("savedToday", count(stats.reused)), stats.last_updated && word("lastUpdate", clock(stats.last_updated))];
  setText("updated", below.filter(Boolean).join(" · "));
  setText("errors", count(stats.errors));
  const firsts = made.map((call) => call.first_token_ms).filter((ms) => ms !== null).sort((a, b) => a - b);
  setText("first", firsts.length ? `${seconds(firsts[Math.floor(firsts.length / 2)])} s` : "–");
  setText("quota", now.quota ? `${count(now.quota.remaining)} / ${count(now.quota.limit)}` : "–");
  setText("quota-reset", now.quota ? word("quotaUsed", count(now.quota.used), nextDayOfQuota()) : "");
  $("saving").hidden = now.saving && !stats.files_not_saved;
  setText("saving", word(now.saving ? "notSaved" : "notSaving", count(stats.files_not_saved)));
}

/** Drawn anew only when there is something new to draw. */
let drawn = "";
function showPlots() {
  const width = $("plot-hours").clientWidth;
  if (!width) return; // another tab is in front
  const done = calls.find((call) => call.status !== null);
  const now = [width, root.lang, hour(lastHours()[23]), JSON.stringify(hours), done?.message_id].join();
  if (now === drawn) return;
  drawn = now;
  $("plot-hours").replaceChildren(plots.hours(hours, width));
  $("plot-latency").replaceChildren(plots.latency(made, width));
  $("plot-tokens").replaceChildren(plots.tokens(made, width));
}

function showSettings({ settings }) {
  $("settings").replaceChildren(...settings.map((s) =>
    el("tr", {}, el("td", {}, s.name), el("td", {}, s.value === "not set" ? word("notSet") : s.value), el("td", { class: "dim" }, s.needs_restart ? word("needsRestart") : ""))));
}

function choose(tab) {
  for (const other of document.querySelectorAll("[role=tab]")) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (tab.id === "tab-chat") $("words").focus();
  else refresh();
}

function changeTheme() {
  const now = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

function start() {
  const chosen = localStorage.getItem("theme");
  if (chosen) root.dataset.theme = chosen;
  setText("address", `${location.origin}/v1`);
  $("address").onclick = () => copy(`${location.origin}/v1`, $("address"));
  $("language").onclick = () => (switchLanguage(), refresh());
  $("theme").onclick = changeTheme;
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const [i, tab] of tabs.entries()) {
    tab.onclick = () => choose(tab);
    tab.onkeydown = (event) => {
      const next = { ArrowRight: tabs[(i + 1) % tabs.length], ArrowLeft: tabs.at(i - 1) }[event.key];
      if (next) {
        choose(next);
        next.focus();
      }
    };
  }
  addEventListener("resize", showPlots);
  addEventListener("submit", (event) => event.preventDefault()); // every form is for this page alone
  startCalls();
  startModels();
  startChat();
  showWords();
  choose(tabs[0]);
  const look = () => document.hidden || refresh();
  setInterval(look, REFRESH_MS);
  document.addEventListener("visibilitychange", look);
}

start();
