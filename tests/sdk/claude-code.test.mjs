// Claude Code, unchanged, does a turn with a call of its shell; there is no login, only two variables that name the proxy and a key.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { folder, run, start, stop } from "./proxy.mjs";

let proxy;

before(async () => (proxy = await start()));

after(stop);

const claude = (words, ...more) =>
  run("claude", ["-p", words, ...more], folder(), {
    ANTHROPIC_BASE_URL: proxy.root,
    ANTHROPIC_AUTH_TOKEN: "any-key",
    // It would look for updates and report errors elsewhere.
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
  });

test("a turn with a call of the shell ends with what the shell said", async () => {
  // $((…)) shows that a shell ran it: the words themselves go back and forth anyway.
  const printed = await claude('call Bash {"command": "echo shell-$((40 + 2))", "description": "Says it"}', "--allowedTools", "Bash");
  assert.match(printed, /^The tool said: shell-42/);

  const calls = await proxy.received();
  for (const call of calls) {
    assert.equal(call.path, "/api/v1/messages?beta=true");
    assert.ok(call.body.model.endsWith(":free") || call.body.model === "openrouter/free", call.body.model);
    assert.equal(call.headers.authorization, "Bearer sk-or-v1-node");
    assert.ok(call.headers["anthropic-beta"].includes("claude-code-"));
    const free = /^(custom|(bash|text_editor|computer|memory|tool_search_tool)_.*)$/;
    assert.deepEqual((call.body.tools ?? []).filter((tool) => tool.type && !free.test(tool.type)), []);
  }
  const [result] = calls.at(-1).body.messages.filter((message) => message.role === "user").at(-1).content;
  assert.deepEqual([result.type, result.tool_use_id], ["tool_result", "toolu_1"]);
  assert.match(result.content, /shell-42/);
});

test("an error of the upstream is shown in its words", async () => {
  await assert.rejects(claude("error 400"), /Bad thing/);
});
