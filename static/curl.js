// A request as a line for a terminal. What stands in it is only ever data there, whatever the shell.

import { el } from "./dom.js";

/** What a shell takes in one line: cmd 8191 characters, Linux 128 KB for one argument. */
const LONGEST = { cmd: 7500, sh: 100_000 };

export const isWindows = () => navigator.platform.startsWith("Win");

/**
 * cmd.exe reads a line before the program does, and knows nothing of `\"`: what it takes for special is written as JSON
 * can write it, `\u0026` for `&`, so that nothing special is left but the quotes around names and values.
 */
export function forCmd(json) {
  const inside = (text) => text.replace(/[^\w .,:;/+=?@#*'$~[\]{}-]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const strings = /"(?:[^"\\]|\\.)*"/g;
  return `"${json.replace(strings, (string) => `\\"${inside(JSON.parse(string))}\\"`)}"`;
}

export const forSh = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The line; a body that is too long for one is handed over as a file, which is downloaded. */
export function curl(call, shell = isWindows() ? "cmd" : "sh") {
  const body = JSON.stringify(call.request);
  const address = `${location.origin}${call.path}`;
  const argument = shell === "cmd" ? forCmd(body) : forSh(body);
  if (argument.length <= LONGEST[shell]) return `curl ${address} -d ${argument}`;
  const name = `request-${call.message_id}.json`;
  const url = URL.createObjectURL(new Blob([body], { type: "application/json" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return `curl ${address} --data-binary @${name}`;
}
