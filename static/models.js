// The free models there are now, what was seen of them here, and the backups.

import { $, copyButton, count, el, seconds, setText, showRows } from "./dom.js";
import { ask } from "./proxy.js";
import { minute } from "./time.js";
import { word } from "./words.js";

/** The proxy waits for the upstream's list. */
const PATIENCE_MS = 20_000;

const CAN = ["tools", "images", "structured"];
const share = (model) => (model.calls ? Math.floor((model.answered / model.calls) * 100) : null);

/** Name, what it is sorted by, how that is shown. */
const COLUMNS = [
  ["model", (m) => m.id, String],
  ["context", (m) => m.context_length, count],
  ...CAN.map((can) => [can, (m) => m[can], (yes) => (yes ? "✓" : "–")]),
  ["calls", (m) => m.calls, count],
  ["answered", share, count],
  ["medianFirstS", (m) => m.first_token_ms, seconds],
  ["state", (m) => stateOf(m), String],
];
const NUMBERS = ["context", "calls", "answered", "medianFirstS"];
const kind = (name) => (NUMBERS.includes(name) ? `${name} number` : name);

let models = [];
let sortedBy = null;
let descending = false;
let used = "";
let asking = false;

export function startModels() {
  $("model-heads").append(...COLUMNS.map(([name]) =>
    el("th", { class: kind(name), "data-name": name }, el("button", { class: "sort", "data-word": name, onclick: () => sortBy(name) }))), el("th"));
  $("models-shown").before(...CAN.map((can) => el("label", {}, el("input", { type: "checkbox", name: can }), " ", el("span", { "data-word": can }))));
  $("model-filter").oninput = show;
}

export async function refreshModels(now) {
  used = now.model;
  if (asking) return;
  asking = true;
  if (!models.length) setText("models-missing", word("loading"));
  try {
    const [list, { settings }] = await Promise.all([ask("/debug/models", PATIENCE_MS), ask("/debug/settings")]);
    const setting = (name) => settings.find((s) => s.name === name)?.value;
    models = list.models;
    const missing = models.filter((m) => m.listed).length <= 1; // the router alone
    const why = now.test_mode ? word("listTest") : word("listMissing", setting("OPENROUTER_BASE_URL"));
    setText("models-missing", missing ? why : "");
    const minutes = setting("STICKY_MINUTES");
    setText("sticky", minutes === "0" ? word("stickyOff") : word("sticky", minutes));
    showBackups(list.backups);
    show();
  } catch { /* what there was stays, and the next round asks again */
  } finally {
    asking = false;
  }
}

function sortBy(name) {
  descending = sortedBy === name ? !descending : NUMBERS.includes(name) || CAN.includes(name);
  sortedBy = name;
  show();
}

function show() {
  for (const head of $("model-heads").children) {
    if (head.dataset.name === sortedBy) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  const text = $("model-text").value.trim().toLowerCase();
  const needs = CAN.filter((can) => $("model-filter").elements[can].checked);
  const matching = models.filter((m) => needs.every((can) => m[can]) && `${m.id} ${m.name}`.toLowerCase().includes(text));
  const [, by] = COLUMNS.find(([name]) => name === sortedBy) ?? [];
  if (by) matching.sort((a, b) => compare(by(a), by(b)));
  const version = (m) => JSON.stringify([m, stateOf(m), m.id === used, document.documentElement.lang]);
  showRows($("models"), matching, (m) => m.id, version, fill);
  $("models").parentElement.hidden = !matching.length;
  setText("models-shown", models.length ? word("shown", count(matching.length), count(models.length)) : "");
}

/** What isn't known stands last, whichever way. */
function compare(a, b) {
  if (a === b) return 0;
  if (a === null || b === null) return a === null ? 1 : -1;
  return (a < b ? -1 : 1) * (descending ? -1 : 1);
}

function fill(row, model) {
  const cells = COLUMNS.map(([name, value, shown]) => el("td", { class: kind(name), title: name === "model" ? model.name : null }, shown(value(model))));
  cells.at(-1).classList.toggle("warn", Boolean(model.rests_until_ms));
  const use = model.listed && !model.retired ? copyButton(word("useThis"), () => `${model.setting}=${model.id}`, word("useHint", model.setting, model.id)) : null;
  row.replaceChildren(...cells, el("td", {}, model.id === used ? el("span", { class: "good" }, word("inUse")) : use));
}

function stateOf({ rests_until_ms: until, retired, listed }) {
  if (until) return word(retired ? "retired" : "rests", minute(until));
  return listed === false ? word("unlisted") : word("ready");
}

function showBackups(backups) {
  setText("no-backups", backups.length ? "" : word("noBackups"));
  $("backups").parentElement.hidden = !backups.length;
  const version = (b) => JSON.stringify([b, stateOf(b)]);
  showRows($("backups"), backups, (b) => b.name, version, (row, b) =>
    row.replaceChildren(el("td", {}, b.name), el("td", { class: "model" }, b.model), el("td", { class: "address dim" }, b.address),
      el("td", { class: b.rests_until_ms ? "warn" : "" }, stateOf(b))));
}
