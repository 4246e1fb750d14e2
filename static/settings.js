// The settings in force: what they are, where they come from, and what they mean.

import { $, el, setText, showRows } from "./dom.js";
import { ask } from "./proxy.js";
import { isChinese, word } from "./words.js";

const inWords = (text) => (typeof text === "object" && text ? text[isChinese() ? "zh" : "en"] : text) ?? "";
const isSet = (value) => value != null && value !== "" && value !== "not set";

export async function refreshSettings(now) {
  const { settings } = await ask("/debug/settings");
  setText("settings-hint", word("settingsHint", now.env_file));
  const version = (setting) => JSON.stringify([setting, now.env_file, document.documentElement.lang]);
  showRows($("setting-rows"), settings, (setting) => setting.name, version, (row, s) => fill(row, s, now));
}

function fill(row, setting, now) {
  const { name, value, source, after_restart: after } = setting;
  const sources = { file: now.env_file, environment: word("fromEnvironment"), flag: word("fromFlag"), default: word("isDefault"), kept: word("isKept") };
  const meaning = inWords(setting.meaning);
  const cell = (label, ...content) => el("td", { "data-label": word(label) }, ...content);
  row.className = source === "default" ? "by-default" : "";
  row.replaceChildren(
    el("th", { scope: "row" }, name),
    cell("value", isSet(value) ? el("span", { class: "value" }, value) : el("span", { class: "dim" }, word("notSet")), after == null ? null : el("span", { class: "warn" }, ` ${word("needsRestart", after)}`)),
    cell("default", el("span", { class: "dim" }, isSet(setting.default) ? setting.default : "–")),
    cell("source", el("span", { class: "dim path", title: sources[source] }, sources[source] ?? "–")),
    cell("meaning", el("span", { class: "dim" }, meaning)));
}

