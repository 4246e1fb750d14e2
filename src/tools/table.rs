//! The table of tools: what each of them needs, and what to write where.

use super::{ConfigTarget, Launch, NOTHING, Text, Tool, same};

/// The tools, in the order of the READMEs.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "claude",
        title: same("Claude Code"),
        version: "2.1.332",
        tried: true,
        install: "npm install -g @anthropic-ai/claude-code",
        launch: Some(Launch {
            environment: &[
                ("ANTHROPIC_BASE_URL", "{root}"),
                ("ANTHROPIC_AUTH_TOKEN", "{key}"),
                // With these set, Claude Code asks about a key, or goes elsewhere.
                ("ANTHROPIC_API_KEY", ""),
                ("CLAUDE_CODE_USE_BEDROCK", ""),
                ("CLAUDE_CODE_USE_VERTEX", ""),
                ("CLAUDE_CODE_USE_FOUNDRY", ""),
                ("CLAUDE_CODE_DISABLE_TERMINAL_TITLE", "1"),
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ],
            // An address in the user's own settings would win over the environment.
            arguments: &["--settings", "{folder}/settings.json"],
            files: &[("settings.json", CLAUDE_SETTINGS_FOR_NOW)],
        }),
        place: ConfigTarget::File("~/.claude/settings.json", "json", CLAUDE_SETTINGS),
        note: [
            "It asks for models of its own, which are replaced; `ANTHROPIC_MODEL` and `ANTHROPIC_DEFAULT_HAIKU_MODEL` may name free ones. The last two lines save the calls for titles of the terminal, up to one for each message.",
            "它请求的是自己的模型，会被替换；可以用 `ANTHROPIC_MODEL` 和 `ANTHROPIC_DEFAULT_HAIKU_MODEL` 指定免费模型。最后两行省去生成终端标题的调用，否则最多每条消息多一次。",
        ],
    },
    Tool {
        name: "codex",
        title: same("Codex"),
        version: "0.171",
        tried: true,
        install: "npm install -g @openai/codex",
        launch: Some(Launch {
            environment: &[("LOCAL_API_PROXY_KEY", "{key}")],
            arguments: &[
                "-c",
                "model=openrouter/free",
                "-c",
                "model_context_window=131072",
                "-c",
                "model_provider=local",
                "-c",
                "model_providers.local.name=local-api-proxy",
                "-c",
                "model_providers.local.base_url={v1}",
                "-c",
                "model_providers.local.wire_api=responses",
                "-c",
                "model_providers.local.env_key=LOCAL_API_PROXY_KEY",
                "-c",
                "web_search=disabled",
            ],
            files: &[],
        }),
        place: ConfigTarget::File(
            "~/.codex/config.toml",
            "toml",
            r#"model = "openrouter/free"
model_context_window = 131072
model_provider = "local"
web_search = "disabled"

[model_providers.local]
name = "local-api-proxy"
base_url = "{v1}"
wire_api = "responses"
experimental_bearer_token = "{key}""#,
        ),
        note: [
            "Its provider must not be called OpenAI, or it expects what only OpenAI has. Its web search costs money and is taken out on the way. `exec` wants a folder with Git, or `--skip-git-repo-check`. Interactive, it asks for a title of each conversation: one call more.",
            "提供方的名字不能叫 OpenAI，否则它会期待只有 OpenAI 才有的功能。它的网页搜索要花钱，会在途中去掉。`exec` 需要在 Git 文件夹里运行，或者加上 `--skip-git-repo-check`。交互使用时，每个对话会多一次调用来生成标题。",
        ],
    },
    Tool {
        name: "opencode",
        title: same("opencode"),
        version: "1.18.33",
        tried: true,
        install: "npm install -g opencode-ai",
        launch: Some(Launch { environment: &[("OPENCODE_CONFIG_CONTENT", OPENCODE_CONFIG)], ..NO_LAUNCH }),
        place: ConfigTarget::File("~/.config/opencode/opencode.json", "json", OPENCODE_CONFIG),
        note: [
            "`agent.title` saves a call for the title of each session.",
            "`agent.title` 省去每个会话生成标题的一次调用。",
        ],
    },
    Tool {
        name: "aider",
        title: same("aider"),
        version: "0.86.2",
        tried: true,
        install: "pip install aider-chat",
        launch: Some(Launch {
            environment: &[("OPENAI_API_KEY", "{key}"), ("OPENAI_API_BASE", "{v1}")],
            arguments: &[
                "--openai-api-base",
                "{v1}",
                "--model",
                "openai/openrouter/free",
                "--no-show-model-warnings",
            ],
            files: &[],
        }),
        place: ConfigTarget::File(
            "~/.aider.conf.yml",
            "yaml",
            "model: openai/openrouter/free\nopenai-api-base: {v1}\nopenai-api-key: {key}\nshow-model-warnings: false",
        ),
        note: NOTHING,
    },
    Tool {
        name: "qwen",
        title: same("Qwen Code"),
        version: "0.24.4",
        tried: true,
        install: "npm install -g @qwen-code/qwen-code",
        launch: Some(Launch {
            environment: &[
                ("LOCAL_API_PROXY_KEY", "{key}"),
                // A log-in or a provider in the user's settings would win over OPENAI_BASE_URL.
                ("QWEN_CODE_SYSTEM_SETTINGS_PATH", "{folder}/settings.json"),
            ],
            files: &[(
                "settings.json",
                r#"{"modelProviders":{"openai":[{"id":"openrouter/free","name":"free","envKey":"LOCAL_API_PROXY_KEY","baseUrl":"{v1}"}]},"security":{"auth":{"selectedType":"openai"}},"model":{"name":"openrouter/free"},"ui":{"enableFollowupSuggestions":false},"memory":{"enableManagedAutoMemory":false}}"#,
            )],
            ..NO_LAUNCH
        }),
        place: ConfigTarget::File(
            "~/.qwen/settings.json",
            "json",
            r#"{
  "modelProviders": {
    "openai": [{ "id": "openrouter/free", "name": "free", "envKey": "LOCAL_API_PROXY_KEY", "baseUrl": "{v1}" }]
  },
  "env": { "LOCAL_API_PROXY_KEY": "{key}" },
  "security": { "auth": { "selectedType": "openai" } },
  "model": { "name": "openrouter/free" },
  "ui": { "enableFollowupSuggestions": false },
  "memory": { "enableManagedAutoMemory": false }
}"#,
        ),
        note: [
            "The last two lines save the calls for suggestions and for its memory at every turn.",
            "最后两行省去每一轮生成建议和整理记忆的调用。",
        ],
    },
    Tool {
        name: "gemini",
        title: same("Gemini CLI"),
        version: "0.61.0",
        tried: true,
        install: "npm install -g @google/gemini-cli",
        launch: Some(Launch {
            environment: &[
                ("GEMINI_API_KEY", "{key}"),
                ("GOOGLE_GEMINI_BASE_URL", "{root}"),
                ("GEMINI_MODEL", "openrouter/free"),
                // Only a file can say how to log in.
                ("GEMINI_CLI_HOME", "{folder}"),
                ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
                ("GOOGLE_GENAI_USE_VERTEXAI", ""),
                ("GOOGLE_GENAI_USE_GCA", ""),
            ],
            files: &[(
                ".gemini/settings.json",
                r#"{"security":{"auth":{"selectedType":"gemini-api-key"}},"model":{"name":"openrouter/free"}}"#,
            )],
            ..NO_LAUNCH
        }),
        place: ConfigTarget::File(
            "~/.gemini/settings.json",
            "json",
            r#"{
  "security": { "auth": { "selectedType": "gemini-api-key" } },
  "model": { "name": "openrouter/free" }
}"#,
        ),
        note: [
            "And in the environment: `GEMINI_API_KEY={key} GOOGLE_GEMINI_BASE_URL={root}`. With `run` it has a home of its own for as long as it runs.",
            "环境变量还需要：`GEMINI_API_KEY={key} GOOGLE_GEMINI_BASE_URL={root}`。用 `run` 启动时，它使用一个临时的主目录。",
        ],
    },
    Tool {
        name: "crush",
        title: same("Crush"),
        version: "",
        tried: false,
        install: "npm install -g @charmland/crush",
        launch: Some(Launch {
            environment: &[("CRUSH_GLOBAL_CONFIG", "{folder}"), ("CRUSH_GLOBAL_DATA", "{folder}/data")],
            files: &[("crush.json", CRUSH_CONFIG)],
            ..NO_LAUNCH
        }),
        place: ConfigTarget::File("~/.config/crush/crush.json", "json", CRUSH_CONFIG),
        note: NOTHING,
    },
    Tool {
        name: "llm",
        title: same("llm"),
        version: "0.36",
        tried: true,
        install: "pip install llm",
        launch: Some(Launch {
            environment: &[
                ("OPENAI_BASE_URL", "{v1}"),
                ("OPENAI_API_KEY", "{key}"),
                ("LLM_MODEL", "gpt-4o-mini"),
            ],
            ..NO_LAUNCH
        }),
        place: ConfigTarget::Line("OPENAI_BASE_URL={v1} OPENAI_API_KEY={key} llm -m gpt-4o-mini hello"),
        note: [
            "So do most tools that are made with OpenAI's SDK.",
            "多数用 OpenAI SDK 写成的工具都可以这样用。",
        ],
    },
    Tool {
        name: "copilot",
        title: same("GitHub Copilot CLI"),
        version: "1.0.102",
        tried: true,
        install: "npm install -g @github/copilot",
        launch: None,
        place: ConfigTarget::Line(
            "COPILOT_PROVIDER_BASE_URL={v1} COPILOT_MODEL=openrouter/free COPILOT_OFFLINE=true copilot",
        ),
        note: NOTHING,
    },
    Tool {
        name: "cline",
        title: same("Cline CLI"),
        version: "3.0.65",
        tried: true,
        install: "npm install -g cline",
        launch: None,
        place: ConfigTarget::Line(
            "cline auth --provider openai-compatible --apikey {key} --modelid openrouter/free --baseurl {v1}",
        ),
        note: [
            "In VS Code: API Provider \"OpenAI Compatible\", the same values.",
            "在 VS Code 中：API Provider 选 “OpenAI Compatible”，填写同样的值。",
        ],
    },
    Tool {
        name: "kilo",
        title: same("Kilo"),
        version: "7.7.7",
        tried: true,
        install: "npm install -g @kilocode/cli",
        launch: None,
        place: ConfigTarget::File("~/.config/kilo/kilo.json", "json", OPENCODE_CONFIG),
        note: NOTHING,
    },
    Tool {
        name: "continue",
        title: same("Continue"),
        version: "1.5.47",
        tried: true,
        install: "npm install -g @continuedev/cli",
        launch: None,
        place: ConfigTarget::File(
            "~/.continue/config.yaml",
            "yaml",
            "name: local
version: 1.0.0
schema: v1
models:
  - name: free
    provider: openai
    model: openrouter/free
    apiKey: {key}
    apiBase: {v1}
    roles: [chat, edit, apply]
    capabilities: [tool_use]",
        ),
        note: NOTHING,
    },
    Tool {
        name: "pi",
        title: same("pi"),
        version: "0.73.1",
        tried: true,
        install: "npm install -g @mariozechner/pi-coding-agent",
        launch: None,
        place: ConfigTarget::File(
            "~/.pi/agent/models.json",
            "json",
            r#"{
  "providers": {
    "local": {
      "baseUrl": "{v1}",
      "api": "openai-completions",
      "apiKey": "{key}",
      "models": [{ "id": "openrouter/free" }]
    }
  }
}"#,
        ),
        note: [
            "Then `pi --provider local --model openrouter/free`.",
            "然后运行 `pi --provider local --model openrouter/free`。",
        ],
    },
    Tool {
        name: "hermes",
        title: same("Hermes"),
        version: "0.19.0",
        tried: true,
        install: "",
        launch: None,
        place: ConfigTarget::File(
            "~/.hermes/config.yaml",
            "yaml",
            "model:
  default: openrouter/free
  provider: custom
  base_url: {v1}
  api_key: {key}",
        ),
        note: ["On Windows in `%LOCALAPPDATA%\\hermes`.", "Windows 上位于 `%LOCALAPPDATA%\\hermes`。"],
    },
    Tool {
        name: "sgpt",
        title: same("shell-gpt"),
        version: "1.5.1",
        tried: true,
        install: "pip install shell-gpt",
        launch: None,
        place: ConfigTarget::Line(
            "API_BASE_URL={v1} OPENAI_API_KEY={key} sgpt --model openrouter/free hello",
        ),
        note: NOTHING,
    },
    Tool {
        name: "open-webui",
        title: same("Open WebUI"),
        version: "0.12.4",
        tried: true,
        install: "pip install open-webui",
        launch: None,
        place: ConfigTarget::Menu([
            "Admin settings, Connections, OpenAI API: URL `{v1}`, key `{key}`",
            "管理员设置 → 外部连接 → OpenAI API：地址 `{v1}`，密钥 `{key}`",
        ]),
        note: [
            "Each chat costs up to three more calls, for a title, tags and follow-ups: Admin settings, Interface, switches them off. In Docker the host is another machine: see `HOST` and `PROXY_API_KEY`.",
            "每次聊天最多多出三次调用（标题、标签、后续问题），可在管理员设置 → 界面中关闭。在 Docker 里宿主机是另一台机器：见 `HOST` 和 `PROXY_API_KEY`。",
        ],
    },
    Tool {
        name: "openai-python",
        title: ["OpenAI SDK for Python", "OpenAI SDK（Python）"],
        version: "3.57",
        tried: true,
        install: "pip install openai",
        launch: None,
        place: ConfigTarget::Line(r#"OpenAI(base_url="{v1}", api_key="{key}")"#),
        note: [
            "Or the environment: `OPENAI_BASE_URL`, `OPENAI_API_KEY`.",
            "也可以用环境变量 `OPENAI_BASE_URL`、`OPENAI_API_KEY`。",
        ],
    },
    Tool {
        name: "openai-node",
        title: ["OpenAI SDK for Node", "OpenAI SDK（Node）"],
        version: "7.57",
        tried: true,
        install: "npm install openai",
        launch: None,
        place: ConfigTarget::Line(r#"new OpenAI({ baseURL: "{v1}", apiKey: "{key}" })"#),
        note: NOTHING,
    },
    Tool {
        name: "anthropic-python",
        title: ["Anthropic SDK for Python", "Anthropic SDK（Python）"],
        version: "2.14",
        tried: true,
        install: "pip install anthropic",
        launch: None,
        place: ConfigTarget::Line(r#"Anthropic(base_url="{root}", api_key="{key}")"#),
        note: WITHOUT_V1,
    },
    Tool {
        name: "anthropic-node",
        title: ["Anthropic SDK for Node", "Anthropic SDK（Node）"],
        version: "1.14",
        tried: true,
        install: "npm install @anthropic-ai/sdk",
        launch: None,
        place: ConfigTarget::Line(r#"new Anthropic({ baseURL: "{root}", apiKey: "{key}" })"#),
        note: WITHOUT_V1,
    },
    Tool {
        name: "google-genai-python",
        title: ["Google's SDK for Python (google-genai)", "Google SDK（Python，google-genai）"],
        version: "3.6.1",
        tried: true,
        install: "pip install google-genai",
        launch: None,
        place: ConfigTarget::Line(r#"genai.Client(api_key="{key}", http_options={"base_url": "{root}"})"#),
        note: WITHOUT_V1,
    },
    Tool {
        name: "google-genai-node",
        title: ["Google's SDK for Node (@google/genai)", "Google SDK（Node，@google/genai）"],
        version: "3.3.0",
        tried: true,
        install: "npm install @google/genai",
        launch: None,
        place: ConfigTarget::Line(
            r#"new GoogleGenAI({ apiKey: "{key}", httpOptions: { baseUrl: "{root}" } })"#,
        ),
        note: WITHOUT_V1,
    },
    Tool {
        name: "ollama-python",
        title: ["Ollama's client for Python", "Ollama 客户端（Python）"],
        version: "0.6.3",
        tried: true,
        install: "pip install ollama",
        launch: None,
        place: ConfigTarget::Line(r#"Client(host="{root}")"#),
        note: NOTHING,
    },
    Tool {
        name: "ollama-node",
        title: ["Ollama's client for Node", "Ollama 客户端（Node）"],
        version: "0.6.4",
        tried: true,
        install: "npm install ollama",
        launch: None,
        place: ConfigTarget::Line(r#"new Ollama({ host: "{root}" })"#),
        note: NOTHING,
    },
    Tool {
        name: "langchain",
        title: same("LangChain"),
        version: "1.7",
        tried: true,
        install: "pip install langchain-openai",
        launch: None,
        place: ConfigTarget::Line(r#"ChatOpenAI(base_url="{v1}", api_key="{key}", model="any")"#),
        note: NOTHING,
    },
    Tool {
        name: "curl",
        title: same("curl"),
        version: "",
        tried: true,
        install: "",
        launch: None,
        place: ConfigTarget::Line(
            r#"curl -N {v1}/chat/completions -H "Authorization: Bearer {key}" -d '{"stream":true,"messages":[{"role":"user","content":"hello"}]}'"#,
        ),
        note: NOTHING,
    },
    Tool {
        name: "goose",
        title: same("goose"),
        version: "",
        tried: false,
        install: "",
        launch: None,
        place: ConfigTarget::Line(
            "GOOSE_PROVIDER=openai GOOSE_MODEL=openrouter/free OPENAI_HOST={root} OPENAI_API_KEY={key} goose",
        ),
        note: NOTHING,
    },
    Tool {
        name: "cherry-studio",
        title: same("Cherry Studio"),
        version: "",
        tried: false,
        install: "",
        launch: None,
        place: ConfigTarget::Menu([
            "Settings, Model Provider, add one of type OpenAI: API host `{root}`, key `{key}`; then add the model `openrouter/free`",
            "设置 → 模型服务，添加类型为 OpenAI 的服务：API 地址 `{root}`，密钥 `{key}`；再添加模型 `openrouter/free`",
        ]),
        note: NOTHING,
    },
    Tool {
        name: "chatbox",
        title: same("Chatbox"),
        version: "",
        tried: false,
        install: "",
        launch: None,
        place: ConfigTarget::Menu([
            "Settings, Model Provider, add custom provider, OpenAI API compatible: host `{root}`, path `/v1/chat/completions`, key `{key}`",
            "设置 → 模型提供方 → 添加自定义提供方，OpenAI API 兼容：主机 `{root}`，路径 `/v1/chat/completions`，密钥 `{key}`",
        ]),
        note: NOTHING,
    },
    Tool {
        name: "ollama-only",
        title: [
            "tools that know only Ollama (VS Code's Copilot, Obsidian, Home Assistant)",
            "只支持 Ollama 的工具（VS Code 的 Copilot、Obsidian、Home Assistant）",
        ],
        version: "",
        tried: false,
        install: "",
        launch: None,
        place: ConfigTarget::Menu([
            "Ollama's address: `{root}`; one that can't be told an address looks at port 11434: start the proxy with `--port 11434`",
            "Ollama 地址填 `{root}`；不能填地址的工具会找 11434 端口：用 `--port 11434` 启动代理",
        ]),
        note: NOTHING,
    },
];

const WITHOUT_V1: Text = ["Without `/v1`.", "不带 `/v1`。"];

const NO_LAUNCH: Launch = Launch { environment: &[], arguments: &[], files: &[] };

const CLAUDE_SETTINGS: &str = r#"{
  "env": {
    "ANTHROPIC_BASE_URL": "{root}",
    "ANTHROPIC_AUTH_TOKEN": "{key}",
    "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"
  }
}"#;

/// [`CLAUDE_SETTINGS`] for `run`, which also switch off what may lead elsewhere in the user's own settings.
const CLAUDE_SETTINGS_FOR_NOW: &str = r#"{
  "env": {
    "ANTHROPIC_BASE_URL": "{root}",
    "ANTHROPIC_AUTH_TOKEN": "{key}",
    "CLAUDE_CODE_USE_BEDROCK": "",
    "CLAUDE_CODE_USE_VERTEX": "",
    "CLAUDE_CODE_USE_FOUNDRY": "",
    "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"
  }
}"#;

const OPENCODE_CONFIG: &str = r#"{
  "provider": {
    "local": {
      "npm": "@ai-sdk/openai-compatible",
      "options": { "baseURL": "{v1}", "apiKey": "{key}" },
      "models": { "openrouter/free": {} }
    }
  },
  "model": "local/openrouter/free",
  "agent": { "title": { "disable": true } }
}"#;

const CRUSH_CONFIG: &str = r#"{
  "providers": {
    "local": {
      "type": "openai-compat",
      "base_url": "{v1}",
      "api_key": "{key}",
      "models": [{ "id": "openrouter/free", "name": "free", "context_window": 131072, "default_max_tokens": 8000 }]
    }
  },
  "models": {
    "large": { "provider": "local", "model": "openrouter/free" },
    "small": { "provider": "local", "model": "openrouter/free" }
  }
}"#;
