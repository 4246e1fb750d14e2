// A request and its answer as a conversation, whichever API they are written in: what stands where tells which one it is.

import { count, el, foldable, folded, foldedResult } from "./dom.js";
import { json } from "./json.js";
import { word } from "./words.js";

/** The last of what was asked stand open; what was said before is folded. */
const TURNS_SHOWN = 3;

/** Everything that was said, as elements; and the answer among them. */
export function conversation({ request, response, partial, error, status }) {
  const said = boxes(asked(request ?? {}));
  const earlier = said.splice(0, said.length > TURNS_SHOWN + 1 ? said.length - TURNS_SHOWN : 0);
  if (earlier.length) said.unshift(folded(word("earlier", count(earlier.length)), () => el("div", {}, ...earlier)));
  const answer = boxes(answered(response ?? partial ?? {}));
  for (const box of answer) {
    for (const long of box.querySelectorAll(".long")) long.open = true;
    if (status === null) box.firstChild.append(` · ${word("soFar")}`);
  }
  const end = error ? boxes([turn(word("error"), [text(error.message ?? JSON.stringify(error))], "bad")]) : [];
  return { all: [...said, ...answer, ...end], answer: answer[0] ?? end[0] ?? null };
}

function asked(request) {
  const rules = request.system ?? request.instructions ?? (request.systemInstruction ?? request.system_instruction)?.parts;
  const said = request.messages ?? request.input ?? request.prompt ?? request.contents ?? documents(request);
  const turns = list(said).every((token) => typeof token === "number") ? tokens(list(said)) : list(said).flatMap((x) => item(x));
  if (rules) turns.unshift(turn("system", parts(rules)));
  if (Array.isArray(request.images)) turns.push(turn("user", request.images.map(base64), "step"));
  return turns;
}

/** What a rerank is asked. */
const documents = ({ query, documents }) => (query && documents ? [query, ...documents] : query);

function answered(answer) {
  if (Array.isArray(answer.candidates)) return answer.candidates.flatMap((c) => message({ role: "model", ...c?.content }, c?.finishReason));
  if (Array.isArray(answer.results)) return [turn("", [raw(answer.results)])];
  if (Array.isArray(answer.choices)) return answer.choices.flatMap((choice) => message(choice?.message ?? { role: "assistant", content: choice?.text }, choice?.finish_reason));
  if (Array.isArray(answer.output)) return answer.output.flatMap((x) => item(x, answer.incomplete_details?.reason));
  if (Array.isArray(answer.data)) return [turn("", [vectors(answer.data)])];
  return answer.content ? message(answer, answer.stop_reason) : [];
}

const list = (value) => (Array.isArray(value) ? value : value == null ? [] : [value]);

/** One of a list of messages, of a response's items, or of texts. */
function item(x, end) {
  const type = String(x?.type ?? "");
  if (typeof x === "string") return turn("user", [text(x)]);
  if (Array.isArray(x)) return tokens(x);
  if (x?.role || type === "message") return message(x, end);
  if (type === "reasoning") return turn("assistant", [thinking([...list(x.summary), ...list(x.content)].map((part) => part?.text).join("\n\n")) ?? raw(x)], "step");
  if (type.endsWith("_output")) return turn("tool", results(x.output));
  if (type.endsWith("_call")) return turn("assistant", [tool(x.name ?? type, x.arguments ?? x.input ?? x.action)], "step");
  return turn(type, x?.content ? parts(x.content) : [raw(x)]);
}

function message(m, end) {
  const content = list(m.content ?? m.parts);
  const answers = content.filter((part) => part?.type === "tool_result");
  const isTool = m.role === "tool" || m.role === "function";
  const calls = list(m.tool_calls ?? m.function_call).map((call) => tool((call?.function ?? call)?.name, (call?.function ?? call)?.arguments));
  const said = [
    thinking(m.reasoning ?? m.reasoning_content ?? m.thinking),
    ...(isTool ? results : parts)(content.filter((part) => part?.type !== "tool_result")),
    ...list(m.images).map(base64),
    m.refusal ? text(m.refusal) : null,
    ...calls,
  ].filter(Boolean);
  const role = [m.role ?? "assistant", m.tool_name ?? m.name, WHOLE.has(end) ? null : end].filter(Boolean).join(" · ");
  return [
    ...answers.map((answer) => turn("tool", results(answer.content), answer.is_error ? "bad" : "")),
    ...(said.length || !answers.length ? [turn(role, said)] : []),
  ];
}

