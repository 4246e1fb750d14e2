// Gemini CLI, unchanged, does a turn with a call of its shell; it knows the proxy from its environment and a settings file.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { folder, run, start, stop } from "./proxy.mjs";

let proxy;

before(async () => (proxy = await start()));

after(stop);

function gemini(words, ...more) {
  const home = folder();
  mkdirSync(join(home, ".gemini"));
  const settings = { security: { auth: { selectedType: "gemini-api-key" } }, model: { name: "openrouter/free" } };
  writeFileSync(join(home, ".gemini/settings.json"), JSON.stringify(settings));
  return run("gemini", ["-p", words, ...more], home, {
    GEMINI_CLI_HOME: home,
    GEMINI_API_KEY: "any-key",
    GOOGLE_GEMINI_BASE_URL: proxy.root,
    GEMINI_MODEL: "openrouter/free",
    GEMINI_CLI_TRUST_WORKSPACE: "true",
  });
}

test("a turn with a call of the shell ends with what the shell said", async () => {
  // The sum shows that a shell ran it: the words themselves go back and forth anyway.
  const printed = await gemini('call run_shell_command {"command": "expr 40 + 2"}', "--yolo");
  assert.match(printed, /The tool said: [^]*42/);
  const calls = (await proxy.received()).filter((call) => call.body);
  assert.ok(calls.length >= 2);
  for (const call of calls) {
    assert.equal(call.path, "/api/v1/chat/completions");
    assert.ok(call.body.model.endsWith(":free") || call.body.model === "openrouter/free", call.body.model);
    assert.equal(call.headers.authorization, "Bearer sk-or-v1-node");
  }
  const [asked, result] = calls.at(-1).body.messages.slice(-2);
  assert.deepEqual([result.role, result.tool_call_id], ["tool", asked.tool_calls[0].id]);
});

test("an error of the upstream is shown in its words", async () => {
  await assert.rejects(gemini("error 401"), /No auth credentials found/);
});
