// The official OpenAI SDK for Node, unchanged, with any key and a model that isn't free.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";

const here = dirname(fileURLToPath(import.meta.url));
const started = [];
let client;

async function firstLine(command, args, matching) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  started.push(child);
  for await (const line of createInterface({ input: child.stdout })) {
    const found = line.match(matching);
    if (found) return found[1];
  }
  throw new Error(`${command} ended`);
}

before(async () => {
  const upstream = await firstLine("python3", [join(here, "openrouter.py")], /^(\d+)$/);
  const home = mkdtempSync(join(tmpdir(), "home "));
  writeFileSync(join(home, ".env"), `OPENROUTER_API_KEY=sk-or-v1-node\nOPENROUTER_BASE_URL=http://127.0.0.1:${upstream}/api/v1\n`);
  const executable = join(here, "../../target/release/local-api-proxy");
  const baseURL = await firstLine(executable, ["--dir", home, "--port", "0"], /^\s*address\s+(\S+)/);
  client = new OpenAI({ baseURL, apiKey: "any-key" });
});

after(() => started.forEach((child) => child.kill()));

const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } } }];
const ask = (content, more = {}) => client.chat.completions.create({ model: "gpt-4o", messages: [{ role: "user", content }], ...more });

test("plain", async () => {
  const answer = await ask("你好");
  assert.equal(answer.choices[0].message.content, "You said: 你好");
  assert.equal(answer.model, "a/b:free");
});

test("streamed", async () => {
  const words = [];
  for await (const chunk of await ask("hello there", { stream: true })) {
    const word = chunk.choices[0]?.delta.content;
    if (word) words.push(word);
  }
  assert.equal(words.join(""), "You said: hello there");
});

test("tool calls, plain and streamed", async () => {
  const answer = await ask("weather?", { tools });
  assert.equal(answer.choices[0].message.tool_calls[0].function.arguments, '{"city": "北京"}');
  let streamed = "";
  for await (const chunk of await ask("weather?", { tools, stream: true })) {
    streamed += chunk.choices[0]?.delta.tool_calls?.[0].function.arguments ?? "";
  }
  assert.equal(streamed, '{"city": "北京"}');
});

test("structured output", async () => {
  const schema = { type: "object", properties: { city: { type: "string" }, degrees: { type: "number" } } };
  const response_format = { type: "json_schema", json_schema: { name: "weather", schema } };
  const answer = await client.chat.completions.parse({ model: "gpt-4o", messages: [{ role: "user", content: "?" }], response_format });
  assert.deepEqual(answer.choices[0].message.parsed, { city: "北京", degrees: 21 });
});

test("images as data URLs", async () => {
  const answer = await ask([{ type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } }]);
  assert.equal(answer.choices[0].message.content, "You said: image");
});

for (const [status, exception] of [[400, "BadRequestError"], [401, "AuthenticationError"], [402, "APIError"], [429, "RateLimitError"]]) {
  test(`${status} becomes ${exception}`, async () => {
    await assert.rejects(ask(`error ${status}`), (error) => error instanceof OpenAI[exception] && error.status === status);
  });
}

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["openrouter/free", "a/b:free"]);
});
