// The official Ollama client for Node, unchanged: the free models behind Ollama's API.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Ollama } from "ollama";
import { start, stop } from "./proxy.mjs";

let client, received;

before(async () => {
  const proxy = await start();
  received = proxy.received;
  client = new Ollama({ host: proxy.root });
});

after(stop);

const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", function: { name: "weather", description: "The weather in a city.", parameters } }];
const model = "llama3.2";
const ask = (content, more = {}) => client.chat({ model, messages: [{ role: "user", content }], ...more });

async function joined(parts, read) {
  let text = "", last;
  for await (const part of parts) {
    text += read(part) ?? "";
    last = part;
  }
  return [text, last];
}

test("a plain chat has text and numbers", async () => {
  const answer = await ask("你好");
  assert.equal(answer.message.content, "You said: 你好");
  assert.deepEqual([answer.done, answer.done_reason, answer.prompt_eval_count, answer.eval_count], [true, "stop", 3, 4]);
  assert.equal((await received()).at(-1).body.model, "openrouter/free");
});

test("a streamed chat ends with the numbers", async () => {
  const [text, last] = await joined(await ask("hello there", { stream: true }), (part) => part.message.content);
  assert.equal(text, "You said: hello there");
  assert.deepEqual([last.done, last.done_reason, last.eval_count], [true, "stop", 4]);
});

test("a tool call goes there and back with arguments as objects", async () => {
  const question = { role: "user", content: "weather?" };
  const { message } = await client.chat({ model, messages: [question], tools });
  assert.deepEqual(message.tool_calls[0].function.arguments, { city: "北京" });
  const result = { role: "tool", tool_name: "weather", content: "sunny" };
  const answer = await client.chat({ model, messages: [question, message, result], tools });
  assert.equal(answer.message.content, "The tool said: sunny");
});

test("images become data URLs", async () => {
  const answer = await client.chat({ model: "llava", messages: [{ role: "user", content: "?", images: ["iVBORw0KGgo="] }] });
  assert.equal(answer.message.content, "You said: image");
  const image = (await received()).at(-1).body.messages[0].content.find((part) => part.type === "image_url");
  assert.equal(image.image_url.url, "data:image/png;base64,iVBORw0KGgo=");
});

test("format: json and a schema", async () => {
  for (const format of ["json", parameters]) {
    assert.deepEqual(JSON.parse((await ask("weather?", { format })).message.content), { city: "北京", degrees: 21 });
  }
  const asked = (await received()).slice(-2).map((call) => call.body.response_format);
  assert.deepEqual([asked[0], asked[1].json_schema.schema], [{ type: "json_object" }, parameters]);
});

test("thinking comes beside the text", async () => {
  const { message } = await ask("hard one", { think: true });
  assert.deepEqual([message.thinking, message.content], ["Let me think.", "You said: hard one"]);
});

test("generate, plain and streamed", async () => {
  assert.equal((await client.generate({ model, prompt: "hello" })).response, "You said: hello");
  const [text, last] = await joined(await client.generate({ model, prompt: "hello there", stream: true }), (part) => part.response);
  assert.deepEqual([text, last.done_reason], ["You said: hello there", "stop"]);
});

test("embeddings of one text and of many", async () => {
  const one = await client.embed({ model, input: "one" });
  const many = await client.embed({ model, input: ["one", "two"] });
  assert.equal(many.embeddings.length, 2);
  assert.deepEqual(many.embeddings[0], one.embeddings[0]);
});

test("list, show and ps", async () => {
  const names = (await client.list()).models.map((entry) => entry.name);
  assert.deepEqual(names, ["openrouter/free", "best", "a/b:free", "c/tools:free", "d/eyes:free", "e/words:free"]);
  const shown = await client.show({ model: "c/tools:free" });
  assert.ok(shown.capabilities.includes("tools") && !shown.capabilities.includes("vision"));
  assert.equal(shown.model_info[`${shown.model_info["general.architecture"]}.context_length`], 262144);
  assert.deepEqual((await client.ps()).models, []);
  assert.match((await client.version()).version, /^\d+\.\d+\.\d+/);
});

for (const [status, message] of [[400, /Bad thing/], [401, /No auth/], [429, /Provider returned error/]]) {
  test(`${status} is a ResponseError with one sentence`, async () => {
    for (const stream of [false, true]) {
      await assert.rejects(ask(`error ${status}`, { stream }), (error) => {
        assert.deepEqual([error.name, error.status_code], ["ResponseError", status]);
        assert.match(error.error, message);
        return true;
      });
    }
  });
}

test("a stream that fails midway raises after its first words", async () => {
  let text = "";
  await assert.rejects(async () => joined(await ask("fails midway, word by word", { stream: true }), (part) => (text += part.message.content)));
  assert.ok(text.startsWith("You "), text);
});

test("a model that is pulled is there", async () => {
  assert.equal((await client.pull({ model })).status, "success");
});
