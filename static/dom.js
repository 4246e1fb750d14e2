// Building elements and figures. Foreign text only ever becomes text.

export const $ = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text nodes. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Sets text only where it changes, so that nothing flickers and selections stay. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const seconds = (ms) => (ms === null || ms === undefined ? "–" : ms < 10_000 ? (ms / 1000).toFixed(2) : (ms / 1000).toFixed(1));
export const count = (n) => (n === null || n === undefined ? "–" : n.toLocaleString("en-US"));
export const failed = (call) => call.status >= 400;

/** Local clock time; the day too where it isn't today. */
export function clock(timestamp) {
  if (!timestamp) return "–";
  const [day, time] = timestamp.split("T");
  const now = new Date();
  const today = `${now.getFullYear()}-${String(now.getMonth() + 1).padStart(2, "0")}-${String(now.getDate()).padStart(2, "0")}`;
  return day === today ? time.slice(0, 8) : `${day.slice(5)} ${time.slice(0, 8)}`;
}

export async function copy(text, button, done) {
  const before = button.textContent;
  await navigator.clipboard.writeText(text);
  button.textContent = done;
  setTimeout(() => (button.textContent = before), 1200);
}
