// Building elements and figures. Foreign text only ever becomes text.

import { word } from "./words.js";

const FOLDED_CHARACTERS = 3000;
const FOLDED_LINES = 10;

export const $ = (id) => document.getElementById(id);

/** Characters that would turn round what stands beside a foreign text are shown as what they are. */
const seen = (child) => (typeof child === "string" ? child.replace(/[\u202a-\u202e\u2066-\u2069]/g, (c) => `[U+${c.charCodeAt(0).toString(16).toUpperCase()}]`) : child);

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element[key] = value;
    else if (value != null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null).map(seen));
  return element;
}

/** An element with attributes and children; strings become text nodes. */
export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

/** Details whose content is built when they are opened, so that a large one costs nothing until it is looked at. */
export function folded(summary, build, open = false) {
  const details = el("details", { open }, el("summary", {}, summary));
  const unfold = () => details.open && details.children.length === 1 && details.append(build());
  details.ontoggle = details.unfold = unfold;
  unfold();
  return details;
}

/** Opens all that is folded in there, also what is only built by that. */
export function expandAll(element) {
  for (let closed; (closed = element.querySelectorAll("details:not([open])")).length; ) {
    for (const details of closed) {
      details.open = true;
      details.unfold?.();
    }
  }
}

/** A text that folds when it is long; also one of many lines, where that is wanted. */
export function foldable(text, lines = Infinity) {
  const count_ = lines < Infinity ? text.split("\n", 1000).length : 0;
  if (text.length <= FOLDED_CHARACTERS && count_ <= lines) return el("span", {}, text);
  const size = count_ > lines ? word("lines", count(count_)) : word("characters", count(text.length));
  const preview = el("span", { class: "preview" }, ` ${text.slice(0, 80).replace(/\s+/g, " ")}…`);
  const long = folded(el("span", { class: "dim" }, size, preview), () => el("div", {}, text));
  long.className = "long";
  return long;
}
export const foldedResult = (text) => foldable(text, FOLDED_LINES);

/** A name that is cut in the middle, not at its telling end, where there is no room for all of it. */
export function middle(text, ...before) {
  const at = text.length > 14 ? text.length - 8 : text.length;
  return el("span", { class: "mid", title: text }, el("span", {}, before, text.slice(0, at)), el("span", {}, text.slice(at)));
}

/** A model's name: its vendor is dimmed, that it is free goes without saying. */
export function modelName(id) {
  const name = id.replace(/:free$/, "");
  const slash = name.indexOf("/");
  const shown = middle(slash < 0 ? name : name.slice(slash + 1), slash < 0 ? null : el("span", { class: "dim" }, name.slice(0, slash + 1)));
  shown.title = id;
  return shown;
}

/** One row for each item; only those are touched that are new or have another version. */
export function showRows(body, items, id, version, fill) {
  const known = new Map([...body.children].map((row) => [row.dataset.id, row]));
  const rows = items.map((item) => {
    const row = known.get(id(item)) ?? el("tr", { "data-id": id(item) });
    known.delete(id(item));
    if (row.dataset.version !== version(item)) {
      row.dataset.version = version(item);
      fill(row, item);
    }
    return row;
  });
  for (const row of known.values()) row.remove();
  rows.forEach((row, i) => body.children[i] !== row && body.insertBefore(row, body.children[i] ?? null));
  return rows;
}

/** Sets text only where it changes, so that nothing flickers and selections stay. */
export function setText(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

/** Offers these values, and keeps what is chosen. */
export function setOptions(select, values, label = String) {
  if (select.dataset.shown === values.join("\n")) return;
  select.dataset.shown = values.join("\n");
  const chosen = select.value;
  select.replaceChildren(select.firstElementChild, ...values.map((value) => el("option", { value }, label(value))));
  select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

export const seconds = (ms) => (ms == null ? "–" : ms < 10_000 ? (ms / 1000).toFixed(2) : (ms / 1000).toFixed(ms < 100_000 ? 1 : 0));
export const count = (n) => (n == null ? "–" : n.toLocaleString("en-US"));
/** In few characters. */
export const about = (n) => (n < 10_000 ? count(n) : n < 1e6 ? `${(n / 1e3).toFixed(n < 1e5 ? 1 : 0)} k` : `${(n / 1e6).toFixed(n < 1e7 ? 2 : 1)} M`);

/** The button says so for a moment, and moves nothing. */
export async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  button.dataset.copied = word("copied");
  setTimeout(() => delete button.dataset.copied, 1200);
}

export function copyButton(label, text, title) {
  const button = el("button", { class: "quiet copy", title }, label);
  button.onclick = () => copy(text(), button);
  return button;
}
