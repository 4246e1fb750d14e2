// What each tool needs to work through the proxy, to copy.

import { $, copyButton, el } from "./dom.js";
import { ask } from "./proxy.js";
import { isChinese, word } from "./words.js";

let shown = "";

export async function refreshConnect() {
  const { tools } = await ask("/debug/connect");
  const version = JSON.stringify([tools, document.documentElement.lang]);
  if (version === shown) return;
  shown = version;
  const any = { title: [word("anyTool"), word("anyTool")], snippet: `${location.origin}/v1`, file: word("anyToolWhere") };
  $("connect-tools").replaceChildren(...[...tools, any].map(box));
}

const inWords = (text) => text?.[isChinese() ? 1 : 0] ?? "";
const code = (text) => el("div", { class: "code" }, el("div", { class: "row" }, copyButton(word("copy"), () => text)), el("pre", { tabindex: 0 }, text));

function box({ title, version, install, run, file, snippet, steps, note }) {
  const ways = [run ? word("runIt") : null, file ?? (steps ? word("inItsSettings") : null)];
  return el("details", { class: "said" },
    el("summary", {}, el("h2", {}, inWords(title)), el("span", { class: "dim" }, ` ${version ?? ""} ${ways.filter(Boolean).join(" · ")}`)),
    run ? [el("p", {}, word("runHint")), code(run)] : null,
    snippet ? [el("p", {}, file ? word("fileHint", file) : word("lineHint")), code(snippet)] : null,
    steps ? el("p", {}, inWords(steps)) : null,
    inWords(note) ? el("p", { class: "dim" }, inWords(note).replaceAll("`", "")) : null,
    install ? el("p", { class: "dim" }, word("installHint", install)) : null);
}
