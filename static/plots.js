// Three small plots, drawn as SVG.

import { count, failed, seconds, svg } from "./dom.js";
import { HOUR_MS, hour, lastHours, minute } from "./time.js";
import { word } from "./words.js";

const HEIGHT = 96;
const FLOOR = 80;

function frame(width, ...marks) {
  const axis = svg("line", { class: "axis", x1: 0, x2: width, y1: FLOOR, y2: FLOOR });
  return svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" }, axis, ...marks);
}

const title = (text) => svg("title", {}, text);
const label = (text, x, y, anchor) => svg("text", { x, y, "text-anchor": anchor }, text);

/** Calls of the last 24 hours, errors on top. */
export function hours(counted, width) {
  const slots = lastHours().map((begin) => ({ begin, ok: 0, errors: 0 }));
  for (const { begin_ms, answered: ok, errors } of counted) {
    const slot = slots.find(({ begin }) => Math.abs(begin - begin_ms) < HOUR_MS / 2);
    if (slot) {
      slot.ok += ok;
      slot.errors += errors;
    }
  }
  const most = Math.max(1, ...slots.map((s) => s.ok + s.errors));
  const step = width / 24;
  const marks = slots.map((slot, i) => {
    const good = (slot.ok / most) * 64;
    const bad = (slot.errors / most) * 64;
    const bar = (kind, height, y) => svg("rect", { class: kind, x: i * step + 2, y, width: step - 4, height });
    return svg("g", {}, title(word("hourTitle", hour(slot.begin), count(slot.ok), count(slot.errors))),
      svg("rect", { class: "hover", x: i * step, y: 0, width: step, height: FLOOR }),
      bar("bar-good", good, FLOOR - good), bar("bar-bad", bad, FLOOR - good - bad));
  });
  marks.push(label(minute(slots[0].begin), 0, HEIGHT, "start"), label(hour(slots[23].begin), width, HEIGHT, "end"));
  if (counted.length) marks.push(label(count(most), 0, 12, "start"));
  return frame(width, ...marks);
}

/** Of the last 60 calls: the band from first token to total. */
export function latency(calls, width) {
  const done = calls.filter((call) => call.total_ms !== null && !failed(call)).slice(0, 60).reverse();
  const most = Math.max(1, ...done.map((call) => call.total_ms));
  const step = width / Math.max(done.length, 8);
  const y = (ms) => FLOOR - (ms / most) * 64;
  const marks = done.map((call, i) => {
    const first = call.first_token_ms ?? call.total_ms;
    const x = i * step + step / 2;
    return svg("g", {}, title(`${call.model ?? ""}  ${seconds(call.first_token_ms)} s, ${seconds(call.total_ms)} s`),
      svg("rect", { class: "bar-soft", x: x - step / 2 + 1, width: Math.max(step - 2, 1), y: y(call.total_ms), height: Math.max(y(first) - y(call.total_ms), 2) }),
      svg("rect", { class: "bar-good", x: x - step / 2 + 1, width: Math.max(step - 2, 1), y: y(first) - 1, height: 2 }));
  });
  if (done.length) marks.push(label(`${seconds(most)} s`, 0, 12, "start"));
  return frame(width, ...marks);
}

/** The five models with the most tokens. */
export function tokens(calls, width) {
  const models = new Map();
  for (const call of calls) {
    const used = (call.prompt_tokens ?? 0) + (call.completion_tokens ?? 0);
    if (used && call.model) models.set(call.model, (models.get(call.model) ?? 0) + used);
  }
  const top = [...models].sort((a, b) => b[1] - a[1]).slice(0, 5);
  const most = Math.max(1, ...top.map(([, used]) => used));
  const marks = top.flatMap(([model, used], i) => [
    svg("rect", { class: "bar-soft", x: 0, y: i * 18, width: Math.max((used / most) * width, 2), height: 15 }),
    label(model.length > 36 ? `${model.slice(0, 35)}…` : model, 4, i * 18 + 12, "start"),
    label(count(used), width, i * 18 + 12, "end"),
  ]);
  return svg("svg", { class: "fit", viewBox: `0 0 ${width} ${18 * Math.max(top.length, 1)}`, role: "img" }, ...marks);
}
