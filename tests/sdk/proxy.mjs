// The release build before an OpenRouter of the tests' own, for the tests in Node.

import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const started = [];

async function firstLine(command, args, matching) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  started.push(child);
  for await (const line of createInterface({ input: child.stdout })) {
    const found = line.match(matching);
    if (found) return found[1];
  }
  throw new Error(`${command} ended`);
}

export const folder = () => mkdtempSync(join(tmpdir(), "home "));

const fromOpenRouter = (address) => `OPENROUTER_API_KEY=sk-or-v1-node\nOPENROUTER_BASE_URL=${address}/api/v1\nEMBEDDING_MODEL=n/embed:free\n`;
const fromTheBackup = (address) => `BACKUPS=groq\nGROQ_BASE_URL=${address}/v1\nGROQ_API_KEY=gsk_node\nGROQ_MODEL=llama\n`;

async function startBefore(server, settings) {
  const upstream = await firstLine("python3", [join(here, server)], /^(\d+)$/);
  const home = folder();
  const address = `http://127.0.0.1:${upstream}`;
  writeFileSync(join(home, ".env"), settings(address));
  const executable = process.env.EXECUTABLE ?? join(here, "../../target/release/local-api-proxy");
  const baseURL = await firstLine(executable, ["--dir", home, "--port", "0"], /^\s*address\s+(\S+)/);
  const received = async () => (await (await fetch(`${address}/received`)).json()).data;
  return { root: baseURL.replace(/\/v1$/, ""), received };
}

/** The proxy's `root` (http://localhost:PORT), and `received()`: the requests that reached the upstream. */
export const start = () => startBefore("openrouter.py", fromOpenRouter);

/** The same without OpenRouter: its only server knows chat completions and nothing else. */
export const startInChat = () => startBefore("chat_only.py", fromTheBackup);

export const stop = () => started.forEach((child) => child.kill());

/** Runs a program of this folder's packages with a home and an environment of its own, and gives what it printed. */
export async function run(program, args, home, environment) {
  const command = join(here, "node_modules/.bin", program);
  const child = spawn(command, args, {
    cwd: folder(),
    env: { PATH: process.env.PATH, HOME: home, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
    // A turn takes a second; one that hangs shall fail its test.
    timeout: 180_000,
  });
  started.push(child);
  const printed = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"]) child[name].setEncoding("utf8").on("data", (text) => (printed[name] += text));
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  if (code !== 0) throw new Error(`${program} ended with ${code}\n${printed.stdout}\n${printed.stderr}`);
  return printed.stdout;
}
