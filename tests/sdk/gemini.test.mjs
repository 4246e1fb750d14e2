// Google's official SDK for Node, unchanged: the free models behind the Gemini API.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { FunctionCallingConfigMode, GoogleGenAI, Type } from "@google/genai";
import { start, stop } from "./proxy.mjs";

let ai, received;

before(async () => {
  const proxy = await start();
  received = proxy.received;
  ai = new GoogleGenAI({ apiKey: "any-key", httpOptions: { baseUrl: proxy.root } });
});

after(stop);

const model = "gemini-2.5-flash";
const ask = (contents, config) => ai.models.generateContent({ model, contents, config });
const parameters = { type: Type.OBJECT, properties: { city: { type: Type.STRING } }, required: ["city"] };
const tools = [{ functionDeclarations: [{ name: "weather", description: "The weather in a city.", parameters }] }];

async function joined(events) {
  let text = "", last;
  for await (const event of events) {
    text += event.text ?? "";
    last = event;
  }
  return [text, last];
}

test("a plain answer has text and numbers", async () => {
  const answer = await ask("你好");
  assert.equal(answer.text, "You said: 你好");
  assert.equal(answer.usageMetadata.totalTokenCount, 7);
  assert.equal((await received()).at(-1).body.model, "openrouter/free");
});

test("a stream ends with the numbers", async () => {
  const [text, last] = await joined(await ai.models.generateContentStream({ model, contents: "hello there" }));
  assert.equal(text, "You said: hello there");
  assert.deepEqual([last.candidates[0].finishReason, last.usageMetadata.totalTokenCount], ["STOP", 7]);
});

test("a function's call goes there and back", async () => {
  const config = { tools, toolConfig: { functionCallingConfig: { mode: FunctionCallingConfigMode.ANY } } };
  const answer = await ask("weather?", config);
  const [call] = answer.functionCalls;
  assert.deepEqual([call.name, call.args], ["weather", { city: "北京" }]);
  assert.equal((await received()).at(-1).body.tool_choice, "required");
  const result = { functionResponse: { id: call.id, name: call.name, response: { output: "sunny" } } };
  const history = [{ role: "user", parts: [{ text: "weather?" }] }, answer.candidates[0].content, { role: "user", parts: [result] }];
  assert.equal((await ask(history, { tools })).text, "The tool said: sunny");
});

test("functions are called by themselves", async () => {
  const callable = { tool: async () => tools[0], callTool: async ([call]) => [{ functionResponse: { name: call.name, response: { output: "rain" } } }] };
  assert.equal((await ask("weather?", { tools: [callable] })).text, "The tool said: rain");
});

test("a schema is kept to", async () => {
  const answer = await ask("weather?", { responseMimeType: "application/json", responseSchema: parameters });
  assert.deepEqual(JSON.parse(answer.text), { city: "北京", degrees: 21 });
  assert.equal((await received()).at(-1).body.response_format.json_schema.schema.type, "object");
});

test("a conversation goes on", async () => {
  const chat = ai.chats.create({ model });
  assert.equal((await chat.sendMessage({ message: "one" })).text, "You said: one");
  assert.equal((await joined(await chat.sendMessageStream({ message: "two" })))[0], "You said: two");
  assert.deepEqual((await received()).at(-1).body.messages.map((message) => message.content), ["one", "You said: one", "two"]);
});

test("tokens, embeddings, models", async () => {
  assert.ok((await ai.models.countTokens({ model, contents: "How many tokens?" })).totalTokens > 2);
  const { embeddings } = await ai.models.embedContent({ model: "gemini-embedding-001", contents: ["a", "b"] });
  assert.deepEqual(embeddings.map((embedding) => embedding.values.length), [4, 4]);
  const names = [];
  for await (const listed of await ai.models.list()) names.push(listed.name);
  assert.ok(names.includes("models/a/b:free") && !names.includes("models/paid/x"), names);
  assert.equal((await ai.models.get({ model: "a/b:free" })).inputTokenLimit, 131072);
});

test("errors are the SDK's own", async () => {
  await assert.rejects(ask("error 400"), (error) => error.status === 400 && error.message.includes("INVALID_ARGUMENT"));
  const events = await ai.models.generateContentStream({ model, contents: "fails midway, word by word as it comes" });
  await assert.rejects(joined(events), /"code":5/);
});
