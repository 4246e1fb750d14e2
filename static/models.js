// The free models there are now, in the order in which `best` asks them, what was seen of them here, and the backups.

import { $, copyButton, count, el, modelName, seconds, setText, showRows } from "./dom.js";
import { ask } from "./proxy.js";
import { minute } from "./time.js";
import { word } from "./words.js";

/** The proxy waits for the upstream's list. */
const PATIENCE_MS = 20_000;

const CAN = ["tools", "images", "structured"];
const figure = (n) => (n == null ? "–" : n.toFixed(1));
/** All of them is said only where it is true. */
const answeredShare = (m) => (m.calls ? Math.min(Math.round((m.answered / m.calls) * 100), m.answered < m.calls ? 99 : 100) : null);

/** Name, what it is sorted by, how that is shown; whether the greatest comes first. */
const COLUMNS = [
  ["rank", (m) => m.rank, (n) => (n == null ? "–" : String(n)), false],
  ["model", (m) => m.id, (id) => modelName(id), false],
  ["worth", (m) => m.worth, figure, true],
  ["index", (m) => m.index, (n, m) => (n == null ? "–" : el("span", { class: m.index_known === false ? "dim" : null }, figure(n))), true],
  ["share", (m) => m.share, (n) => (n == null ? "–" : count(Math.round(n * 100))), true],
  ["medianFirstS", (m) => m.first_token_ms, seconds, false],
  ["context", (m) => m.context_length, count, true],
  ...CAN.map((can) => [can, (m) => m[can], (yes) => (yes ? "✓" : "–"), true]),
  ["expires", (m) => m.expires, (date) => date ?? "–", false],
  ["seenCalls", (m) => m.calls, count, true],
  ["answeredShare", answeredShare, count, true],
  ["state", (m) => stateOf(m), String, false],
];
const NUMBERS = ["rank", "worth", "index", "share", "medianFirstS", "context", "seenCalls", "answeredShare"];
const kind = (name) => (NUMBERS.includes(name) ? `${name} number` : name);

let models = [];
let sortedBy = "rank";
let descending = false;
let used = "";
let asking = false;

export function startModels() {
  $("model-heads").append(...COLUMNS.map(([name]) =>
    el("th", { class: kind(name), scope: "col", "data-name": name }, el("button", { class: "sort", "data-word": name, onclick: () => sortBy(name) }))), el("td"));
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
    models = list.models;
    const missing = models.filter((m) => m.listed).length <= 1; // the router alone
    const why = now.test_mode ? word("listTest") : word("listMissing", now.address);
    setText("models-missing", missing ? why : "");
    setText("order", word("order"));
    const minutes = settings.find((s) => s.name === "STICKY_MINUTES")?.value;
    setText("sticky", minutes === "0" ? word("stickyOff") : word("sticky", minutes));
    showBackups(list.backups);
    show();
  } catch { /* what there was stays, and the next round asks again */
  } finally {
    asking = false;
  }
}

function sortBy(name) {
  descending = sortedBy === name ? !descending : COLUMNS.find(([other]) => other === name)[3];
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
  const [, by] = COLUMNS.find(([name]) => name === sortedBy);
  matching.sort((a, b) => compare(by(a) ?? null, by(b) ?? null));
  const version = (m) => JSON.stringify([m, stateOf(m), m.id === used, document.documentElement.lang]);
  showRows($("model-rows"), matching, (m) => m.id, version, fill);
  $("model-rows").parentElement.hidden = !matching.length;
  setText("models-shown", models.length ? word("shown", count(matching.length), count(models.length)) : "");
}

/** What isn't known stands last, whichever way. */
function compare(a, b) {
  if (a === b) return 0;
  if (a === null || b === null) return a === null ? 1 : -1;
  return (a < b ? -1 : 1) * (descending ? -1 : 1);
}

function fill(row, model) {
  const cells = COLUMNS.map(([name, value, shown]) => {
    const content = shown(value(model), model);
    return name === "model" ? el("th", { scope: "row", class: "model", title: model.name }, content) : el("td", { class: kind(name), "data-label": word(name) }, content);
  });
  cells.at(-1).classList.toggle("warn", Boolean(model.rests_until_ms || model.expired));
  const use = model.listed && !model.retired && !model.expired ? copyButton(word("useThis"), () => `${model.setting}=${model.id}`, word("useHint", model.setting, model.id)) : null;
  row.replaceChildren(...cells, el("td", { class: "use" }, model.id === used ? el("span", { class: "good" }, word("inUse")) : use));
}

function stateOf({ rests_until_ms: until, retired, listed, expired }) {
  if (expired) return word("expired");
  if (until) return word(retired ? "retired" : "rests", minute(until));
  return listed === false ? word("unlisted") : word("ready");
}

function showBackups(backups) {
  setText("no-backups", backups.length ? "" : word("noBackups"));
  $("backup-rows").parentElement.hidden = !backups.length;
  const version = (b) => JSON.stringify([b, stateOf(b), document.documentElement.lang]);
  const cell = (label, kind, text) => el("td", { class: kind, "data-label": word(label) }, text);
  showRows($("backup-rows"), backups, (b) => b.name, version, (row, b) =>
    row.replaceChildren(el("th", { scope: "row" }, b.name), cell("model", "wrap", b.model), cell("address", "wrap dim", b.address), cell("state", b.rests_until_ms ? "warn" : "", stateOf(b))));
}
