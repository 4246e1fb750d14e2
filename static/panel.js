// The page: asks the proxy every 5 s and shows what changed.

import { applyAddress, showCalls, startCalls, takeCalls } from "./calls.js";
import { showChat, startChat } from "./chat.js";
import { refreshConnect } from "./connect.js";
import { $, about, copy, copyButton, count, el, seconds, setText } from "./dom.js";
import { refreshModels, startModels } from "./models.js";
import * as plots from "./plots.js";
import { ask } from "./proxy.js";
import { refreshSettings } from "./settings.js";
import { nextDayOfQuota, setClock } from "./time.js";
import { isChinese, isWord, showWords, switchLanguage, word } from "./words.js";

const REFRESH_MS = 5000;
const root = document.documentElement;

let next = "";
let stats = null;
let days = null;
let daysShown = false;
let looks = 0;
let refreshing = null;

/** One at a time: whoever asks meanwhile waits for the one after it. */
export function refresh() {
  refreshing = (refreshing ?? Promise.resolve()).then(look);
  return refreshing;
}

async function look() {
  try {
    const [figures, list, now] = await Promise.all([ask("/debug/stats"), ask(`/debug/calls?since=${next}`), ask("/debug/state")]);
    setClock(figures.now_ms, figures.utc_offset_minutes);
    next = list.next;
    stats = figures;
    document.body.classList.remove("stale");
    showState(now);
    showFigures(now);
    await takeCalls(list);
    if (daysShown) ({ days } = await ask("/debug/days"));
    showPlots();
    if (!$("models-page").hidden) refreshModels(now);
    if (!$("connect-page").hidden) refreshConnect(now);
    if (!$("settings-page").hidden) refreshSettings(now);
    showChat(now);
  } catch (error) {
    if (!error.status && error.name !== "TimeoutError" && error.name !== "TypeError") console.error(error);
    const kind = error.status === 403 ? "off" : "gone";
    state("bad", word(kind));
    notice(kind, () => [el("p", {}, word(`${kind}Notice`))]);
    document.body.classList.add("stale");
  }
}

/** In one line; all of it on hover, for screen readers, and in the window's title. */
function state(kind, text) {
  $("state").className = kind;
  $("state").title = text;
  setText("state-text", text);
  document.title = kind === "good" ? "local-api-proxy" : `${text} · local-api-proxy`;
}

/** What is wrong, and the way out; built anew only when it says something else. */
function notice(version, build) {
  const shown = $("notice");
  const key = `${version} ${root.lang}`;
  if (shown.dataset.version === key) return;
  shown.dataset.version = key;
  shown.replaceChildren(...(build?.() ?? []));
  shown.hidden = !build;
}

function showState(now) {
  const model = now.model.replace(/:free$/, "");
  setText("model", model);
  const kinds = { ok: "good", test_mode: "warn", stopping: "warn", limit: "warn" };
  state(kinds[now.state] ?? "bad", word(isWord(now.state) ? now.state : "gone", now.limit_until));
  const line = "OPENROUTER_API_KEY=sk-or-v1-…";
  const key = () => el("p", { class: "row" }, el("code", {}, line), copyButton(word("copy"), () => line.slice(0, -1)));
  const via = now.via ? word("through", now.via) : word("directly");
  const notices = {
    no_key: () => [el("p", {}, word("noKeyNotice", now.env_file)), key()],
    key_refused: () => [el("p", {}, word("keyRefusedNotice", now.env_file)), key()],
    limit: () => [el("p", {}, word("limitNotice", now.limit_until))],
    unreachable: () => [el("p", {}, word("unreachableNotice", now.address, via, (isChinese() && now.reason_in_chinese) || now.reason || word("reasonUnknown")))],
  };
  const build = notices[now.state];
  notice(build ? [now.state, now.limit_until, now.reason, via].join() : "", build);
}

