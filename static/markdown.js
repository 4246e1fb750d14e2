// Markdown as elements: what a model says is read, and never run. Headings, paragraphs, lists, quotes, tables, rules and
// code; inside of them emphasis, code and links to the web.

import { copyButton, el } from "./dom.js";
import { word } from "./words.js";

const MAX_DEPTH = 8;
/** What is longer than this isn't looked through for its other end: however it is written, it is read in no time. */
const MAX_SPAN = 2000;
const FENCE = /^\s*(`{3,}|~{3,})\s*([\w+#.-]*)/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const ROW = /^\s*\|?(.+?)\|?\s*$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$|^\s*\|\s*:?-+:?\s*\|\s*$/;

export function markdown(text) {
  return el("div", { class: "markdown" }, blocks(text.split(/\r?\n/), 0));
}

function blocks(lines, depth) {
  const built = [];
  let paragraph = [];
  const end = () => {
    if (paragraph.length) built.push(el("p", {}, inline(paragraph.join("\n"))));
    paragraph = [];
  };
  for (let i = 0; i < lines.length; ) {
    const line = lines[i];
    const fence = line.match(FENCE);
    if (fence) {
      end();
      const code = [];
      for (i++; i < lines.length && !(lines[i].trim().startsWith(fence[1]) && !lines[i].trim().slice(fence[1].length).trim()); i++) code.push(lines[i]);
      i++;
      built.push(block(code.join("\n"), fence[2]));
      continue;
    }
    const heading = line.match(/^\s{0,3}(#{1,6})\s+(.*?)\s*#*$/);
    if (heading) {
      end();
      built.push(el("p", { class: `heading h${heading[1].length}` }, inline(heading[2])));
    } else if (line.length < MAX_SPAN && RULE.test(line)) {
      end();
      built.push(el("hr"));
    } else if (/^\s{0,3}>/.test(line) && depth < MAX_DEPTH) {
      end();
      const quote = [];
      for (; i < lines.length && /^\s{0,3}>/.test(lines[i]); i++) quote.push(lines[i].replace(/^\s{0,3}> ?/, ""));
      built.push(el("blockquote", {}, blocks(quote, depth + 1)));
      continue;
    } else if (ITEM.test(line) && depth < MAX_DEPTH) {
      end();
      const [list, next] = listAt(lines, i, depth);
      built.push(list);
      i = next;
      continue;
    } else if (line.includes("|") && line.length < MAX_SPAN && isTableLine(lines[i + 1])) {
      end();
      const [table, next] = tableAt(lines, i);
      built.push(table);
      i = next;
      continue;
    } else if (line.trim()) {
      paragraph.push(line.trim());
    } else {
      end();
    }
    i++;
  }
  end();
  return built;
}

const isTableLine = (line) => line?.includes("-") && line.length < MAX_SPAN && TABLE_LINE.test(line);

/** A list, and the line behind it. What is indented further belongs to its item. */
function listAt(lines, from, depth) {
  const [, { length: indent }, mark] = lines[from].match(ITEM);
  const ordered = /\d/.test(mark);
  const items = [];
  let i = from;
  while (i < lines.length) {
    const item = lines[i].match(ITEM);
    if (!item || item[1].length > indent + 1 || item[1].length < indent || /\d/.test(item[2]) !== ordered) break;
    const width = lines[i].length - item[3].length;
    const inside = [item[3]];
    for (i++; i < lines.length; i++) {
      const line = lines[i];
      if (!line.trim()) {
        const next = lines[i + 1] ?? "";
        if (!/^\s/.test(next) && !ITEM.test(next)) break;
        inside.push("");
      } else if (line.search(/\S/) > indent + 1) {
        inside.push(line.slice(Math.min(width, line.search(/\S/))));
      } else if (ITEM.test(line) || !inside.at(-1) || FENCE.test(line) || /^\s{0,3}[#>]/.test(line)) {
        break;
      } else {
        inside.push(line.trim());
      }
    }
    const built = blocks(inside, depth + 1);
    const alone = built[0]?.tagName === "P" && !built[0].className && (built.length === 1 || built[1].tagName !== "P");
    items.push(el("li", {}, alone ? [...built[0].childNodes, ...built.slice(1)] : built));
    while (i < lines.length && !lines[i].trim() && ITEM.test(lines[i + 1] ?? "")) i++;
  }
  return [el(ordered ? "ol" : "ul", ordered && parseInt(mark) !== 1 ? { start: parseInt(mark) } : {}, items), i];
}

function tableAt(lines, from) {
  const cells = (line) => line.match(ROW)[1].split(/(?<!\\)\|/).map((cell) => inline(cell.trim().replaceAll("\\|", "|")));
  const head = el("tr", {}, cells(lines[from]).map((cell) => el("th", { scope: "col" }, cell)));
  const rows = [];
  let i = from + 2;
  for (; i < lines.length && lines[i].includes("|"); i++) rows.push(el("tr", {}, cells(lines[i]).map((cell) => el("td", {}, cell))));
  return [el("div", { class: "wide", tabindex: 0 }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows))), i];
}

function block(code, language) {
  return el("div", { class: "code" }, el("div", { class: "row" }, el("span", { class: "dim" }, language), copyButton(word("copy"), () => code)), el("pre", { tabindex: 0 }, el("code", {}, code)));
}

const INLINE = [
  [/^(`+)(?!`)([\s\S]*?[^`])\1(?!`)/, (m) => el("code", {}, m[2].replace(/^ (.*) $/, "$1"))],
  [/^\*\*(?=\S)([\s\S]*?\S)\*\*/, (m, depth) => el("strong", {}, inline(m[1], depth))],
  [/^__(?=\S)([\s\S]*?\S)__(?!\w)/, (m, depth) => el("strong", {}, inline(m[1], depth))],
  [/^~~(?=\S)([\s\S]*?\S)~~/, (m, depth) => el("s", {}, inline(m[1], depth))],
  [/^\*(?=[^\s*])([\s\S]*?[^\s*])\*(?!\*)/, (m, depth) => el("em", {}, inline(m[1], depth))],
  [/^_(?=[^\s_])([\s\S]*?[^\s_])_(?!\w)/, (m, depth) => el("em", {}, inline(m[1], depth))],
  [/^!?\[([^\]\n]*)\]\((\S+?)(?:\s+"[^"]*")?\)/, (m, depth) => link(m[2], inline(m[1] || m[2], depth))],
  [/^<?(https?:\/\/[^\s<>()]+[^\s<>().,:;!?'"])>?/, (m) => link(m[1], [m[1]])],
  [/^\\([\\`*_{}[\]()#+.!|~>-])/, (m) => m[1]],
  [/^ *\n/, () => el("br")],
];

/** Nothing but the web's addresses is one; whatever else stands there is text. */
function link(address, text) {
  return /^https?:\/\//.test(address) ? el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text) : el("span", {}, text, ` (${address})`);
}

function inline(text, depth = 0) {
  const built = [];
  let plain = "";
  for (let at = 0; at < text.length; ) {
    const c = text[at];
    const inWord = c === "_" && /\w/.test(text[at - 1] ?? "");
    const special = !inWord && (/[`*_~[!<\\\n ]/.test(c) || text.startsWith("http", at));
    const span = special && depth < MAX_DEPTH ? text.slice(at, at + MAX_SPAN) : "";
    let match = null;
    for (const [pattern, build] of span ? INLINE : []) {
      match = span.match(pattern);
      if (!match) continue;
      if (plain) built.push(plain);
      plain = "";
      built.push(build(match, depth + 1));
      break;
    }
    // Of several alike that mean nothing, the next means nothing either.
    const taken = match ? match[0] : special ? span.match(/^(.)\1*/s)?.[0] ?? c : c;
    if (!match) plain += taken;
    at += taken.length;
  }
  if (plain) built.push(plain);
  return built;
}