/** Reasons to stop that go without saying. */
const WHOLE = new Set(["stop", "end_turn", "tool_calls", "tool_use", "error", "STOP"]);

/** A `step` is a part of the turn before or after it. */
const turn = (role, said, kind = "") => ({ role, said, kind });

function boxes(turns) {
  const joined = [];
  for (const next of turns) {
    const last = joined.at(-1);
    const goesOn = last?.role === next.role && (last.kind === "step" || next.kind === "step");
    if (goesOn) last.said.push(...next.said);
    else joined.push(next);
  }
  return joined.map(({ role, said, kind }) => el("div", { class: `said ${kind}` }, role ? el("b", {}, role) : null, ...said));
}

const tokens = (list) => (list.length ? [turn("user", [text(word("inTokens", count(list.length)))])] : []);

const parts = (content, show = text) => list(content).filter((part) => part !== "").map((p) => part(p, show));

/** What a tool has answered folds soon. */
const results = (content) => parts(content, (value) => foldedResult(String(value)));

function part(p, show = text) {
  if (typeof p === "string") return show(p);
  if (p?.thought === true) return thinking(p.text) ?? raw(p);
  if (typeof p?.text === "string") return show(p.text);
  if (p?.functionCall) return tool(p.functionCall.name, p.functionCall.args);
  if (p?.inlineData?.mimeType?.startsWith("image/")) return image(`data:${p.inlineData.mimeType};base64,${p.inlineData.data}`) ?? raw(p);
  switch (p?.type) {
    case "refusal": return text(p.refusal);
    case "thinking": return thinking(p.thinking) ?? raw(p);
    case "image_url":
    case "input_image": return image(p.image_url?.url ?? p.image_url) ?? raw(p);
    case "image": return image(p.source?.type === "base64" ? `data:${p.source.media_type};base64,${p.source.data}` : p.source?.url) ?? raw(p);
    case "tool_use":
    case "server_tool_use": return tool(p.name, p.input);
    default: return raw(p);
  }
}

const text = (value) => foldable(String(value));

const thinking = (value) => (value ? folded(el("span", { class: "dim" }, word("reasoning")), () => el("div", { class: "dim" }, String(value))) : null);

/** A call of a tool. Arguments are JSON, as text or not, or the tool's own language. */
function tool(name, given) {
  let value = given;
  try {
    value = typeof given === "string" ? JSON.parse(given) : given;
  } catch { /* it stays the text that it is */ }
  const isText = value === null || typeof value !== "object";
  return folded(`${word("callTool")}: ${name ?? "?"}`, () => (isText ? el("pre", {}, String(value ?? "")) : el("div", { class: "json" }, json(value))));
}

/** Only what is there already is shown; nothing is fetched from elsewhere. */
function image(url) {
  if (typeof url !== "string") return null;
  return url.startsWith("data:image/") ? el("img", { src: url, alt: word("image") }) : text(`[${word("image")}] ${url.slice(0, 200)}`);
}

/** Ollama's images say nothing of their kind; browsers look for themselves. */
const base64 = (data) => image(`data:image/png;base64,${data}`);

const raw = (p) => folded(`${p?.type ?? Object.keys(p ?? {})[0] ?? "?"} ${p?.title ?? p?.filename ?? p?.file?.filename ?? ""}`, () => el("div", { class: "json" }, json(p)));

function vectors(data) {
  const first = data[0]?.embedding;
  const bytes = typeof first === "string" ? Math.floor((first.replace(/=+$/, "").length * 3) / 4) : 0;
  return text(word("vectors", count(data.length), count(Array.isArray(first) ? first.length : bytes / 4)));
}