function showFigures(now) {
  setText("calls-today", count(stats.answered + stats.errors + stats.cancelled + stats.refused));
  const kinds = ["answered", "errors", "cancelled", "refused", "running"].filter((kind) => kind !== "running" || stats.running);
  const version = [root.lang, stats.reused, ...kinds.map((kind) => stats[kind])].join();
  if ($("parts").dataset.version !== version) {
    $("parts").dataset.version = version;
    const part = (kind) => el("button", { class: `part ${stats[kind] ? kind : ""}`, "data-kind": kind, title: word("onlyThese"), onclick: () => showCalls(kind) },
      el("b", {}, count(stats[kind])), ` ${word(kind)}`);
    $("parts").replaceChildren(...kinds.map(part), stats.reused ? el("span", {}, word("reusedToday", count(stats.reused))) : "");
  }
  setText("first", stats.first_token_ms === null ? "–" : `${seconds(stats.first_token_ms)} s`);
  setText("first-of", word("ofAnswered"));
  setText("tokens", about(stats.prompt_tokens + stats.completion_tokens));
  setText("tokens-parts", word("inAndOut", count(stats.prompt_tokens), count(stats.completion_tokens)));
  const quota = now.quota;
  // The upstream is asked at the first look: what it says is there a moment later.
  if (!quota && now.key && looks++ < 3) setTimeout(refresh, 1000);
  setText("quota", quota ? `${count(quota.remaining)} / ${count(quota.limit)}` : "–");
  $("quota-bar").style.visibility = quota ? "visible" : "hidden";
  if (quota) Object.assign($("quota-bar"), { max: quota.limit, low: quota.limit / 5, optimum: quota.limit, value: quota.remaining });
  setText("quota-note", quota ? word("quotaNote", count(quota.used), nextDayOfQuota()) : now.key ? word("quotaUnknown") : "");
  $("saving").hidden = now.saving && !stats.files_not_saved;
  setText("saving", now.saving ? word("notSaved", count(stats.files_not_saved)) : word("notSaving"));
}

/** Drawn anew only when there is something new to draw. */
let drawn = "";
function showPlots() {
  if (!stats || (daysShown && !days)) return;
  const width = $(daysShown ? "plot-days" : "plot-calls").clientWidth;
  if (!width) return; // another tab is in front
  const version = JSON.stringify([width, root.lang, daysShown ? days : [stats.hours, stats.models, stats.tools]]);
  if (version === drawn) return;
  drawn = version;
  if (daysShown) {
    const oldestFirst = days.toReversed();
    $("plot-days").replaceChildren(plots.days(oldestFirst, width));
    $("plot-day-tokens").replaceChildren(plots.dayTokens(oldestFirst, width));
    return;
  }
  const { top, clipped } = plots.latencyTop(stats.hours);
  setText("latency-caption", clipped ? word("latencyClipped", seconds(top)) : word("latency"));
  $("plot-calls").replaceChildren(plots.hours(stats.hours, width));
  $("plot-latency").replaceChildren(plots.latency(stats.hours, width));
  $("plot-models").replaceChildren(plots.models(stats.models, width));
  $("plot-tools").replaceChildren(plots.tools(stats.tools, width));
}

function choosePeriod(showDays) {
  daysShown = showDays;
  $("plots-hours").setAttribute("aria-pressed", String(!showDays));
  $("plots-days").setAttribute("aria-pressed", String(showDays));
  $("hours-plots").hidden = showDays;
  $("days-plots").hidden = !showDays;
  drawn = "";
  refresh();
}

let byArrows = false;
const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (tab.id === "tab-chat" && !byArrows) $("words").focus();
  byArrows = false;
  refresh();
}

/** The address says which page is shown, and which call. */
function followAddress() {
  const name = location.hash.slice(1).split("=")[0];
  const tab = $(`tab-${name}`) ?? $("tab-calls");
  if (tab.getAttribute("aria-selected") !== "true") choose(tab);
  applyAddress();
}

function changeTheme() {
  const shown = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = shown === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

function start() {
  const chosen = localStorage.getItem("theme");
  if (chosen) root.dataset.theme = chosen;
  setText("address", `${location.origin}/v1`);
  $("address").onclick = () => copy(`${location.origin}/v1`, $("address"));
  $("language").onclick = () => (switchLanguage(), refresh());
  $("theme").onclick = changeTheme;
  $("plots-hours").onclick = () => choosePeriod(false);
  $("plots-days").onclick = () => choosePeriod(true);
  for (const [i, tab] of tabs.entries()) {
    tab.onclick = () => (location.hash = tab.id.slice(4));
    tab.onkeydown = (event) => {
      const other = { ArrowRight: tabs[(i + 1) % tabs.length], ArrowLeft: tabs.at(i - 1), Home: tabs[0], End: tabs.at(-1) }[event.key];
      if (!other) return;
      event.preventDefault();
      byArrows = true; // who passes by isn't held
      other.click();
      other.focus();
    };
  }
  addEventListener("resize", showPlots);
  addEventListener("hashchange", followAddress);
  addEventListener("submit", (event) => event.preventDefault()); // every form is for this page alone
  startCalls(refresh);
  startModels();
  startChat();
  showWords();
  followAddress();
  const tick = () => document.hidden || refresh();
  setInterval(tick, REFRESH_MS);
  document.addEventListener("visibilitychange", tick);
}

start();
