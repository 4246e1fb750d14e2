// JSON that folds, can be searched and copied.

import { copyButton, count, el, foldable, folded } from "./dom.js";
import { word } from "./words.js";

const FOLDED_BELOW = 1;
const ENTRIES_AT_ONCE = 200;

/** A value with a title; `more` are buttons beside it. */
export function section(title, value, ...more) {
  const search = el("input", { type: "search", placeholder: word("search"), "aria-label": `${word("search")}: ${title}` });
  const tree = el("div", { class: "json" }, json(value));
  search.oninput = () => {
    const text = search.value.trim().toLowerCase();
    const found = text ? prune(value, text) : value;
    tree.replaceChildren(found === undefined ? word("none") : json(found, text ? -1000 : 0));
  };
  const copied = copyButton(word("copy"), () => JSON.stringify(value, null, 2));
  return el("section", {}, el("div", { class: "row" }, el("h3", {}, title), copied, ...more, search), tree);
}

/** What of a value holds the text, in its keys or its values; undefined where nothing does. */
function prune(value, text) {
  if (value === null || typeof value !== "object") return String(value).toLowerCase().includes(text) ? value : undefined;
  const kept = Object.entries(value)
    .map(([key, v]) => [key, key.toLowerCase().includes(text) ? v : prune(v, text)])
    .filter(([, v]) => v !== undefined);
  return kept.length ? Object.fromEntries(kept) : undefined;
}

export const json = (value, depth = 0) => node(null, value, depth);

/** A value with its key, on one line as far as it goes: what is folded says what is in it. */
function node(key, value, depth) {
  const name = key === null ? null : el("span", { class: "key" }, `${key}: `);
  if (value === null || typeof value !== "object") return el("div", {}, name, foldable(JSON.stringify(value) ?? "null"));
  const isList = Array.isArray(value);
  const entries = Object.entries(value);
  if (!entries.length) return el("div", {}, name, isList ? "[]" : "{}");
  const summary = el("span", {}, name, el("span", { class: "dim" }, isList ? `[${count(entries.length)}]` : preview(entries)));
  return folded(summary, () => list(entries, isList, depth + 1), depth <= FOLDED_BELOW);
}

/** Of an object what tells it from others, else its keys. */
function preview(entries) {
  const telling = entries.filter(([key, v]) => ["role", "type", "name", "id"].includes(key) && typeof v === "string");
  const shown = telling.length ? telling.map(([key, v]) => `${key}: ${v.slice(0, 30)}`) : entries.map(([key]) => key);
  return `{${shown.join(", ").slice(0, 80)}}`;
}

/** The elements of a list need no numbers: their order says it. */
function list(entries, isList, depth) {
  const rest = entries.slice(ENTRIES_AT_ONCE);
  return el("div", { class: "inside" },
    entries.slice(0, ENTRIES_AT_ONCE).map(([key, value]) => node(isList ? null : key, value, depth)),
    rest.length ? folded(`… ${count(rest.length)}`, () => list(rest, isList, depth)) : null);
}
