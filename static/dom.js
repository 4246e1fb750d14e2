// Building elements and figures. Foreign text only ever becomes text.

import { word } from "./words.js";

const LONG_TEXT = 3000;

export const $ = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element[key] = value;
    else if (value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** An element with attributes and children; strings become text nodes. */
export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

/** Details whose content is built when they are opened, so that a large one costs nothing until it is looked at. */
export function folded(summary, build, open = false) {
  const details = el("details", open ? { open: "" } : {}, el("summary", {}, summary));
  const unfold = () => details.open && details.children.length === 1 && details.append(build());
  details.ontoggle = unfold;
  unfold();
  return details;
}

/** A text that folds when it is long. */
export function foldable(text) {
  if (text.length <= LONG_TEXT) return el("span", {}, text);
  const preview = el("span", { class: "preview" }, ` ${text.slice(0, 200)}…`);
  const long = folded(el("span", { class: "dim" }, word("characters", count(text.length)), preview), () => el("div", {}, text));
  long.className = "long";
  return long;
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

export const seconds = (ms) => (ms == null ? "–" : ms < 10_000 ? (ms / 1000).toFixed(2) : (ms / 1000).toFixed(1));
export const count = (n) => (n == null ? "–" : n.toLocaleString("en-US"));
export const failed = (call) => call.status >= 400;

export async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  const label = (button.dataset.before ??= button.textContent);
  button.textContent = word("copied");
  setTimeout(() => {
    button.textContent = label;
    delete button.dataset.before;
  }, 1200);
}

export function copyButton(label, text, title) {
  const button = el("button", { class: "quiet", title }, label);
  button.onclick = () => copy(text(), button);
  return button;
}
