// The official SDKs for Node, Claude Code and Codex, unchanged, with the proxy whose only server knows chat completions and
// nothing else, and refuses what it doesn't know (chat_only.py).

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import OpenAI from "openai";
import { folder, run, startInChat, stop } from "./proxy.mjs";

let proxy, claude, gpt;

before(async () => {
  proxy = await startInChat();
  claude = new Anthropic({ baseURL: proxy.root, apiKey: "any-key" });
  gpt = new OpenAI({ baseURL: `${proxy.root}/v1`, apiKey: "any-key" });
});

after(stop);

const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const said = (content, more = {}) => ({ model: "claude-opus-4-8", max_tokens: 2048, messages: [{ role: "user", content }], ...more });
const message = (asked, streamed) => (streamed ? claude.messages.stream(asked).finalMessage() : claude.messages.create(asked));
const respond = (asked, streamed) => (streamed ? gpt.responses.stream(asked).finalResponse() : gpt.responses.create(asked));
const last = async () => (await proxy.received()).at(-1);

for (const streamed of [false, true]) {
  test(`text, model, usage and thoughts, streamed: ${streamed}`, async () => {
    const told = await message(said("think hard one", { thinking: { type: "enabled", budget_tokens: 1024 } }), streamed);
    assert.deepEqual(told.content.map((block) => block.thinking ?? block.text), ["Let me think.", "You said: hard one"]);
    assert.deepEqual([told.model, told.stop_reason, told.usage.input_tokens, told.usage.output_tokens], ["a/b:free", "end_turn", 3, 4]);
    const answer = await respond({ model: "gpt-4o", input: "reason hard one", reasoning: { summary: "auto" } }, streamed);
    assert.deepEqual([answer.output[0].summary[0].text, answer.output_text], ["Let me think.", "You said: hard one"]);
    assert.deepEqual([answer.model, answer.usage.total_tokens], ["a/b:free", 7]);
  });

  test(`a tool's call goes there and back, streamed: ${streamed}`, async () => {
    const tools = [{ name: "weather", input_schema: parameters }];
    const question = { role: "user", content: `weather, streamed: ${streamed}?` };
    const { content } = await message({ ...said("", { tools }), messages: [question] }, streamed);
    assert.deepEqual([content[0].type, content[0].input], ["tool_use", { city: "北京" }]);
    const result = { type: "tool_result", tool_use_id: content[0].id, content: "sunny" };
    const messages = [question, { role: "assistant", content }, { role: "user", content: [result] }];
    assert.equal((await message({ ...said("", { tools }), messages }, streamed)).content[0].text, "The tool said: sunny");

    const asked = { model: "gpt-4o", tools: [{ type: "function", name: "weather", parameters, strict: true }] };
    const [call] = (await respond({ ...asked, input: [question] }, streamed)).output;
    assert.deepEqual([call.type, call.name, call.arguments], ["function_call", "weather", '{"city": "北京"}']);
    const output = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
    const { type, id, call_id, name } = call;
    const input = [question, { type, id, call_id, name, arguments: call.arguments }, output];
    assert.equal((await respond({ ...asked, input }, streamed)).output_text, "The tool said: sunny");
  });

  test(`the tool runner calls a function and goes on, streamed: ${streamed}`, async () => {
    const cities = [];
    const run = ({ city }) => (cities.push(city), "sunny");
    const weather = betaTool({ name: "weather", description: "The weather in a city.", inputSchema: parameters, run });
    const asked = said(`weather by the runner, streamed: ${streamed}?`, { tools: [weather], stream: streamed });
    const answer = await claude.beta.messages.toolRunner(asked).runUntilDone();
    assert.deepEqual([cities, answer.content[0].text], [["北京"], "The tool said: sunny"]);
  });
}

test("structured output is parsed", async () => {
  const schema = { ...parameters, properties: { city: { type: "string" }, degrees: { type: "number" } } };
  const format = { type: "json_schema", name: "weather", schema };
  const answer = await gpt.responses.parse({ model: "gpt-4o", input: "weather?", text: { format } });
  assert.deepEqual(answer.output_parsed, { city: "北京", degrees: 21 });
  const told = await claude.messages.create(said("weather?", { output_config: { format: { type: "json_schema", schema } } }));
  assert.deepEqual(JSON.parse(told.content[0].text), { city: "北京", degrees: 21 });
  assert.deepEqual((await last()).body.response_format.json_schema.schema, schema);
});

test("a stream that fails says so after its first words", async () => {
  let text = "";
  const stream = claude.messages.stream(said("breaks off, word by word")).on("text", (delta) => (text += delta));
  await assert.rejects(stream.finalMessage(), (error) => error instanceof Anthropic.APIError && error.type === "api_error");
  assert.ok(text.startsWith("You "));
  const events = [];
  for await (const event of await gpt.responses.create({ model: "gpt-4o", input: "fails midway, word by word", stream: true })) events.push(event);
  assert.equal(events.at(-1).type, "response.failed");
});

test("Claude Code does a turn with a call of its shell", async () => {
  const environment = { ANTHROPIC_BASE_URL: proxy.root, ANTHROPIC_AUTH_TOKEN: "any-key", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1" };
  const words = 'call Bash {"command": "echo shell-$((40 + 2))", "description": "Says it"}';
  const printed = await run("claude", ["-p", words, "--allowedTools", "Bash"], folder(), environment);
  assert.match(printed, /^The tool said: shell-42/);
  const { role, content } = (await last()).body.messages.at(-1);
  assert.equal(role, "tool");
  assert.match(content, /shell-42/);
});

test("Codex does a turn with a call of its shell", async () => {
  const home = folder();
  mkdirSync(join(home, ".codex"));
  const provider = `name = "local-api-proxy"\nbase_url = "${proxy.root}/v1"\nwire_api = "responses"\nexperimental_bearer_token = "any-key"`;
  writeFileSync(join(home, ".codex/config.toml"), `model = "gpt-5"\nmodel_provider = "proxy"\n\n[model_providers.proxy]\n${provider}\n`);
  const words = 'call exec_command {"cmd": "echo shell-$((40 + 2))"}';
  const printed = await run("codex", ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", words], home);
  assert.match(printed, /^The tool said: [^]*shell-42/);
  const { role, content } = (await last()).body.messages.at(-1);
  assert.equal(role, "tool");
  assert.match(content, /shell-42/);
});
