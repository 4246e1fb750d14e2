// JSON that folds, can be searched and copied.

import { copyButton, count, el, foldable, folded } from "./dom.js";
import { word } from "./words.js";

const FOLDED_BELOW = 2;
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
  return el("section", {}, el("div", { class: "row" }, el("h2", {}, title), copied, ...more, search), tree);
}

/** What of a value holds the text, in its keys or its values; undefined where nothing does. */
function prune(value, text) {
  if (value === null || typeof value !== "object") return String(value).toLowerCase().includes(text) ? value : undefined;
  const kept = Object.entries(value)
    .map(([key, v]) => [key, key.toLowerCase().includes(text) ? v : prune(v, text)])
    .filter(([, v]) => v !== undefined);
  return kept.length ? Object.fromEntries(kept) : undefined;
}

export function json(value, depth = 0) {
  if (value === null || typeof value !== "object") return foldable(JSON.stringify(value) ?? "null");
  const entries = Object.entries(value);
  const summary = Array.isArray(value) ? `[${count(entries.length)}]` : `{${entries.map(([key]) => key).join(", ").slice(0, 80)}}`;
  return folded(summary, () => list(entries, depth + 1), depth < FOLDED_BELOW);
}

function list(entries, depth) {
  const rest = entries.slice(ENTRIES_AT_ONCE);
  return el("div", {},
    ...entries.slice(0, ENTRIES_AT_ONCE).map(([key, value]) => el("div", {}, el("span", { class: "key" }, `${key}: `), json(value, depth))),
    rest.length ? folded(`… ${count(rest.length)}`, () => list(rest, depth)) : null);
}
