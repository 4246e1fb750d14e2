// The Codex CLI, unchanged, does a turn with a call of its shell; there is no login, only a configuration that names the proxy.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { folder, run, start, stop } from "./proxy.mjs";

let proxy, home;

before(async () => {
  proxy = await start();
  home = folder();
  mkdirSync(join(home, ".codex"));
  const config = `
    model = "gpt-5"
    model_provider = "proxy"

    [model_providers.proxy]
    name = "local-api-proxy"
    base_url = "${proxy.root}/v1"
    wire_api = "responses"
    experimental_bearer_token = "any-key"
  `;
  writeFileSync(join(home, ".codex/config.toml"), config);
});

after(stop);

// The tests' machines have no sandbox of Codex's own, and the words are ours.
const codex = (words) => run("codex", ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", words], home);

test("a turn with a call of the shell ends with what the shell said", async () => {
  // $((…)) shows that a shell ran it: the words themselves go back and forth anyway.
  const printed = await codex('call exec_command {"cmd": "echo shell-$((40 + 2))"}');
  assert.match(printed, /^The tool said: [^]*shell-42/);

  const [first, second, ...more] = await proxy.received();
  assert.equal(more.length, 0);
  for (const call of [first, second]) {
    assert.equal(call.path, "/api/v1/responses");
    assert.ok(call.body.model.endsWith(":free") || call.body.model === "openrouter/free", call.body.model);
    const kinds = new Set(call.body.tools.map((tool) => tool.type));
    assert.ok(kinds.has("function"));
    // By itself Codex offers a `web_search`, too, which would be billed.
    const free = ["function", "custom", "namespace", "apply_patch", "tool_search"];
    assert.deepEqual([...kinds].filter((kind) => !free.includes(kind)), []);
  }
  const result = second.body.input.at(-1);
  assert.deepEqual([result.type, result.call_id], ["function_call_output", "call_1"]);
  assert.match(result.output, /shell-42/);
  assert.deepEqual(second.body.input.slice(0, first.body.input.length), first.body.input);
});

test("an error of the upstream is shown in its words", async () => {
  await assert.rejects(codex("error 400"), /Bad thing/);
});

// The last one: from here on the proxy asks the upstream no more.
test("the day's limit is shown with the time at which it ends", async () => {
  const before = (await proxy.received()).length;
  await assert.rejects(codex("the day's limit"), /hit your usage limit. Try again at/);
  assert.equal((await proxy.received()).length, before + 1);
});
