//! Section 2: the free-model rule in each dialect, as the upstream sees it.
//!
//! A case is what a request has beside its dialect's own fields: what would cost money, what of it may reach the
//! upstream, and a free twin, which arrives byte for byte.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::dialects::{VECTORS, plain_answer};
use crate::fixture::*;

/// Where cases are sent, and the fields that a request there has at its end, which all must arrive.
struct Place {
    path: &'static str,
    own: &'static str,
    /// What stands in for a model that isn't free.
    model: &'static str,
}

const CHAT: Place = Place {
    path: "/v1/chat/completions",
    own: r#""messages":[{"role":"user","content":"\u4f60 gpt"}],"temperature":1.50"#,
    model: "openrouter/free",
};
const COMPLETIONS: Place = Place {
    path: "/v1/completions",
    own: r#""prompt":"gpt\/","seed":123456789012345678901234567890"#,
    model: "openrouter/free",
};
const RESPONSES: Place = Place {
    path: "/v1/responses",
    own: r#""input":"gpt","top_p":0.10000000000000000555"#,
    model: "openrouter/free",
};
const MESSAGES: Place = Place {
    path: "/v1/messages?beta=true",
    own: r#""max_tokens":1e2,"messages":[{"role":"user","content":"gpt"}]"#,
    model: "openrouter/free",
};
const EMBEDDINGS: Place =
    Place { path: "/v1/embeddings", own: r#""input":["gpt"]"#, model: "embed/one:free" };

/// Would cost money; may arrive; free.
type Case = (&'static str, &'static str, &'static str);

/// In all places. `MODEL` is the one that stands in.
#[rustfmt::skip]
const MODELS: &[Case] = &[
    (r#""model":"gpt-4o""#, r#""model":"MODEL""#, r#""model":"a/b:free""#),
    (r#""model":"openrouter/auto""#, r#""model":"MODEL""#, r#""model":"c/d:free""#),
    (r#""model":"a/b:freely""#, r#""model":"MODEL""#, r#""model":"a/b-freely:free""#),
    (r#""model":"a/b:FREE""#, r#""model":"MODEL""#, r#""model":"A/B:free""#),
    (r#""model":"a/b:free ""#, r#""model":"MODEL""#, r#""model" : "a/b:free""#),
    (r#""model":"a/b:free:online""#, r#""model":"MODEL""#, r#""model":"a/b-online:free""#),
    (r#""model":"a/b:free:nitro""#, r#""model":"MODEL""#, r#""model":"a/b-nitro:free""#),
    (r#""model":"@preset/mine""#, r#""model":"MODEL""#, r#""model":"preset/mine:free""#),
    (r#""model":"@preset/mine:free""#, r#""model":"MODEL""#, r#""model":"mine:free""#),
    (r#""model":"a/b:free@preset/mine""#, r#""model":"MODEL""#, r#""model":"a/b-1:free""#),
    (r#""model":"a/b@preset/mine:free""#, r#""model":"MODEL""#, r#""model":"a/b-mine:free""#),
    (r#""model":"a\/b""#, r#""model":"MODEL""#, r#""model":"a\/b:free""#),
    (r#""model":"a/b:free\u0000""#, r#""model":"MODEL""#, r#""model":"a/b\u003afree""#),
    (r#""model":"a/b:free\n""#, r#""model":"MODEL""#, r#""model":"a/b:fr\u0065e""#),
    (r#""model":"""#, r#""model":"MODEL""#, r#""model":"x:free""#),
    (r#""model":null"#, r#""model":"MODEL""#, r#""modal":null,"model":"a/b:free""#),
    (r#""model":7"#, r#""model":"MODEL""#, r#""modal":7,"model":"a/b:free""#),
    (r#""model":true"#, r#""model":"MODEL""#, r#""modal":true,"model":"a/b:free""#),
    (r#""model":["gpt-4o"]"#, r#""model":"MODEL""#, r#""modal":["gpt-4o"],"model":"a/b:free""#),
    (r#""model":["a/b:free"]"#, r#""model":"MODEL""#, r#""x":{"model":["gpt-4o"]},"model":"a/b:free""#),
    (r#""model":{"id":"gpt-4o"}"#, r#""model":"MODEL""#, r#""x":{"model":"gpt-4o"},"model":"a/b:free""#),
    (r#""n":1.0"#, r#""n":1.0,"model":"MODEL""#, r#""n":1.0,"model":"a/b:free""#),
    (r#""mod\u0065l":"gpt-4o""#, r#""model":"MODEL""#, r#""mod\u0065l":"a/b:free""#),
    (r#""\u006d\u006F\u0064\u0065\u006c":"o3""#, r#""model":"MODEL""#, r#""n":1,"model":"a/b:free""#),
    (r#""model":"a/b:free","model":"gpt-4o""#, r#""model":"MODEL""#, r#""model":"a/b:free","n":[]"#),
    (r#""model":"a/b:free","mode\u006c":"o3""#, r#""model":"MODEL""#, r#""models":["a/b:free"],"model":"x:free""#),
    (r#""mod\u0065l":"a/b:free","model":"o3""#, r#""model":"MODEL""#, r#""model":"a/b:free","mod":"o3""#),
    // The last one counts, here for the better.
    (r#""model":"gpt-4o","model":"a/b:free""#, r#""model":"a/b:free""#, r#""model":"a/b:free","Model":1"#),
    (r#""MODEl":"o3","model":"gpt-4o""#, r#""MODEl":"o3","model":"MODEL""#, r#""MODEl":"o3","model":"a/b:free""#),
    (r#""model":"a/b:free","models":["gpt-4o"]"#, r#""model":"a/b:free""#, r#""model":"a/b:free","models":["c:free"]"#),
    (r#""model":"a/b:free","models":["o3","c:free"]"#, r#""model":"a/b:free","models":["c:free"]"#, r#""model":"a/b:free","models":["d:free", "c:free"]"#),
    (r#""model":"a/b:free","models":["c:free","@preset/x:free"]"#, r#""model":"a/b:free","models":["c:free"]"#, r#""models":["c:free"],"model":"a/b:free""#),
    (r#""model":"a/b:free","models":[7,{"model":"o3"},null,["o3"]]"#, r#""model":"a/b:free""#, r#""model":"a/b:free","models":["c\/d:free"]"#),
    (r#""model":"a/b:free","models":"gpt-4o""#, r#""model":"a/b:free""#, r#""model":"a/b:free","nodels":"gpt-4o""#),
    (r#""model":"a/b:free","models":{"0":"gpt-4o"}"#, r#""model":"a/b:free""#, r#""model":"a/b:free","nodels":{"0":"gpt-4o"}"#),
    (r#""model":"a/b:free","models":["c:free"],"m\u006fdels":["o3"]"#, r#""model":"a/b:free""#, r#""model":"a/b:free","m\u006fdels":["c:free"]"#),
    (r#""model":"o3","models":["o3"]"#, r#""model":"MODEL""#, r#""model":"a/b:free","models":["c:free","e:free"]"#),
    // Aliases and routers, whose suffix makes nothing free.
    (r#""model":"~vendor/family-latest:free""#, r#""model":"MODEL""#, r#""model":"vendor/~family:free""#),
    (r#""model":"~vendor/family-latest""#, r#""model":"MODEL""#, r#""model":"vendor/family-latest:free""#),
    (r#""model":"openrouter/fusion:free""#, r#""model":"MODEL""#, r#""model":"other/fusion:free""#),
    (r#""model":"openrouter/auto:free""#, r#""model":"MODEL""#, r#""model":"x/openrouter/auto:free""#),
    (r#""model":"OpenRouter/Auto:free""#, r#""model":"MODEL""#, r#""model":"openrouters/auto:free""#),
    (r#""model":"openrouter\/pareto-code:free""#, r#""model":"MODEL""#, r#""model":"openrouter-x/y:free""#),
    (r#""model":"openrouter/free:free""#, r#""model":"MODEL""#, r#""model":"free:free""#),
    (r#""model":"a/b:free","models":["openrouter/auto:free","~v/f:free","best","c:free"]"#, r#""model":"a/b:free","models":["c:free"]"#, r#""model":"a/b:free","models":["openrouter/free","c:free"]"#),
    // What a request names beside takes the place of what isn't free.
    (r#""models":["o3","c:free","d:free"]"#, r#""models":["c:free","d:free"],"model":"c:free""#, r#""models":["c:free","d:free"],"model":"c:free""#),
    (r#""model":"o3","models":["c:free"]"#, r#""model":"c:free","models":["c:free"]"#, r#""model":"c:free","models":["c:free"]"#),
    (r#""model":7,"models":["c:free"]"#, r#""model":"c:free","models":["c:free"]"#, r#""model":"x/c:free""#),
];

/// Wherever text is made.
#[rustfmt::skip]
const EXTRAS: &[Case] = &[
    (r#""preset":"mine""#, "", r#""x_preset":"mine""#),
    (r#""pr\u0065set":"mine""#, "", r#""metadata":{"preset":"mine"}"#),
    (r#""preset":{"slug":"mine"}"#, "", r#""metadata":{"x":[{"preset":"mine"}]}"#),
    (r#""preset":"","preset":"mine""#, "", r#""metadata":{"plugins":[{"id":"web"}]}"#),
    (r#""web_search_options":{}"#, "", r#""web_search":{}"#),
    (r#""web_search_options":{"search_context_size":"high"}"#, "", r#""provider":{"sort":"price"}"#),
    (r#""w\u0065b_search_options":{}"#, "", r#""transforms":["middle-out"]"#),
    (r#""service_tier":"priority""#, "", r#""session_id":"priority""#),
    (r#""service_tier":"fast""#, "", r#""route":"fallback""#),
    (r#""speed":"fast""#, "", r#""user":"fast""#),
    (r#""plugins":[{"id":"web"}]"#, "", r#""plugins":[{"id":"response-healing"}]"#),
    (r#""plugins":[{"id":"web","engine":"exa","max_results":9}]"#, "", r#""plugins":[{"id":"response-healing","enabled":true}]"#),
    (r#""plugins":[{"id":"web"},{"id":"response-healing"}]"#, r#""plugins":[{"id":"response-healing"}]"#, r#""plugins":[ {"id":"response-healing"} ]"#),
    (r#""plugins":[{"id":"web-fetch"}]"#, "", r#""plugins":[{"enabled":true,"id":"response-healing"}]"#),
    (r#""plugins":[{"id":"fusion","analysis_models":["openai/o3"]}]"#, "", r#""trace":{"id":"fusion"}"#),
    (r#""plugins":[{"id":"auto-router","allowed_models":["*"]}]"#, "", r#""trace":{"id":"auto-router"}"#),
    (r#""plugins":[{"id":"pareto-router"},{"id":"auto-beta-router"}]"#, "", r#""trace":["pareto-router"]"#),
    (r#""plugins":[{"id":"file-parser","pdf":{"engine":"mistral-ocr"}}]"#, "", r#""trace":{"engine":"mistral-ocr"}"#),
    (r#""plugins":[{"id":"response-healing","id":"web"}]"#, "", r#""plugins":[{"id":"response-healing","x":"web"}]"#),
    (r#""plugins":[{"id":"response-healing"}],"plugins":[{"id":"web"}]"#, "", r#""plugins":[{"id":"response-healing"}],"plug":[{"id":"web"}]"#),
    (r#""plugins":[{"id":"response-healing","i\u0064":"web"}]"#, "", r#""plugins":[{"id":"response\u002dhealing"}]"#),
    (r#""plugins":[{"id":"web","id":"response-healing"}]"#, r#""plugins":[{"id":"response-healing"}]"#, r#""plugins":[{"id":"response-healing","xid":"web"}]"#),
    (r#""plugins":["web"]"#, "", r#""plug":["web"]"#),
    (r#""plugins":"web""#, "", r#""plug":"web""#),
    (r#""plugins":{"id":"web"}"#, "", r#""plug":{"id":"web"}"#),
    (r#""plugins":[[{"id":"web"}],null,1]"#, "", r#""plug":[[{"id":"web"}],null,1]"#),
    // Switched off, one keeps what the account's owner has switched on from costing money.
    (r#""plugins":[{"id":"web","enabled":true}]"#, "", r#""plugins":[{"id":"web","enabled":false}]"#),
    (r#""plugins":[{"id":"web","enabled":"false"}]"#, "", r#""plugins":[{"id":"fusion","enabled": false}]"#),
    (r#""plugins":[{"id":"web","enabled":false,"enabled":true}]"#, "", r#""plugins":[{"id":"web","enabled":false},{"id":"response-healing"}]"#),
    (r#""plugins":[{"id":"web","enabled":true,"enabled":false}]"#, r#""plugins":[{"id":"web","enabled":false}]"#, r#""plugins":[{"\u0065nabled":false,"id":"web"}]"#),
    (r#""plugins":[{"id":"web"},{"id":"file-parser","enabled":false}]"#, r#""plugins":[{"id":"file-parser","enabled":false}]"#, r#""plugins":[{"id":"context-compression"}]"#),
    (r#""plugins":[{"id":"web"},{"id":"context-compression","enabled":false}]"#, r#""plugins":[{"id":"context-compression","enabled":false}]"#, r#""plugins":[{"id":"context-compression","engine":"middle-out"},{"id":"response-healing"}]"#),
    (r#""store":true"#, r#""store":false"#, r#""store":false"#),
    (r#""store":false,"stor\u0065":true"#, r#""store":false"#, r#""store":null"#),
];

/// Chat: OpenRouter's server tools. The last ones are the short names that it takes for its paid search.
#[rustfmt::skip]
const CHAT_TOOLS: &[Case] = &[
    (r#""tools":[{"type":"openrouter:web_search"}]"#, "", r#""tools":[{"type":"function","function":{"name":"web_search"}}]"#),
    (r#""tools":[{"type":"openrouter:web_fetch"}],"tool_choice":"auto""#, "", r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"auto""#),
    (r#""tools":[{"type":"openrouter:fusion"}],"parallel_tool_calls":true"#, "", r#""tools":[{"type":"function","function":{"name":"f"}}],"parallel_tool_calls":true"#),
    (r#""tool_choice":"required","tools":[{"type":"openrouter:advisor","model":"o3"}]"#, "", r#""tool_choice":"required","tools":[{"type":"function","function":{"name":"f"}}]"#),
    (r#""tools":[{"type":"openrouter:subagent"},{"type":"function","function":{"name":"f"}}]"#, r#""tools":[{"type":"function","function":{"name":"f"}}]"#, r#""tools":[{"function":{"name":"f"},"type":"function"},{"type":"function","function":{"name":"g"}}]"#),
    (r#""tools":[{"type":"openrouter:image_generation"},{"type":"openrouter:bash"}]"#, "", r#""tools":[{"type":"function","function":{"name":"openrouter:bash"}}]"#),
    (r#""tools":[{"typ\u0065":"openrouter:web_search"}]"#, "", r#""tools":[{"typ\u0065":"function","function":{"name":"f"}}]"#),
    (r#""tools":[{"type":"openrouter\u003aweb_search"}]"#, "", r#""tools":[{"type":"\u0066unction","function":{"name":"f"}}]"#),
    (r#""tools":[{"type":"function","type":"openrouter:web_search"}]"#, "", r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"openrouter:web_search"}}}]"#),
    (r#""tools":[{"type":"openrouter:brand_new_thing"}]"#, "", r#""tools":[{"type":"function","function":{"name":"f","description":"openrouter:"}}]"#),
    (r#""tools":[],"tools":[{"type":"openrouter:web_search"}]"#, "", r#""tools":[{"type":"function","function":{"name":"f"}}],"x_tools":[{"type":"openrouter:web_search"}]"#),
    (r#""t\u006fols":[{"type":"openrouter:web_search"}]"#, "", r#""t\u006fols":[{"type":"function","function":{"name":"f"}}]"#),
    (r#""tools":[{"type":"web_search"}]"#, "", r#""tools":[{"type":"function","function":{"name":"web"}}]"#),
    (r#""tools":[{"type":"web_search_preview"}]"#, "", r#""tools":[{"type":"function","function":{"name":"preview"}}]"#),
    (r#""tools":[{"type":"web_search_preview_2025_03_11"}]"#, "", r#""tools":[{"type":"function","function":{"name":"03"}}]"#),
    (r#""tools":[{"type":"web_search_2025_08_26"},{"type":"function","function":{"name":"f"}}]"#, r#""tools":[{"type":"function","function":{"name":"f"}}]"#, r#""tools":[{"type":"function","function":{"name":"08"}}]"#),
];

/// In all places: what the upstream runs without a fee stays. A choice that names what isn't there goes, whether it went or
/// never was.
#[rustfmt::skip]
const FREE_SERVER_TOOLS: &[Case] = &[
    (r#""tools":[{"type":"openrouter:tool_searching"}]"#, "", r#""tools":[{"type":"openrouter:tool_search"}]"#),
    (r#""tools":[{"type":"openrouter:datetime"},{"type":"openrouter:web_search"}]"#, r#""tools":[{"type":"openrouter:datetime"}]"#, r#""tools":[{"type":"openrouter:datetime","parameters":{"timezone":"UTC"}}]"#),
    (r#""tools":[{"type":"openrouter:apply_patch"},{"type":"openrouter:bash"}],"tool_choice":"auto""#, r#""tools":[{"type":"openrouter:apply_patch"}],"tool_choice":"auto""#, r#""tools":[{"type":"openrouter:apply_patch"}],"tool_choice":"auto""#),
    (r#""tools":[{"type":"openrouter:datetime"}],"tool_choice":{"type":"openrouter:web_search"}"#, r#""tools":[{"type":"openrouter:datetime"}]"#, r#""tools":[{"type":"openrouter:datetime"}],"tool_choice":{"type":"openrouter:datetime"}"#),
    (r#""tools":[],"tool_choice":{"type":"function","name":"f"}"#, r#""tools":[]"#, r#""tools":[],"tool_choice":"none""#),
    (r#""tool_choice":{"type":"web_search"}"#, "", r#""tool_choice":"auto""#),
    (r#""tools":[{"type":"openrouter:datetime"},{"type":"openrouter:datetime","type":"openrouter:fusion"}]"#, r#""tools":[{"type":"openrouter:datetime"}]"#, r#""tools":[{"type":"openrouter\u003adatetime"}]"#),
];

/// Likewise, of tools as each API has them.
#[rustfmt::skip]
const MISSING_CHOICES: &[(&Place, Case)] = &[
    (&CHAT, (r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"g"}}"#, r#""tools":[{"type":"function","function":{"name":"f"}}]"#, r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}}"#)),
    (&CHAT, (r#""tool_choice":{"type":"function","function":{"name":"g"}}"#, "", r#""tool_choice":"required""#)),
    (&CHAT, (r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"g"}},{"type":"function","function":{"name":"f"}}]}}"#, r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"f"}}]}}"#, r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"f"}}]}}"#)),
    (&CHAT, (r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"},"type":"openrouter:fusion"}"#, r#""tools":[{"type":"function","function":{"name":"f"}}]"#, "")),
    (&RESPONSES, (r#""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"}"#, r#""tools":[{"type":"function","name":"f"}]"#, r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"g"}]}],"tool_choice":{"type":"function","name":"g"}"#)),
    (&RESPONSES, (r#""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"web_search_preview"}"#, r#""tools":[{"type":"function","name":"f"}]"#, r#""tools":[{"type":"tool_search"}],"tool_choice":{"type":"tool_search"}"#)),
    (&RESPONSES, (r#""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"allowed_tools","tools":[]},{"type":"mcp"}]}"#, r#""tools":[{"type":"function","name":"f"}]"#, r#""tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}"#)),
    (&MESSAGES, (r#""tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool","name":"g"}"#, r#""tools":[{"name":"f","input_schema":{}}]"#, r#""tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool","name":"f"}"#)),
    (&MESSAGES, (r#""tool_choice":{"type":"tool","name":"g"}"#, "", r#""tool_choice":{"type":"none"}"#)),
];

/// Responses: what would have been told beside the answer by a tool that went.
#[rustfmt::skip]
const TOLD_BESIDE: &[Case] = &[
    (r#""tools":[{"type":"web_search"},{"type":"function","name":"f"}],"include":["web_search_call.action.sources","reasoning.encrypted_content"]"#, r#""tools":[{"type":"function","name":"f"}],"include":["reasoning.encrypted_content"]"#, r#""tools":[{"type":"function","name":"f"}],"include":["web_search_call.action.sources","reasoning.encrypted_content"]"#),
    (r#""include":["web_search_call.results"],"tools":[{"type":"web_search_preview"}]"#, "", r#""include":[]"#),
    (r#""include":["file_search_call.results","computer_call_output.output.image_url","message.input_image.image_url"],"tools":[{"type":"computer_use_preview"},{"type":"file_search"}]"#, r#""include":["message.input_image.image_url"]"#, r#""include":["file_search_call.results"]"#),
    (r#""include":["code_interpreter_call.outputs","web_search_call.results"],"tools":[{"type":"code_interpreter"}]"#, r#""include":["web_search_call.results"]"#, r#""include":["code_interpreter_call.outputs"],"tools":[{"type":"custom","name":"c"}]"#),
    (r#""include":["web_search_call.results"],"tools":[{"type":"openrouter:web_search"}]"#, "", r#""include":null"#),
    (r#""include":["we\u0062_search_call.results"],"tools":[{"type":"web_search"}]"#, "", r#""include":"web_search_call.results""#),
];

/// Responses: only what its client runs itself, wherever tools can stand.
#[rustfmt::skip]
const RESPONSES_TOOLS: &[Case] = &[
    (r#""tools":[{"type":"web_search"}]"#, "", r#""tools":[{"type":"function","name":"web_search","parameters":{}}]"#),
    (r#""tools":[{"type":"web_search_preview"}],"tool_choice":"auto""#, "", r#""tools":[{"type":"custom","name":"c"}],"tool_choice":"auto""#),
    (r#""tools":[{"type":"web_search_2025_08_26"}],"parallel_tool_calls":false"#, "", r#""tools":[{"type":"custom","name":"c"}],"parallel_tool_calls":false"#),
    (r#""tools":[{"type":"file_search","vector_store_ids":["v"]}]"#, "", r#""tools":[{"type":"function","name":"file_search","parameters":{"type":"object"}}]"#),
    (r#""tools":[{"type":"code_interpreter","container":{"type":"auto"}}]"#, "", r#""tools":[{"type":"apply_patch"}]"#),
    (r#""tools":[{"type":"image_generation","model":"o3"}]"#, "", r#""tools":[{"type":"tool_search"}]"#),
    (r#""tools":[{"type":"mcp","server_url":"https://x"}]"#, "", r#""tools":[{"type":"namespace","name":"mcp","tools":[{"type":"function","name":"f"}]}]"#),
    (r#""tools":[{"type":"computer_use_preview"}]"#, "", r#""tools":[{"type":"custom","name":"computer_use_preview"}]"#),
    (r#""tools":[{"type":"shell"}]"#, "", r#""tools":[{"type":"function","name":"shell"}]"#),
    (r#""tools":[{"type":"local_shell"}]"#, "", r#""tools":[{"type":"function","name":"local_shell"}]"#),
    (r#""tools":[{"type":"openrouter:advisor","model":"o3"}]"#, "", r#""tools":[{"type":"function","name":"advisor"}]"#),
    (r#""tools":[{"type":"openrouter:web_search"}]"#, "", r#""tools":[{"type":"function","name":"openrouter"}]"#),
    (r#""tools":[{"name":"f"}]"#, "", r#""tools":[{"name":"f","type":"function"}]"#),
    (r#""tools":[{"type":7}]"#, "", r#""tools":[{"type":"function","name":"seven"}]"#),
    (r#""tools":[{"type":"web_search"},{"type":"function","name":"f"}]"#, r#""tools":[{"type":"function","name":"f"}]"#, r#""tools":[{"type":"function","name":"g"},{"type":"function","name":"f"}]"#),
    (r#""tools":[{"type":"function","type":"web_search"}]"#, "", r#""tools":[{"type":"function","name":"web_search","strict":null}]"#),
    (r#""tools":[{"type":"web\u005fsearch"},{"type":"custom","name":"c"}],"tool_choice":"required""#, r#""tools":[{"type":"custom","name":"c"}],"tool_choice":"required""#, r#""tools":[{"type":"custom","name":"c"}],"tool_choice":"required""#),
];

/// Responses: tools in items of the input. These bring their own `input`.
#[rustfmt::skip]
const RESPONSES_INPUT: &[Case] = &[
    (r#""input":[{"type":"tool_search_output","call_id":"c","tools":[{"type":"web_search"},{"type":"function","name":"f"}]}]"#, r#""input":[{"type":"tool_search_output","call_id":"c","tools":[{"type":"function","name":"f"}]}]"#, r#""input":[{"type":"tool_search_output","call_id":"c","tools":[{"type":"function","name":"f"}]}]"#),
    (r#""input":[{"type":"tool_search_output","call_id":"c","tools":[{"type":"mcp"}]}]"#, r#""input":[{"type":"tool_search_output","call_id":"c","tools":[]}]"#, r#""input":[{"type":"tool_search_output","call_id":"c","tools":[]}]"#),
    (r#""input":[{"type":"additional_tools","role":"developer","tools":[{"type":"web_search"},{"type":"function","name":"f"}]}]"#, r#""input":[{"type":"additional_tools","role":"developer","tools":[{"type":"function","name":"f"}]}]"#, r#""input":[{"type":"additional_tools","role":"developer","tools":[{"type":"function","name":"f"}]}]"#),
    (r#""input":[{"type":"message","role":"user","content":"hi"},{"type":"additional_tools","tools":[{"type":"custom","name":"c"},{"type":"mcp"}]}]"#, r#""input":[{"type":"message","role":"user","content":"hi"},{"type":"additional_tools","tools":[{"type":"custom","name":"c"}]}]"#, r#""input":[{"type":"message","role":"user","content":"hi"},{"type":"additional_tools","tools":[{"type":"custom","name":"c"}]}]"#),
    (r#""input":[{"typ\u0065":"additional_tools","t\u006fols":[{"type":"shell"},{"type":"function","name":"f"}]}]"#, r#""input":[{"type":"additional_tools","tools":[{"type":"function","name":"f"}]}]"#, r#""input":[{"typ\u0065":"additional_tools","t\u006fols":[{"type":"function","name":"f"}]}]"#),
    (r#""input":[{"type":"message","type":"additional_tools","tools":[{"type":"function","name":"f"},{"type":"openrouter:fusion"}]}]"#, r#""input":[{"type":"additional_tools","tools":[{"type":"function","name":"f"}]}]"#, r#""input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"additional_tools"}]}]"#),
    (r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"},{"type":"web_search"}]}],"input":"x""#, r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]}],"input":"x""#, r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"custom","name":"f"}]}],"input":"x""#),
    // Namespaces hold functions; what isn't as it should be can't be known to be free.
    (r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"},{"type":"namespace","name":"m","tools":[{"type":"function","name":"g"}]}]}],"tool_choice":{"type":"function","name":"g"},"input":"x""#, r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]}],"tool_choice":"auto","input":"x""#, r#""tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"},{"type":"custom","name":"g"}]}],"input":"x""#),
    (r#""tools":[{"type":"namespace","name":"n","tools":{"0":{"type":"web_search"}}},{"type":"apply_patch"}],"input":"x""#, r#""tools":[{"type":"apply_patch"}],"input":"x""#, r#""tools":[{"type":"namespace","name":"n","tools":[]}],"input":"x""#),
    (r#""tools":[{"type":"namespace","name":"n","tools":"web_search"}],"tool_choice":{"type":"namespace","name":"n"},"input":"x""#, r#""input":"x""#, r#""tools":[{"type":"namespace","name":"n","tools":null}],"input":"x""#),
    (r#""input":{"type":"additional_tools","tools":[{"type":"web_search"},{"type":"function","name":"f"}]}"#, r#""input":{"type":"additional_tools","tools":[{"type":"function","name":"f"}]}"#, r#""input":{"type":"additional_tools","tools":[{"type":"function","name":"f"}]}"#),
    (r#""n":1,"input":{"type":"additional_tools","tools":[{"type":"web_search"}]}"#, r#""n":1"#, r#""input":{"type":"message","content":"additional_tools"}"#),
    (r#""input":[{"type":"message","content":"x"},{"type":"additional_tools","tools":{"type":"web_search"}}]"#, r#""input":[{"type":"message","content":"x"}]"#, r#""input":[{"type":"additional_tools","tools":[]}]"#),
    (r#""input":[{"type":"additional_tools","tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"},{"type":"mcp"}]}]}]"#, r#""input":[{"type":"additional_tools","tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]}]}]"#, r#""input":[{"type":"additional_tools","tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]}]}]"#),
];

#[rustfmt::skip]
const MESSAGES_TOOLS: &[Case] = &[
    (r#""fallbacks":[{"model":"claude-opus-5"}]"#, "", r#""fallbacks":[{"model":"c/d:free"}]"#),
    (r#""fallbacks":[{"model":"o3"},{"model":"c/d:free"}]"#, r#""fallbacks":[{"model":"c/d:free"}]"#, r#""fallbacks":[{"model":"c/d:free"},{"model":"e:free"}]"#),
    (r#""fallbacks":["o3",7,{"model":["o3"]}]"#, "", r#""fallback":["o3"]"#),
    (r#""fallbacks":[{"model":"c:free","model":"o3"}]"#, "", r#""fallbacks":[{"mod\u0065l":"c:free"}]"#),
    (r#""fallbacks":"o3""#, "", r#""fallback":"o3""#),
    (r#""fallb\u0061cks":[{"model":"o3"}]"#, "", r#""fallb\u0061cks":[{"model":"c:free"}]"#),
    (r#""mcp_servers":[{"type":"url","url":"https://x","name":"x"}]"#, "", r#""metadata":{"mcp_servers":[]}"#),
    (r#""container":"c_1""#, "", r#""metadata":{"container":"c_1"}"#),
    (r#""container":{"skills":[{"type":"anthropic","skill_id":"pdf"}]}"#, "", r#""thinking":{"type":"adaptive"}"#),
    (r#""tools":[{"type":"web_search_20250305","name":"web_search","max_uses":5}]"#, "", r#""tools":[{"name":"web_search","input_schema":{"type":"object"}}]"#),
    (r#""tools":[{"type":"web_search_20260209","name":"web_search"}],"tool_choice":{"type":"any"}"#, "", r#""tools":[{"type":"custom","name":"w","input_schema":{}}],"tool_choice":{"type":"any"}"#),
    (r#""tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]"#, "", r#""tools":[{"type":"bash_20250124","name":"bash"}]"#),
    (r#""tools":[{"type":"code_execution_20250825","name":"code_execution"}]"#, "", r#""tools":[{"type":"text_editor_20250728","name":"e"}]"#),
    (r#""tools":[{"type":"advisor_20260301","name":"advisor","model":"o3"}]"#, "", r#""tools":[{"type":"computer_20250124","name":"computer"}]"#),
    (r#""tools":[{"type":"mcp_toolset","mcp_server_name":"x"}]"#, "", r#""tools":[{"type":"memory_20250818","name":"memory"}]"#),
    (r#""tools":[{"type":"openrouter:web_search"}]"#, "", r#""tools":[{"type":"tool_search_tool_regex_20251119","name":"t"}]"#),
    (r#""tools":[{"type":"openrouter:shell"},{"name":"f","input_schema":{}}]"#, r#""tools":[{"name":"f","input_schema":{}}]"#, r#""tools":[{"name":"f","input_schema":{}},{"name":"g","input_schema":{}}]"#),
    (r#""tools":[{"type":"some_new_tool"}]"#, "", r#""tools":[{"name":"some_new_tool","input_schema":{}}]"#),
    (r#""tools":[{"type":"custom","type":"web_search_20250305"}]"#, "", r#""tools":[{"type":"custom","name":"c"}]"#),
    (r#""tools":[{"typ\u0065":"web_search_20250305"}]"#, "", r#""tools":[{"typ\u0065":"custom","name":"c"}]"#),
    (r#""tools":[{"type":["web_search_20250305"]}]"#, "", r#""tools":[{"name":"c","input_schema":{"type":["x"]}}]"#),
];

/// A `tool_choice` that names what went from the tools.
#[rustfmt::skip]
const CHOICES: &[(&Place, &str)] = &[
    (&CHAT, r#""tools":[{"type":"openrouter:web_search"},{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"openrouter:web_search"}"#),
    (&RESPONSES, r#""tools":[{"type":"web_search"},{"type":"function","name":"f"}],"tool_choice":{"type":"web_search"}"#),
    (&RESPONSES, r#""tools":[{"type":"web_search_preview"},{"type":"custom","name":"f"}],"tool_choice":{"type":"web_search_preview"}"#),
    (&RESPONSES, r#""tool_choice":{"type":"shell"},"tools":[{"type":"shell"},{"type":"function","name":"f"}]"#),
    (&RESPONSES, r#""tools":[{"type":"mcp","server_label":"s"},{"type":"function","name":"f"}],"tool_choice":{"type":"mcp","server_label":"s"}"#),
    (&RESPONSES, r#""tools":[{"type":"image_generation"},{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"image_generation"}]}"#),
    (&RESPONSES, r#""tools":[{"type":"mcp","server_label":"s"},{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"mcp","server_label":"s"},{"type":"function","name":"f"}]}"#),
    (&MESSAGES, r#""tools":[{"type":"web_search_20250305","name":"web_search"},{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool","name":"web_search"}"#),
    (&MESSAGES, r#""tools":[{"name":"f","input_schema":{}},{"type":"advisor_20260301","name":"advisor","model":"o3"}],"tool_choice":{"type":"tool","name":"advisor"}"#),
];

/// One that names what stayed.
#[rustfmt::skip]
const KEPT_CHOICES: &[(&Place, &str)] = &[
    (&CHAT, r#""tool_choice":{"type":"function","function":{"name":"f"}},"tools":[{"type":"openrouter:web_search"},{"type":"function","function":{"name":"f"}}]"#),
    (&RESPONSES, r#""tool_choice":{"type":"function","name":"f"},"tools":[{"type":"web_search"},{"type":"function","name":"f"}]"#),
    (&RESPONSES, r#""tool_choice":{"type":"custom","name":"web_search"},"tools":[{"type":"custom","name":"web_search"},{"type":"web_search"}]"#),
    (&RESPONSES, r#""tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]},"tools":[{"type":"web_search"},{"type":"function","name":"f"}]"#),
    (&RESPONSES, r#""tool_choice":{"type":"apply_patch"},"tools":[{"type":"web_search"},{"type":"apply_patch"}]"#),
    (&MESSAGES, r#""tool_choice":{"type":"tool","name":"f"},"tools":[{"type":"web_search_20250305","name":"web_search"},{"name":"f","input_schema":{}}]"#),
    (&MESSAGES, r#""tool_choice":{"type":"any"},"tools":[{"name":"f","input_schema":{}},{"type":"web_search_20250305","name":"web_search"}]"#),
];

/// Wherever a file can stand. Each has all of its fields.
#[rustfmt::skip]
const FILES: &[(&str, &str)] = &[
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,JVBE"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"text","text":"read"},{"type":"file","file":{"file_data":"https://x/a.pdf"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":"hi"},{"role":"user","content":[{"type":"file","file":{"file_id":"f_1"}}]},{"role":"user","content":"and"}]"#),
    (CHAT.path, r#""messages":[{"role":"tool","tool_call_id":"c","content":[{"type":"file","file":{"file_data":"https://x/a"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"assistant","content":[{"type":"file","file":{"file_data":"https://x/a"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":[{"typ\u0065":"f\u0069le","file":{"file_data":"https://x/a"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"text","type":"file","file":{"file_data":"https://x/a"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":"x","content":[{"type":"file","file":{"file_data":"https://x/a"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:application/pdf;base64,JVBE"}}]}]"#),
    (CHAT.path, r#""messages":[],"messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"https://x/a"}}]}]"#),
    (COMPLETIONS.path, r#""messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"https://x/a.pdf"}}]}]"#),
    (RESPONSES.path, r#""input":[{"role":"user","content":[{"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,JVBE"}]}]"#),
    (RESPONSES.path, r#""input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"read"},{"type":"input_file","file_url":"https://x/a.pdf"}]}]"#),
    (RESPONSES.path, r#""input":[{"role":"user","content":[{"type":"input_file","file_id":"f_1"}]},{"role":"user","content":"and"}]"#),
    (RESPONSES.path, r#""input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_file","file_url":"https://x/a"}]}]"#),
    (RESPONSES.path, r#""input":[{"type":"custom_tool_call_output","call_id":"c","output":[{"type":"input_text","text":"x"},{"type":"input_file","file_id":"f"}]}]"#),
    (RESPONSES.path, r#""input":[{"role":"user","content":[{"typ\u0065":"input\u005ffile","file_id":"f"}]}]"#),
    (RESPONSES.path, r#""input":"x","prompt":{"id":"p","variables":{"a":{"type":"input_file","file_url":"https://x/a.pdf"}}}"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"text","text":"read"},{"type":"document","source":{"type":"url","url":"https://x/a.pdf"}}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"f_1"}}]},{"role":"user","content":"and"}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}]}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"x"},{"type":"document","source":{"type":"url","url":"https://x/a"}}]}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"typ\u0065":"document","sourc\u0065":{"type":"b\u0061se64","media_type":"application/pdf","data":"JVBE"}}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"assistant","content":[{"type":"web_fetch_tool_result","tool_use_id":"s","content":{"type":"web_fetch_result","url":"https://x","content":{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}}}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"system","content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","type":"base64","media_type":"application/pdf","data":"JVBE"}}]}]"#),
];

/// By its address or its type, in any part.
#[rustfmt::skip]
const PDFS: &[(&str, &str)] = &[
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/a.pdf"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"image_url","image_url":"HTTPS://X/A.PDF?sig=1"}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"video_url","video_url":{"url":"https:\/\/x\/a.pd\u0066#page=2"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"data:application/pdf;base64,JVBE"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"tool","content":[{"type":"image_url","image_url":{"url":"https://x/get?name=a.pdf"}}]}]"#),
    (RESPONSES.path, r#""input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x/a.pdf"}]}]"#),
    (RESPONSES.path, r#""input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"data:application/pdf;base64,JVBE"}]}]"#),
    (RESPONSES.path, r#""input":[{"role":"user","content":[{"type":"input_video","video_url":"data:application/pdf,JVBE"}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://x/a.pdf"}}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image","source":{"type":"url","url":"https://x/a.pdf?x"}}]}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"new","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}]}]"#),
];

/// What looks a little like a file and is none: nothing may be added.
#[rustfmt::skip]
const NO_FILES: &[(&str, &str)] = &[
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"text","text":"{\"type\":\"file\"}"}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/file.png"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"file","parameters":{"type":"object","properties":{"type":{"enum":["file"]}}}}}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":"https://x/a.pdf"},{"role":"user","content":[{"type":"text","text":"https://x/a.pdf"}]}]"#),
    (CHAT.path, r#""messages":[{"role":"assistant","content":"x","annotations":[{"type":"url_citation","url_citation":{"url":"https://x/a.pdf"}}]}]"#),
    (CHAT.path, r#""messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/pdf.png"}}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"url":"https://x/a.pdf"}}]}]"#),
    (RESPONSES.path, r#""input":[{"role":"user","content":[{"type":"input_text","text":"input_file"}]}]"#),
    (RESPONSES.path, r#""input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x/a.png"}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"JVBE"}}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"document","source":{"type":"content","content":[{"type":"text","text":"x"}]}}]}]"#),
    (MESSAGES.path, r#""messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBO"}}]}]"#),
];

/// Ollama's: a request is translated, so that only what chat completions know of it goes on.
#[rustfmt::skip]
const OLLAMA: &[(&str, &str)] = &[
    ("/api/chat", r#""model":"llama3.2""#),
    ("/api/chat", r#""model":"llama3.2:latest""#),
    ("/api/chat", r#""model":"x:free:online""#),
    ("/api/chat", r#""model":"@preset/x:free""#),
    ("/api/chat", r#""model":"~vendor/family-latest:free""#),
    ("/api/generate", r#""model":"openrouter/fusion:free","prompt":"hello""#),
    ("/api/chat", r#""model":["openai/o3"]"#),
    ("/api/chat", r#""model":{"name":"openai/o3"}"#),
    ("/api/chat", r#""model":null"#),
    ("/api/chat", r#""model":"a/b:free","mod\u0065l":"openai/o3""#),
    ("/api/chat", r#""model":"x","models":["openai/o3"],"fallbacks":[{"model":"openai/o3"}]"#),
    ("/api/chat", r#""model":"x","preset":"paid","plugins":[{"id":"paid"}],"web_search_options":{"paid":1}"#),
    ("/api/chat", r#""model":"x","service_tier":"paid","speed":"paid","provider":{"order":["paid"]}"#),
    ("/api/chat", r#""model":"x","options":{"preset":"paid","plugins":[{"id":"paid"}],"web_search_options":{"paid":1}}"#),
    ("/api/chat", r#""model":"x","options":{"model":"openai/o3","models":["openai/o3"],"tools":[{"type":"openrouter:paid"}]}"#),
    ("/api/chat", r#""model":"x","tools":[{"type":"openrouter:paid"}]"#),
    ("/api/chat", r#""model":"x","tools":[{"type":"web_search"}]"#),
    ("/api/chat", r#""model":"x","tools":[{"typ\u0065":"openrouter\u003apaid"},{"type":"function","function":{"name":"f"}}]"#),
    ("/api/generate", r#""model":"gpt-4o","prompt":"hello""#),
    ("/api/generate", r#""model":"x","prompt":"hello","options":{"plugins":[{"id":"paid"}]},"preset":"paid""#),
    ("/api/generate", r#""prompt":"hello","images":["JVBERi0xLjQ="]"#),
];

/// Gemini's likewise: the model stands in the path.
#[rustfmt::skip]
const GEMINI: &[(&str, &str)] = &[
    ("gemini-2.5-pro", r#""x":1"#),
    ("x:free:online", r#""x":1"#),
    ("@preset%2Fx:free", r#""x":1"#),
    ("%40preset/x%3Afree", r#""x":1"#),
    ("openai%2Fo3", r#""x":1"#),
    ("models/openai/o3", r#""x":1"#),
    ("openrouter/fusion:free", r#""x":1"#),
    ("x", r#""model":"openai/o3","models":["openai/o3"],"fallbacks":[{"model":"openai/o3"}]"#),
    ("x", r#""preset":"paid","plugins":[{"id":"paid"}],"web_search_options":{"paid":1},"service_tier":"paid""#),
    ("x", r#""generationConfig":{"model":"openai/o3","preset":"paid","plugins":[{"id":"paid"}],"seed":1}"#),
    ("x", r#""tools":[{"type":"openrouter:paid","functionDeclarations":[{"name":"f","type":"openrouter:paid"}]},{"googleSearch":{"paid":1}}]"#),
    ("x", r#""tools":[{"function_declarations":[{"name":"f"}]},{"openrouter:paid":{}},{"web_search":{}}]"#),
    ("x", r#""toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["openrouter:paid"]}}"#),
    ("x", r#""systemInstruction":{"parts":[{"type":"paid","text":"be"}]},"cachedContent":"paid","safetySettings":[{"paid":1}]"#),
];

/// What no request may hold that came as Ollama's, or as Gemini's.
const PAID_WORDS: [&str; 11] = [
    "paid",
    "openai/o3",
    "gpt-4o",
    "preset",
    "online",
    "plugins",
    "web_search",
    "openrouter:",
    "fallbacks",
    "models",
    "application/pdf",
];

/// The fields of an object in their order, as they stand there: keys that stand twice do so here, too.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Everything that stands twice in one object, at any depth.
fn twice(json: &str) -> Vec<String> {
    if let Ok(Fields(fields)) = serde_json::from_str::<Fields>(json) {
        let mut names = fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        names.sort();
        let repeated = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone());
        return repeated.chain(fields.iter().flat_map(|(_, value)| twice(value.get()))).collect();
    }
    let elements = serde_json::from_str::<Vec<Box<RawValue>>>(json).unwrap_or_default();
    elements.iter().flat_map(|element| twice(element.get())).collect()
}

/// A body's fields in their order, behind the two whose place the contract leaves open.
fn parts(body: &str) -> Vec<(String, Value)> {
    let Fields(fields) = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    let parsed = fields.into_iter().map(|(name, value)| (name, serde_json::from_str(value.get()).unwrap()));
    let mut parsed = parsed.collect::<Vec<(String, Value)>>();
    parsed.sort_by_key(|(name, _)| ["model", "plugins"].iter().position(|open| open == name).unwrap_or(2));
    parsed
}

/// A body out of fields, of which some may be missing.
fn body(fields: &[&str]) -> String {
    let there = fields.iter().filter(|field| !field.is_empty()).copied().collect::<Vec<_>>();
    format!("{{{}}}", there.join(","))
}

/// A proxy and what reaches the upstream behind it. Failures are gathered, so that one run shows all.
struct Bench {
    upstream: Upstream,
    client: Connection,
    proxy: Proxy,
    failed: Vec<String>,
}

impl Bench {
    fn new(more: &str) -> Self {
        let upstream = Upstream::start(|request, answer| answer.json(200, plain_answer(&request.path)));
        let proxy = Proxy::before(&upstream, more);
        Self { upstream, client: proxy.connect(), proxy, failed: Vec::new() }
    }

    fn sent(&mut self, path: &str, body: &str) -> Received {
        let before = self.upstream.calls();
        let response = self.client.post(path, body);
        assert_eq!((response.status, self.upstream.calls()), (200, before + 1), "{body}: {response:?}");
        self.upstream.last()
    }

    fn check(&mut self, holds: bool, asked: &str, sent: &str, why: &str) -> bool {
        if !holds {
            self.failed.push(format!("{why}\n    asked: {asked}\n    sent:  {sent}"));
        }
        holds
    }

    /// What would cost money becomes this.
    fn becomes(&mut self, place: &Place, asked: &str, expected: &str) {
        let sent = self.sent(place.path, asked).body;
        self.check(parts(&sent) == parts(expected), asked, &sent, &format!("should have become {expected}"));
        self.check(sent.contains(place.own), asked, &sent, "what is free should have stayed as it was");
        self.check(twice(&sent).is_empty(), asked, &sent, "only one should have been sent");
    }

    fn passes(&mut self, path: &str, asked: &str) {
        let sent = self.sent(path, asked).body;
        self.check(sent == asked, asked, &sent, "should have passed byte for byte");
    }

    fn cases(&mut self, place: &Place, before: &str, cases: &[Case]) {
        for (paid, becomes, free) in cases {
            let becomes = becomes.replace("MODEL", place.model);
            self.becomes(place, &body(&[before, paid, place.own]), &body(&[before, &becomes, place.own]));
            self.passes(place.path, &body(&[before, free, place.own]));
        }
    }

    fn finish(self) {
        let Self { failed, proxy, .. } = self;
        drop(proxy); // its console says nothing that helps here
        assert!(failed.is_empty(), "{} failed:\n  {}", failed.len(), failed.join("\n  "));
    }
}

const FREE: &str = r#""model":"a/b:free""#;

#[test]
fn models_in_every_dialect() {
    let mut bench = Bench::new("EMBEDDING_MODEL=embed/one:free");
    for place in [CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS] {
        bench.cases(&place, "", MODELS);
    }
    bench.finish();
}

#[test]
fn paid_extras_in_every_dialect() {
    let mut bench = Bench::new("");
    for place in [CHAT, COMPLETIONS, RESPONSES, MESSAGES] {
        bench.cases(&place, FREE, EXTRAS);
    }
    bench.cases(&CHAT, FREE, CHAT_TOOLS);
    bench.cases(&RESPONSES, FREE, RESPONSES_TOOLS);
    bench.cases(&MESSAGES, FREE, MESSAGES_TOOLS);
    for place in [CHAT, COMPLETIONS, RESPONSES, MESSAGES] {
        bench.cases(&place, FREE, FREE_SERVER_TOOLS);
        if place.path != MESSAGES.path {
            let fallbacks =
                (r#""fallbacks":[{"model":"c/d:free"}]"#, "", r#""fallback":[{"model":"c/d:free"}]"#);
            bench.cases(&place, FREE, &[fallbacks]);
        }
    }
    for (place, case) in MISSING_CHOICES {
        bench.cases(place, FREE, &[*case]);
    }
    bench.cases(&RESPONSES, FREE, TOLD_BESIDE);
    bench.cases(&Place { own: "", ..RESPONSES }, FREE, RESPONSES_INPUT);
    bench.finish();
}

#[test]
fn a_choice_of_a_tool_that_went_is_mended() {
    let mut bench = Bench::new("");
    for (place, fields) in CHOICES {
        let asked = body(&[FREE, fields, place.own]);
        let sent = bench.sent(place.path, &asked);
        let json = sent.json();
        let choice = &json["tool_choice"];
        let allows_what_stayed = choice["type"] == "allowed_tools" && choice["tools"] == json["tools"];
        let names_nothing = choice.is_null()
            || allows_what_stayed
            || ["auto", "required", "none"].map(Value::from).contains(choice)
            || [json!({"type": "auto"}), json!({"type": "any"})].contains(choice);
        bench.check(names_nothing, &asked, &sent.body, "names a tool that went");
        let tools = json["tools"].as_array().map_or(0, Vec::len);
        bench.check(tools == 1, &asked, &sent.body, "the other tool should have stayed");
    }
    for (place, fields) in KEPT_CHOICES {
        let asked = body(&[FREE, fields, place.own]);
        let sent = bench.sent(place.path, &asked);
        let choice = |text: &str| serde_json::from_str::<Value>(text).unwrap()["tool_choice"].clone();
        bench.check(choice(&sent.body) == choice(&asked), &asked, &sent.body, "should have stayed");
        let tools = sent.json()["tools"].as_array().map_or(0, Vec::len);
        bench.check(tools == 1, &asked, &sent.body, "one tool should have gone, and one stayed");
    }
    bench.finish();
}

#[test]
fn files_get_the_free_engine() {
    let mut bench = Bench::new("");
    let free_plugins = r#""plugins":[{"id":"file-parser","pdf":{"engine":"cloudflare-ai"}}]"#;
    let paid_engines = [
        "",
        r#""plugins":[{"id":"file-parser","pdf":{"engine":"mistral-ocr"}}]"#,
        r#""plugins":[{"id":"file-parser"}]"#,
        r#""plugins":[{"id":"file-parser","pdf":{"engine":"native"}},{"id":"web"}]"#,
        r#""plugins":[{"id":"file-parser","pdf":{"engine":"cloudflare-ai","engine":"mistral-ocr"}}]"#,
        r#""plugins":[{"id":"file-parser","pdf":{"engine":"cloudflare-ai"}},{"id":"file-parser","pdf":{"engine":"mistral-ocr"}}]"#,
    ];
    for (path, fields) in FILES.iter().chain(PDFS) {
        let gets_the_free_engine = paid_engines.iter().all(|plugins| {
            let asked = body(&[FREE, fields, plugins]);
            let sent = bench.sent(path, &asked);
            let free =
                sent.json()["plugins"] == json!([{"id": "file-parser", "pdf": {"engine": "cloudflare-ai"}}]);
            bench.check(free, &asked, &sent.body, "should have got the free engine alone")
                && bench.check(
                    !sent.body.contains("mistral"),
                    &asked,
                    &sent.body,
                    "still names a paid engine",
                )
        });
        if !gets_the_free_engine {
            continue; // which says enough
        }
        // One that was switched off would not be the free one.
        let asked = body(&[
            FREE,
            fields,
            r#""plugins":[{"id":"file-parser","enabled":false},{"id":"web","enabled":false}]"#,
        ]);
        let sent = bench.sent(path, &asked);
        let expected = json!([{"id": "web", "enabled": false}, {"id": "file-parser", "pdf": {"engine": "cloudflare-ai"}}]);
        bench.check(
            sent.json()["plugins"] == expected,
            &asked,
            &sent.body,
            "should have one parser, the free one",
        );
        // Beside what else is free.
        let asked = body(&[FREE, fields, r#""plugins":[{"id":"response-healing"}]"#]);
        let sent = bench.sent(path, &asked);
        let plugins = sent.json()["plugins"].to_string();
        let both = ["response-healing", "cloudflare-ai"].iter().all(|id| plugins.contains(id));
        bench.check(both, &asked, &sent.body, "should have kept the healing beside the free engine");
        let asked = body(&[FREE, fields, free_plugins]);
        if twice(&asked).is_empty() {
            bench.passes(path, &asked);
        }
    }
    for (path, fields) in NO_FILES {
        bench.passes(path, &body(&[FREE, fields]));
    }
    bench.finish();
}

#[test]
fn a_model_replaced_is_visible_in_every_dialect() {
    let mut bench = Bench::new("MODEL=my/choice:free\nEMBEDDING_MODEL=embed/one:free");
    for place in [CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS] {
        let stands_in = if place.path == EMBEDDINGS.path { "embed/one:free" } else { "my/choice:free" };
        let response = bench.client.post(place.path, &body(&[r#""model":"gpt-4o""#, place.own]));
        let said = format!("gpt-4o -> {stands_in}");
        assert_eq!(response.header("x-proxy-model"), Some(said.as_str()), "{}", place.path);
        assert_eq!(bench.upstream.last().json()["model"], stands_in);
        let free = bench.client.post(place.path, &body(&[FREE, place.own]));
        assert_eq!(free.header("x-proxy-model"), None, "{}", place.path);
    }
}

/// Neither a header nor a query nor another path is a way around.
#[test]
fn nothing_beside_the_body_brings_in_a_paid_extra() {
    let mut bench = Bench::new("EMBEDDING_MODEL=embed/one:free");
    let goes_upstream = [
        "host",
        "authorization",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "user-agent",
        "http-referer",
        "x-title",
        "x-openrouter-title",
        "anthropic-version",
        "anthropic-beta",
        // By which a request is known that comes back to the proxy itself.
        "x-local-api-proxy-hops",
    ];
    for place in [CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS] {
        let body = body(&[FREE, place.own]);
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nX-OpenRouter-Fusion-Depth: 1\r\nX-OpenRouter-Plugins: web\r\n\
             X-OpenRouter-Preset: mine\r\nX-OpenRouter-Model: openai/o3\r\nX-OpenRouter-Provider: x\r\nX-Model: o3\r\n\
             X-Anthropic-Beta: web-fetch-2025-09-10\r\nOpenAI-Beta: x\r\nX-Api-Key: sk-other\r\nHelicone-Fallbacks: o3\r\n\
             Anthropic-Version: 2023-06-01\r\nContent-Length: {}\r\n\r\n{body}",
            place.path,
            body.len()
        );
        bench.client.exchange(&request).assert_status(200);
        for (name, value) in bench.upstream.last().headers {
            let expected = goes_upstream.contains(&name.to_ascii_lowercase().as_str());
            bench.check(expected, place.path, &format!("{name}: {value}"), "should not have gone upstream");
        }
    }
    for place in [CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS] {
        let path = format!("{}?model=openai/o3&plugins=web&preset=mine", place.path);
        let sent = bench.sent(&path, &body(&[FREE, place.own]));
        bench.check(!sent.path.contains('?'), &path, &sent.path, "should have gone without the query");
    }
    assert_eq!(bench.sent(MESSAGES.path, &body(&[FREE, MESSAGES.own])).path, "/api/v1/messages?beta=true");
    let calls = bench.upstream.calls();
    for path in ["/v1/presets/mine/messages", "/v1/presets/mine/chat/completions", "/presets/mine/responses"]
    {
        bench.proxy.post(path, &body(&[FREE, MESSAGES.own])).assert_status(404);
    }
    bench.proxy.post("/v1/messages/count_tokens", &body(&[MESSAGES.own])).assert_status(200);
    assert_eq!(bench.upstream.calls(), calls, "neither is forwarded");
    bench.finish();
}

#[test]
fn the_rule_can_be_switched_off_in_every_dialect() {
    let mut bench = Bench::new("ALLOW_PAID_MODELS=true");
    let dear = r#""model":"o3","models":["o3"],"fallbacks":[{"model":"o3"}],"preset":"x","plugins":[{"id":"web"}],"tools":[{"type":"web_search"},{"type":"openrouter:fusion"}],"tool_choice":{"type":"web_search"},"service_tier":"priority","speed":"fast","web_search_options":{},"container":"c","mcp_servers":[]"#;
    for place in [CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS] {
        bench.passes(place.path, &body(&[dear, place.own]));
    }
    bench.finish();
}

#[test]
fn embeddings_need_a_free_embedding_model() {
    let upstream = Upstream::start(|request, answer| match request.path.as_str() {
        "/api/v1/embeddings/models" => answer.json(
            200,
            r#"{"data":[{"id":"open/embed-3-large"},{"id":"n/embed-1b:free"},{"id":"other/embed:free"}]}"#,
        ),
        _ => answer.json(200, VECTORS),
    });
    let proxy = Proxy::before(&upstream, "");
    for asked in [
        r#"{"model":"text-embedding-3-small","input":"x"}"#,
        r#"{"input":"x"}"#,
        r#"{"model":7,"input":"x"}"#,
    ] {
        let refused = proxy.post("/v1/embeddings", asked);
        refused.assert_status(400);
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("n/embed-1b:free") && message.contains("other/embed:free"), "{message}");
        assert!(!message.contains("embed-3-large"), "{message}");
    }
    let list = proxy.get("/v1/embeddings/models").json();
    let ids = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect::<Vec<_>>();
    assert_eq!(ids, ["n/embed-1b:free", "other/embed:free"], "the free ones, without the router that chats");
    let spent = upstream.received().iter().filter(|request| request.path.ends_with("/embeddings")).count();
    assert_eq!(spent, 0);
    let free = r#"{"model":"n/embed-1b:free","input":["x",[1,2]],"dimensions":2.0}"#;
    assert_eq!(proxy.post("/v1/embeddings", free).text(), VECTORS);
    assert_eq!(upstream.last().body, free);
}

#[test]
fn geminis_requests_bring_in_nothing_paid() {
    let mut bench = Bench::new("EMBEDDING_MODEL=embed/one:free");
    let own = r#""contents":[{"role":"user","parts":[{"text":"hello"}]}]"#;
    for (model, fields) in GEMINI {
        for path in ["/v1beta/models", "/v1/models", "/models"] {
            let asked = body(&[fields, own]);
            let sent = bench.sent(&format!("{path}/{model}:generateContent"), &asked);
            bench.check(
                sent.json()["model"] == "openrouter/free",
                model,
                &sent.body,
                "should have become free",
            );
            for word in PAID_WORDS {
                bench.check(!sent.body.contains(word), &asked, &sent.body, word);
            }
            bench.check(twice(&sent.body).is_empty(), &asked, &sent.body, "only one should have been sent");
        }
    }
    for (model, sent) in [("gemini-embedding-001", "embed/one:free"), ("o/embed:free", "o/embed:free")] {
        let path = format!("/v1beta/models/{model}:embedContent");
        let embedding = bench.sent(&path, r#"{"content":{"parts":[{"text":"x"}]},"model":"openai/o3"}"#);
        assert_eq!(
            (embedding.path.as_str(), &embedding.json()["model"]),
            ("/api/v1/embeddings", &json!(sent))
        );
    }
    bench.finish();
}

#[test]
fn ollamas_requests_bring_in_nothing_paid() {
    let mut bench = Bench::new("EMBEDDING_MODEL=embed/one:free");
    let own = r#""stream":false,"messages":[{"role":"user","content":"hello"}]"#;
    for (path, fields) in OLLAMA {
        let asked = body(&[fields, own]);
        let sent = bench.sent(path, &asked);
        bench.check(sent.json()["model"] == "openrouter/free", &asked, &sent.body, "should have become free");
        for word in PAID_WORDS {
            bench.check(!sent.body.contains(word), &asked, &sent.body, word);
        }
        bench.check(twice(&sent.body).is_empty(), &asked, &sent.body, "only one should have been sent");
    }
    // One that is no image, whatever it says: with the free engine, or not at all.
    for pdf in ["data:application/pdf;base64,JVBERi0xLjQ=", "DATA:application/pdf;base64,JVBERi0xLjQ="] {
        let asked = format!(r#"{{"model":"x","stream":false,"prompt":"read","images":["{pdf}"]}}"#);
        let sent = bench.sent("/api/generate", &asked).body;
        let free = sent.contains(r#"{"id":"file-parser","pdf":{"engine":"cloudflare-ai"}}"#);
        bench.check(
            free || !sent.contains("application/pdf"),
            &asked,
            &sent,
            "should have got the free engine",
        );
    }
    for (path, free) in [("/api/chat", ""), ("/api/generate", r#""prompt":"hello""#)] {
        let sent = bench.sent(path, &body(&[FREE, free, own]));
        assert_eq!(
            (sent.path.as_str(), &sent.json()["model"]),
            ("/api/v1/chat/completions", &json!("a/b:free"))
        );
    }
    for (model, sent) in [("nomic-embed-text", "embed/one:free"), ("o/embed:free", "o/embed:free")] {
        let embedding = bench.sent("/api/embed", &format!(r#"{{"model":"{model}","input":"x"}}"#));
        assert_eq!(
            (embedding.path.as_str(), &embedding.json()["model"]),
            ("/api/v1/embeddings", &json!(sent))
        );
    }
    bench.finish();
}
