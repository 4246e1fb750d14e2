// The official Anthropic SDK for Node, unchanged, with any key and a model that isn't free. Its base URL has no /v1.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { start, stop } from "./proxy.mjs";

let client, received;

before(async () => {
  const proxy = await start();
  received = proxy.received;
  client = new Anthropic({ baseURL: proxy.root, apiKey: "any-key" });
});

after(stop);

const tools = [{ name: "weather", input_schema: { type: "object", properties: { city: { type: "string" } } } }];
const said = (content, more = {}) => ({ model: "claude-opus-4-8", max_tokens: 2048, messages: [{ role: "user", content }], ...more });

test("a plain message has text, model and usage", async () => {
  const answer = await client.messages.create(said("你好"));
  assert.equal(answer.content[0].text, "You said: 你好");
  assert.deepEqual([answer.model, answer.stop_reason, answer.usage.output_tokens], ["a/b:free", "end_turn", 4]);
  const call = (await received()).at(-1);
  assert.equal(call.path, "/api/v1/messages");
  assert.deepEqual(call.body, { ...said("你好"), model: "openrouter/free" });
  assert.equal(call.headers.authorization, "Bearer sk-or-v1-node");
});

test("the stream helper puts a message together, thoughts and all", async () => {
  let text = "";
  const stream = client.messages.stream(said("hello there", { thinking: { type: "enabled", budget_tokens: 1024 } }));
  stream.on("text", (delta) => (text += delta));
  const answer = await stream.finalMessage();
  assert.equal(text, "You said: hello there");
  assert.deepEqual(answer.content.map((block) => block.type), ["thinking", "text"]);
  assert.deepEqual([answer.content[0].thinking, answer.content[0].signature], ["Let me think.", "c2lnbmF0dXJl"]);
  assert.deepEqual([answer.usage.input_tokens, answer.usage.output_tokens], [3, 4]);
});

for (const stream of [false, true]) {
  test(`a tool call goes there and back, streamed: ${stream}`, async () => {
    const asked = (messages) => ({ ...said("", { tools }), messages });
    const ask = (messages) => (stream ? client.messages.stream(asked(messages)).finalMessage() : client.messages.create(asked(messages)));
    const question = { role: "user", content: `weather, streamed: ${stream}?` };
    const first = await ask([question]);
    const [{ type, id, name, input }] = first.content;
    assert.deepEqual([first.stop_reason, type, name, input], ["tool_use", "tool_use", "weather", { city: "北京" }]);
    const result = { type: "tool_result", tool_use_id: id, content: "sunny" };
    const answer = await ask([question, { role: "assistant", content: [{ type, id, name, input }] }, { role: "user", content: [result] }]);
    assert.equal(answer.content[0].text, "The tool said: sunny");
  });
}

for (const stream of [false, true]) {
  test(`the tool runner calls a function and goes on, streamed: ${stream}`, async () => {
    const before = (await received()).length;
    const cities = [];
    const weather = betaTool({
      name: "weather",
      description: "The weather in a city.",
      inputSchema: tools[0].input_schema,
      run: ({ city }) => (cities.push(city), "sunny"),
    });
    const asked = said(`weather by the runner, streamed: ${stream}?`, { tools: [weather], stream });
    const answer = await client.beta.messages.toolRunner(asked).runUntilDone();
    assert.deepEqual([cities, answer.content[0].text], [["北京"], "The tool said: sunny"]);
    // The SDK sends only what is new, until it is told that nobody keeps the rest.
    const calls = (await received()).slice(before);
    assert.deepEqual(calls.map((call) => call.body.messages.length), [1, 3]);
  });
}

test("images reach the upstream untouched", async () => {
  const content = [{ type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } }, { type: "text", text: "?" }];
  assert.equal((await client.messages.create(said(content))).content[0].text, "You said: image");
  assert.deepEqual((await received()).at(-1).body.messages[0].content, content);
});

test("tokens are counted without a call", async () => {
  const before = (await received()).length;
  const count = async (content) => (await client.messages.countTokens({ model: "m", messages: [{ role: "user", content }] })).input_tokens;
  const [short, long] = [await count("hello"), await count("hello ".repeat(100))];
  assert.ok(0 < short && short < long, `${short}, ${long}`);
  assert.equal((await received()).length, before);
});

const errors = [
  [400, "BadRequestError", "invalid_request_error"],
  [401, "AuthenticationError", "authentication_error"],
  [403, "PermissionDeniedError", "permission_error"],
  [404, "NotFoundError", "not_found_error"],
  [429, "RateLimitError", "rate_limit_error"],
];
for (const [status, exception, type] of errors) {
  test(`${status} becomes ${exception}`, async () => {
    for (const stream of [false, true]) {
      await assert.rejects(client.messages.create(said(`error ${status}`, { stream })), (error) => {
        assert.deepEqual([error instanceof Anthropic[exception], error.status, error.type], [true, status, type]);
        return true;
      });
    }
  });
}

for (const words of ["fails midway, word by word", "breaks off, word by word"]) {
  test(`a stream that ${words.split(",")[0]} raises after its first words`, async () => {
    let text = "";
    const stream = client.messages.stream(said(words)).on("text", (delta) => (text += delta));
    await assert.rejects(stream.finalMessage(), (error) => error instanceof Anthropic.APIError && error.type === "api_error");
    assert.ok(text.startsWith("You "));
  });
}

test("models are the free ones and say all that the SDK reads", async () => {
  const models = [];
  for await (const model of client.models.list()) models.push(model);
  assert.deepEqual(models.map((model) => model.id), ["openrouter/free", "best", "a/b:free", "c/tools:free", "d/eyes:free", "e/words:free"]);
  for (const model of models) assert.ok(model.display_name && !Number.isNaN(Date.parse(model.created_at)), model.id);
});
