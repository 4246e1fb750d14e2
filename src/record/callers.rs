//! Finds out which tool a request comes from, by its head. Only the tables have to be extended for other tools.

use crate::client::head::Head;

/// The maximum length of a name; longer ones are cut.
const MAX_CHARACTERS: usize = 40;

/// Parts of a `User-Agent`, in lower case, by which tools identify themselves.
const TOOLS: [(&str, &str); 45] = [
    ("claude-cli", "Claude Code"),
    ("claude-code", "Claude Code"),
    ("claude-agent-sdk", "Claude Agent SDK"),
    ("codex", "Codex"),
    ("opencode", "opencode"),
    ("kilo", "Kilo"),
    ("roocode", "Roo Code"),
    ("roo-code", "Roo Code"),
    ("cline", "Cline"),
    ("qwencode", "Qwen Code"),
    ("qwen-code", "Qwen Code"),
    ("geminicli", "Gemini CLI"),
    ("gemini-cli", "Gemini CLI"),
    ("crush", "Crush"),
    ("aider", "aider"),
    ("copilot", "Copilot"),
    ("continue", "Continue"),
    ("goose/", "goose"),
    ("openclaw", "OpenClaw"),
    ("mistral-vibe", "Vibe"),
    ("vibe/", "Vibe"),
    ("hermes", "Hermes"),
    ("nanocoder", "nanocoder"),
    ("gptme", "gptme"),
    ("zed/", "Zed"),
    ("cursor", "Cursor"),
    ("obsidian", "Obsidian"),
    ("cherrystudio", "Cherry Studio"),
    ("cherry-studio", "Cherry Studio"),
    ("chatbox", "Chatbox"),
    ("lobechat", "LobeChat"),
    ("librechat", "LibreChat"),
    ("open-webui", "Open WebUI"),
    ("open webui", "Open WebUI"),
    ("sillytavern", "SillyTavern"),
    ("anythingllm", "AnythingLLM"),
    ("jan/", "Jan"),
    ("raycast", "Raycast"),
    ("litellm", "LiteLLM"),
    ("langchain", "LangChain"),
    ("dify", "Dify"),
    ("n8n", "n8n"),
    ("home-assistant", "Home Assistant"),
    ("homeassistant", "Home Assistant"),
    ("postman", "Postman"),
];

/// Parts of an address that a client gives as its own (`HTTP-Referer`, `Referer`).
const SITES: [(&str, &str); 8] = [
    ("aider.chat", "aider"),
    ("cline.bot", "Cline"),
    ("roocode.com", "Roo Code"),
    ("kilocode.ai", "Kilo"),
    ("opencode.ai", "opencode"),
    ("openwebui.com", "Open WebUI"),
    ("zed.dev", "Zed"),
    ("continue.dev", "Continue"),
];

/// Libraries that many tools are built on: their names are better than none.
const LIBRARIES: [(&str, &str); 24] = [
    ("asyncopenai/python", "OpenAI SDK (Python)"),
    ("openai/python", "OpenAI SDK (Python)"),
    ("openai/js", "OpenAI SDK (JS)"),
    ("openai/go", "OpenAI SDK (Go)"),
    ("openai/java", "OpenAI SDK (Java)"),
    ("async-openai", "async-openai"),
    ("asyncanthropic/python", "Anthropic SDK (Python)"),
    ("anthropic/python", "Anthropic SDK (Python)"),
    ("anthropic/js", "Anthropic SDK (JS)"),
    ("google-genai-sdk", "Google GenAI SDK"),
    ("openrouter", "OpenRouter SDK"),
    ("speakeasy-sdk", "OpenRouter SDK"),
    ("ai-sdk", "AI SDK"),
    ("ollama-python", "ollama (Python)"),
    ("ollama-js", "ollama (JS)"),
    ("ollama", "ollama"),
    ("curl/", "curl"),
    ("wget", "Wget"),
    ("powershell", "PowerShell"),
    ("python-requests", "Python requests"),
    ("python-httpx", "Python httpx"),
    ("python-urllib", "Python urllib"),
    ("java-http-client", "Java"),
    ("mozilla/", "browser"),
];

/// Returns the tool's name, which is for people; empty if the head doesn't tell it.
pub fn of(head: &Head) -> String {
    let value = |name: &str| head.header(name).map(|value| value.trim().to_owned()).unwrap_or_default();
    let agent = value("user-agent");
    let lower = agent.to_ascii_lowercase();
    let in_table = |table: &[(&str, &'static str)], text: &str| {
        table.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| *name)
    };
    if let Some(name) = in_table(&TOOLS, &lower) {
        return name.to_owned();
    }
    if head.header("x-claude-code-session-id").is_some() {
        return "Claude Code".to_owned();
    }
    let title = ["x-openrouter-title", "x-title"].map(value).into_iter().find(|title| !title.is_empty());
    if let Some(title) = title {
        return cut(&title);
    }
    // Only the panel's page has this proxy's own origin.
    if value("sec-fetch-site") == "same-origin" {
        return "panel".to_owned();
    }
    let site = ["http-referer", "referer"].map(|name| value(name).to_ascii_lowercase());
    let library = || in_table(&LIBRARIES, &lower);
    if let Some(name) = site.iter().find_map(|site| in_table(&SITES, site)).or_else(library) {
        return name.to_owned();
    }
    cut(agent.split(['/', ' ', '(']).next().unwrap_or_default())
}

fn cut(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fields: &str) -> String {
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
        of(&Head::parse(head.into_bytes()).unwrap())
    }

    #[test]
    fn tools_are_known_by_their_marks() {
        for (fields, name) in [
            ("User-Agent: claude-cli/2.1.332 (external, cli)", "Claude Code"),
            ("User-Agent: codex_cli_rs/0.171.0 (Debian 12; x86_64) xterm", "Codex"),
            ("User-Agent: opencode/1.18.33 ai-sdk/openai-compatible/1.0", "opencode"),
            ("User-Agent: OpenAI/Python 1.99.0", "OpenAI SDK (Python)"),
            ("User-Agent: OpenAI/Python 1.99.0\r\nX-Title: Aider", "Aider"),
            ("User-Agent: python-httpx/0.28\r\nHTTP-Referer: https://openwebui.com/", "Open WebUI"),
            ("User-Agent: curl/8.5.0", "curl"),
            ("User-Agent: Mozilla/5.0 (X11; Linux)\r\nSec-Fetch-Site: same-origin", "panel"),
            ("User-Agent: MyBot/1.0 (+https://example.com)", "MyBot"),
            ("User-Agent: ", ""),
            ("Accept: */*", ""),
        ] {
            assert_eq!(told(fields), name, "{fields}");
        }
        assert_eq!(told(&format!("User-Agent: {}", "x".repeat(500))).len(), MAX_CHARACTERS);
    }
}
