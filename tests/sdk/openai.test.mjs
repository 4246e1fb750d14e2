// The official OpenAI SDK for Node, unchanged, with any key and a model that isn't free.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { start, stop } from "./proxy.mjs";

let client, received;

before(async () => {
  const proxy = await start();
  received = proxy.received;
  client = new OpenAI({ baseURL: `${proxy.root}/v1`, apiKey: "any-key" });
});

after(stop);

const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const ask = (content, more = {}) => client.chat.completions.create({ model: "gpt-4o", messages: [{ role: "user", content }], ...more });
const respond = (input, more = {}) => client.responses.create({ model: "gpt-4o", input, ...more });

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

test("a plain response has text, model and usage", async () => {
  const answer = await respond("你好");
  assert.equal(answer.output_text, "You said: 你好");
  assert.equal(answer.model, "a/b:free");
  assert.equal(answer.usage.total_tokens, 7);
  const call = (await received()).at(-1);
  assert.equal(call.path, "/api/v1/responses");
  assert.deepEqual(call.body, { model: "openrouter/free", input: "你好" });
});

test("the stream helper puts a response together, thoughts and all", async () => {
  let text = "";
  const stream = client.responses.stream({ model: "gpt-4o", input: "hello there", reasoning: { summary: "auto" } });
  stream.on("response.output_text.delta", (event) => (text += event.delta));
  const answer = await stream.finalResponse();
  assert.equal(text, "You said: hello there");
  assert.equal(answer.output_text, text);
  assert.equal(answer.output[0].summary[0].text, "Let me think.");
});

for (const stream of [false, true]) {
  test(`a response's function call goes there and back, streamed: ${stream}`, async () => {
    const tools = [{ type: "function", name: "weather", parameters, strict: false }];
    const asked = { model: "gpt-4o", tools };
    const whole = (asked) => (stream ? client.responses.stream(asked).finalResponse() : client.responses.create(asked));
    const responded = (input) => whole({ ...asked, input });
    const question = { role: "user", content: `weather, streamed: ${stream}?` };
    const [call] = (await responded([question])).output;
    assert.deepEqual([call.type, call.name, call.arguments], ["function_call", "weather", '{"city": "北京"}']);
    const result = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
    const { type, id, call_id, name } = call;
    const answer = await responded([question, { type, id, call_id, name, arguments: call.arguments }, result]);
    assert.equal(answer.output_text, "The tool said: sunny");
  });
}

test("a response's structured output is parsed", async () => {
  const format = { type: "json_schema", name: "weather", schema: { type: "object", properties: { city: { type: "string" } } } };
  const answer = await client.responses.parse({ model: "gpt-4o", input: "weather?", text: { format } });
  assert.deepEqual(answer.output_parsed, { city: "北京", degrees: 21 });
});

test("legacy completions, plain and streamed", async () => {
  const asked = { model: "gpt-3.5-turbo-instruct", prompt: "once upon a time" };
  assert.equal((await client.completions.create(asked)).choices[0].text, "You said: once upon a time");
  let streamed = "";
  for await (const chunk of await client.completions.create({ ...asked, stream: true })) streamed += chunk.choices[0].text;
  assert.equal(streamed, "You said: once upon a time");
});

test("embeddings are the same as floats and as base64", async () => {
  const asked = { model: "text-embedding-3-small", input: ["one", "two"] };
  const floats = await client.embeddings.create({ ...asked, encoding_format: "float" });
  // Left out, the SDK asks for base64 and decodes it.
  const decoded = await client.embeddings.create(asked);
  assert.equal(decoded.data[1].embedding.length, 4);
  assert.deepEqual(decoded.data.map((item) => item.embedding), floats.data.map((item) => item.embedding));
  const formats = (await received()).slice(-2).map((call) => call.body.encoding_format);
  assert.deepEqual(formats, ["float", "base64"]);
});

const errors = [[400, "BadRequestError"], [401, "AuthenticationError"], [402, "APIError"], [404, "NotFoundError"], [429, "RateLimitError"]];
for (const [status, exception] of errors) {
  test(`${status} becomes ${exception}`, async () => {
    const words = `error ${status}`;
    for (const asking of [() => ask(words), () => respond(words), () => respond(words, { stream: true })]) {
      await assert.rejects(asking, (error) => error instanceof OpenAI[exception] && error.status === status);
    }
  });
}

for (const words of ["fails midway, word by word", "breaks off, word by word"]) {
  test(`a stream that ${words.split(",")[0]} ends with response.failed`, async () => {
    const events = [];
    for await (const event of await respond(words, { stream: true })) events.push(event);
    assert.equal(events.at(-2).delta, "You ");
    assert.equal(events.at(-1).type, "response.failed");
    assert.equal(events.at(-1).response.error.code, "server_error");
  });
}

test("models", async () => {
  const models = [];
  for await (const model of client.models.list()) models.push(model);
  assert.deepEqual(models.map((model) => model.id), ["openrouter/free", "best", "a/b:free", "c/tools:free", "d/eyes:free", "e/words:free"]);
  for (const model of models) assert.ok(model.object === "model" && model.owned_by && model.created, model.id);
});
