// Small plots, drawn as SVG: stacked bars by hour or day, bands of latency, and bars by name.

import { about, count, seconds, svg } from "./dom.js";
import { word } from "./words.js";

const HEIGHT = 96;
const FLOOR = 80;
const TOP = 16;
const NAMES_AT_ONCE = 5;

const title = (text) => svg("title", {}, text);
const label = (text, x, y, anchor, kind) => svg("text", { x, y, "text-anchor": anchor, class: kind }, text);

/** Who doesn't see a plot hears its name and what the marks say. */
function picture(width, name, told, ...marks) {
  const said = told.length ? told : [word("nothingYet")];
  return svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": [name, ...said].join("; ") }, ...marks);
}

function frame(width, name, told, ...marks) {
  const axis = svg("line", { class: "axis", x1: 0, x2: width, y1: FLOOR, y2: FLOOR });
  return picture(width, name, told, axis, ...marks);
}

const empty = (width) => label(word("nothingYet"), width / 2, FLOOR / 2 + 4, "middle");

/** Stacked bars: `parts` are [class, value] from the bottom to the top. */
function stacks(width, name, slots, highest = count) {
  const sum = ({ parts }) => parts.reduce((n, [, value]) => n + value, 0);
  const most = Math.max(...slots.map(sum));
  const step = width / slots.length;
  const gap = step > 8 ? 2 : 1;
  const bars = slots.map((slot, i) => {
    let y = FLOOR;
    const stack = slot.parts.filter(([, value]) => value).map(([kind, value]) => {
      const height = Math.max((value / most) * (FLOOR - TOP), 1.5);
      y -= height;
      return svg("rect", { class: kind, x: i * step + gap, y, width: step - 2 * gap, height });
    });
    return svg("g", {}, title(slot.title), svg("rect", { class: "hover", x: i * step, y: 0, width: step, height: FLOOR }), stack);
  });
  const ends = [label(slots[0].label, 0, HEIGHT - 2, "start"), label(slots.at(-1).label, width, HEIGHT - 2, "end")];
  return frame(width, name, slots.filter(sum).map((slot) => slot.title), bars, ends, most ? label(highest(most), 0, 11, "start") : empty(width));
}

const PARTS = (s) => [["bar-good", s.answered], ["bar-grey", s.cancelled], ["bar-hollow", s.refused], ["bar-bad", s.errors]];
const partsTitle = (name, s) => word("slotTitle", name, count(s.answered), count(s.errors), count(s.cancelled), count(s.refused));
const hourOf = (slot) => slot.begin.slice(11, 16);
const dayOf = ({ date }) => `${date.slice(4, 6)}-${date.slice(6)}`;

export const hours = (slots, width) =>
  stacks(width, word("callsPerHour"), slots.map((s) => ({ title: partsTitle(hourOf(s), s), label: hourOf(s), parts: PARTS(s) })));

export const days = (slots, width) =>
  stacks(width, word("callsPerDay"), slots.map((s) => ({ title: partsTitle(dayOf(s), s), label: dayOf(s), parts: PARTS(s) })));

export const dayTokens = (slots, width) =>
  stacks(width, word("tokensPerDay"), slots.map((s) => ({
    title: word("dayTokensTitle", dayOf(s), count(s.prompt_tokens), count(s.completion_tokens)), label: dayOf(s),
    parts: [["bar-soft", s.prompt_tokens], ["bar-good", s.completion_tokens]],
  })), about);

/** Where the plot of latency ends: 95 of 100 hours' slow calls are within it, and all medians. */
export function latencyTop(slots) {
  const slow = slots.map((s) => s.slow_ms).filter((ms) => ms !== null).sort((a, b) => a - b);
  const medians = Math.max(1, ...slots.map((s) => s.total_ms ?? 0));
  const top = Math.max(medians, slow[Math.floor((slow.length - 1) * 0.95)] ?? 0);
  return { top, clipped: (slow.at(-1) ?? 0) > top };
}

/** By hour: the band from the median first token to the median total, and a line up to the slow ones. */
export function latency(slots, width) {
  const { top } = latencyTop(slots);
  const step = width / slots.length;
  const y = (ms) => FLOOR - (Math.min(ms, top) / top) * (FLOOR - TOP);
  const told = [];
  const marks = slots.map((s, i) => {
    if (s.total_ms === null) return null;
    told.push(word("latencyTitle", hourOf(s), seconds(s.first_ms), seconds(s.total_ms), seconds(s.slow_ms)));
    const [x, wide] = [i * step + 2, step - 4];
    const first = s.first_ms ?? s.total_ms;
    return svg("g", {}, title(told.at(-1)),
      svg("rect", { class: "hover", x: i * step, y: 0, width: step, height: FLOOR }),
      svg("line", { class: "slow", x1: x + wide / 2, x2: x + wide / 2, y1: y(s.total_ms), y2: y(s.slow_ms) }),
      svg("rect", { class: "bar-soft", x, width: wide, y: y(s.total_ms), height: Math.max(y(first) - y(s.total_ms), 2) }),
      svg("rect", { class: "bar-good", x, width: wide, y: y(first) - 1, height: 2 }));
  });
  const ends = [label(hourOf(slots[0]), 0, HEIGHT - 2, "start"), label(hourOf(slots.at(-1)), width, HEIGHT - 2, "end")];
  return frame(width, word("latency"), told, marks.filter(Boolean), ends, told.length ? label(seconds(top), 0, 11, "start") : empty(width));
}

/** Bars by name: `rows` are {name, title, value, told, bad}. */
function bars(width, name, rows) {
  if (!rows.length) return frame(width, name, [], empty(width));
  const most = Math.max(1, ...rows.map((row) => row.value));
  const room = Math.floor((width - 60) / 6.4);
  const marks = rows.slice(0, NAMES_AT_ONCE).map((row, i) => svg("g", {}, title(row.title),
    svg("rect", { class: "bar-soft", x: 0, y: i * 19, width: Math.max((row.value / most) * width, 2), height: 16, rx: 2 }),
    row.bad ? svg("rect", { class: "bar-bad", x: 0, y: i * 19 + 14, width: Math.max((row.bad / most) * width, 2), height: 2 }) : null,
    label(row.name.length > room ? `${row.name.slice(0, Math.ceil(room / 2))}…${row.name.slice(-Math.floor(room / 2))}` : row.name, 4, i * 19 + 12, "start", "name"),
    label(row.told, width - 4, i * 19 + 12, "end", "name")));
  return picture(width, name, rows.map((row) => row.title), marks);
}

export const models = (list, width) =>
  bars(width, word("tokensByModel"), list.map((m) => ({
    name: m.model.replace(/^[^/]*\//, "").replace(/:free$/, ""), value: m.prompt_tokens + m.completion_tokens, told: about(m.prompt_tokens + m.completion_tokens),
    title: word("modelTitle", m.model, count(m.calls), count(m.prompt_tokens), count(m.completion_tokens), seconds(m.first_ms), seconds(m.total_ms)),
  })));

export const tools = (list, width) =>
  bars(width, word("callsByTool"), list.map((t) => {
    const all = t.answered + t.errors + t.cancelled + t.refused;
    const name = t.tool || word("unknownTool");
    return { name, value: all, told: count(all), bad: t.errors, title: partsTitle(name, t) };
  }));
