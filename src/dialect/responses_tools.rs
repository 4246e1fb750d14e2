//! The tools of a Responses request, as the client knows them and as chat completions describe them.

use serde_json::Value;

use super::chat_conversation::{ToolNames, chosen, function};
use crate::json::items;

/// The kind of a tool for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToolKind {
    Function,
    /// A tool that takes a text.
    Custom,
    /// A tool that finds other tools.
    ToolSearch,
    ApplyPatch,
}

/// The parameters of a custom tool, which takes one text.
const CUSTOM_PARAMETERS: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;
/// The description of `apply_patch`, which OpenAI's own models know without being told.
const PATCH_DESCRIPTION: &str = "Creates, updates or deletes a file. diff is in the V4A format: lines that begin with a \
    blank, + or -, in hunks that begin with @@; of a new file all lines begin with +.";
const PATCH_PARAMETERS: &str = r#"{"type":"object","properties":{"type":{"type":"string","enum":["create_file","update_file","delete_file"]},"path":{"type":"string"},"diff":{"type":"string"}},"required":["type","path"]}"#;

/// A tool as the client knows it.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) kind: ToolKind,
}

/// The tools of a request: their names, and their descriptions in the chat.
#[derive(Debug, Default)]
pub(super) struct Tools {
    pub(super) names: ToolNames<Tool>,
    functions: Vec<Value>,
}

/// Returns the key of a tool among the client's tools.
pub(super) fn key(namespace: Option<&str>, name: &str) -> String {
    format!("{}\n{name}", namespace.unwrap_or_default())
}

/// Returns the name of a tool where there are no namespaces.
pub(super) fn flat(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{}__{name}", namespace.trim_end_matches('_')),
        None => name.to_owned(),
    }
}

impl Tools {
    pub(super) fn of(asked: &Value) -> Self {
        let mut tools = Self::default();
        // Items of the conversation can add tools, too.
        let brings =
            |item: &&Value| matches!(item["type"].as_str(), Some("additional_tools" | "tool_search_output"));
        let brought = items(&asked["input"]).filter(brings).map(|item| &item["tools"]);
        for tool in std::iter::once(&asked["tools"]).chain(brought).flat_map(items) {
            if tool["type"] == "namespace" {
                items(&tool["tools"]).for_each(|inner| tools.add(tool["name"].as_str(), inner));
            } else {
                tools.add(None, tool);
            }
        }
        tools
    }

    /// Adds a tool that the client runs; a tool that a server would run means nothing to other servers.
    fn add(&mut self, namespace: Option<&str>, tool: &Value) {
        let field = |name: &str| tool[name].as_str();
        let mut description = field("description").unwrap_or_default().to_owned();
        let made = |parameters: &str| serde_json::from_str(parameters).unwrap_or_default();
        let (name, kind, parameters) = match (field("type"), field("name")) {
            (Some("function"), Some(name)) => (name, ToolKind::Function, tool["parameters"].clone()),
            (Some("custom"), Some(name)) => {
                let format = &tool["format"];
                if let (Some(syntax), Some(grammar)) =
                    (format["syntax"].as_str(), format["definition"].as_str())
                {
                    description += "\n\nThe input follows this grammar (";
                    description += &[syntax, "):\n", grammar].concat();
                }
                (name, ToolKind::Custom, made(CUSTOM_PARAMETERS))
            }
            (Some("tool_search"), _) if tool["execution"] == "client" => {
                ("tool_search", ToolKind::ToolSearch, tool["parameters"].clone())
            }
            (Some("apply_patch"), _) => {
                description = PATCH_DESCRIPTION.to_owned();
                ("apply_patch", ToolKind::ApplyPatch, made(PATCH_PARAMETERS))
            }
            _ => return,
        };
        let known = Tool { namespace: namespace.map(str::to_owned), name: name.to_owned(), kind };
        let added = self.names.add(&key(namespace, name), &flat(namespace, name), known);
        self.functions.extend(added.map(|name| function(&name, &description, &parameters)));
    }

    /// Returns the functions that may be called, and the `tool_choice`, if there is one.
    pub(super) fn chosen(&self, choice: &Value) -> (Vec<Value>, Option<Value>) {
        let named = |choice: &Value| {
            let name = choice["name"].as_str().or(choice["type"].as_str()).unwrap_or_default();
            self.names.sent(&key(choice["namespace"].as_str(), name))
        };
        let mode = |mode: &str| matches!(mode, "none" | "required").then(|| Value::from(mode));
        let all = self.functions.clone();
        match (choice.as_str(), choice["type"].as_str()) {
            (Some(choice), _) => (all, mode(choice)),
            (_, Some("allowed_tools")) => {
                let allowed = items(&choice["tools"]).filter_map(named);
                let allowed = allowed.collect::<std::collections::HashSet<_>>();
                let may = |function: &Value| {
                    function["function"]["name"].as_str().is_some_and(|name| allowed.contains(name))
                };
                (all.into_iter().filter(may).collect(), mode(choice["mode"].as_str().unwrap_or_default()))
            }
            _ => (all, named(choice).map(chosen)),
        }
    }
}
