//! Errors of the proxy's own: each case of the contract with its status, its code and its words, in the shape that every
//! OpenAI SDK understands (<https://platform.openai.com/docs/guides/error-codes>).

use std::borrow::Cow;
use std::io;
use std::time::{Duration, SystemTime};

use crate::json;
use crate::language::{either, is_chinese};

/// An error response: what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Machine-readable code, one for each case of the contract.
    pub code: &'static str,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// Header fields that belong to it.
    pub headers: Vec<(&'static str, String)>,
    /// Of a limit: when it ends, in seconds since 1970.
    pub resets_at: Option<u64>,
    /// The same in Chinese, where that says more than the case.
    chinese: Option<String>,
}

impl ApiError {
    /// An error of this status and code.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new(), resets_at: None, chinese: None }
    }

    /// The same with the words for a console that speaks Chinese. (Clients get English: tools know it.)
    pub fn chinese(mut self, words: impl Into<String>) -> Self {
        self.chinese = Some(words.into());
        self
    }

    /// What it says on the console.
    pub fn in_words(&self) -> &str {
        either(&self.message, self.chinese.as_deref().unwrap_or_else(|| self.case_in_chinese()))
    }

    /// The same with `Retry-After: seconds`.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with("retry-after", seconds.to_string())
    }

    /// The same with one more header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Whether it will be the same whenever it is tried again.
    pub fn stays(&self) -> bool {
        matches!(self.status, 400..=499) && !matches!(self.status, 408 | 425 | 429)
            || self.resets_at.is_some()
    }

    /// OpenAI's `type` for this status.
    pub fn kind(&self) -> &'static str {
        match self.status {
            // A path that isn't there must not read like a model that isn't: tools have their users choose another one then.
            404 if self.code == "not_found" => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// `{"message": …, "type": …, "param": null, "code": …}`
    pub fn object(&self) -> String {
        let (message, kind) = (json::quoted(&self.message), self.kind());
        format!(r#"{{"message":{message},"type":"{kind}","param":null,"code":"{}"}}"#, self.code)
    }

    /// The body of the response.
    pub fn body(&self) -> String {
        format!(r#"{{"error":{}}}"#, self.object())
    }
}

impl ApiError {
    /// Somebody has cancelled the call in the panel.
    pub fn cancelled() -> Self {
        let error = Self::new(499, "cancelled", "The call was cancelled in the panel.");
        error.with("x-should-retry", "false").chinese("调用已在面板中取消")
    }

    fn case_in_chinese(&self) -> &'static str {
        match (self.status, self.code) {
            (_, "invalid_json") => "请求正文不是可用的 JSON（详见返回给客户端的错误信息）",
            (_, "invalid_proxy_key") => "客户端没有发送正确的 PROXY_API_KEY",
            (_, "forbidden_host") => {
                "请求的主机名不属于本机：请使用 localhost 或 IP 地址，或设置 PROXY_API_KEY"
            }
            (_, "forbidden_origin") => "不允许此网页使用代理：如果信任它，请把它的来源加入 ALLOWED_ORIGINS",
            (_, "debug_disabled") => "调试模式已关闭：在 .env 旁创建空文件 DEBUG_MODE.txt 即可打开",
            (_, "not_found") => "没有这个地址：请检查工具里的基础地址（Base URL）",
            (_, "method_not_allowed") => "这个地址不支持该请求方法",
            (_, "body_too_large") => "请求正文过大：可在 .env 中提高 MAX_BODY_MB",
            (_, "request_timeout") | (408, _) => "客户端发送请求太慢",
            (_, "upgrade_unsupported") => "不支持 WebSocket：请使用普通 HTTP 请求",
            (_, "not_supported") => "没有本地模型可供下载或删除：所有免费模型都可直接使用",
            (_, "overloaded") => "请求过多：请稍后再试，或在 .env 中提高 WORKERS 或 QUEUE",
            (_, "bad_request") => "不是有效的 HTTP 请求：地址请以 http:// 开头，而不是 https://",
            (_, "missing_api_key") => {
                "没有设置 OpenRouter 密钥：请在 .env 中写入 OPENROUTER_API_KEY（免费申请：https://openrouter.ai/keys），无需重启"
            }
            (_, "rate_limit_exceeded") => "账户的免费额度已用完：请等到恢复，或换用另一个账户的密钥",
            (_, "upstream_unreachable") => {
                "无法连接上游：请检查网络和 OPENROUTER_BASE_URL；如需代理，请检查 .env 中的 HTTPS_PROXY"
            }
            (_, "upstream_error") => "上游中断了连接，或其回答不可用：请重试",
            (_, "upstream_timeout") => "上游在 UPSTREAM_TIMEOUT 时间内没有响应",
            (_, "shutting_down") => "代理正在停止：请重新启动后再试",
            (_, "internal_error") => "代理处理此请求时出错；其他请求不受影响",
            _ => "已拒绝",
        }
    }
}

/// Whether the process, or the system, has no descriptors left (`EMFILE`, `ENFILE`; on Windows of files and of sockets). Such
/// errors have no kind.
pub fn is_about_descriptors(error: &io::Error) -> bool {
    let codes: &[i32] = if cfg!(windows) { &[4, 10024] } else { &[23, 24] };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// The code by which Anthropic's SDKs know that they have to send the whole conversation.
pub const NO_THREADS: &str = "thread_unsupported_request";
/// No address is known for the upstream's name.
pub const UNKNOWN_NAME: &str =
    "its name can't be looked up: there is no network, or the address has a slip in it";
/// The upstream ended the connection.
pub const CLOSED: &str = "it closed the connection";
/// The proxy towards the upstream doesn't let us through.
pub const PROXY_REFUSED: &str = "the HTTP proxy refused";
/// What stands before the proxy's address and the reason, where the way there ended at the proxy.
pub const VIA_PROXY: &str = "the proxy ";
/// What stands before what TLS has against the other side.
pub const TLS: &str = "TLS: ";
/// Its certificate's issuer is none of the known.
pub const UNTRUSTED: &str = "nobody who is known has signed its certificate";
/// Its certificate isn't valid now.
pub const EXPIRED: &str = "its certificate has expired, or the clock here is wrong";
/// Its certificate is for another host.
pub const OTHER_NAME: &str = "its certificate is one for another name";
/// Before the seconds in which no connection came about.
pub const NO_CONNECTION: &str = "no connection within ";
/// Before the seconds in which nothing came.
pub const NO_BYTE: &str = "no byte for ";
/// The answer has nothing in it.
pub const EMPTY: &str = "an empty answer";
/// A stream that ended without the word that is its last, a body that ended in the middle of it.
pub const CUT: &str = "it ended before the answer was whole";
/// A stream that ended before its first word.
pub const SAID_NOTHING: &str = "the stream ended without having said anything";

/// Why a try failed, for the console: in Chinese where that is its language and the words are our own. What the upstream
/// says stays as it says it.
pub fn reason_in_words(reason: &str) -> Cow<'_, str> {
    if is_chinese() { in_chinese(reason) } else { reason.into() }
}

fn in_chinese(reason: &str) -> Cow<'_, str> {
    if let Some((proxy, reason)) = reason.strip_prefix(VIA_PROXY).and_then(|rest| rest.split_once(": ")) {
        return format!("代理 {proxy}：{}", in_chinese(reason)).into();
    }
    if let Some(reason) = reason.strip_prefix(TLS) {
        return format!("TLS：{}", in_chinese(reason)).into();
    }
    let seconds = |before: &str| reason.strip_prefix(before)?.strip_suffix(" s");
    if let Some(seconds) = seconds(NO_CONNECTION) {
        return format!("{seconds} 秒内未能建立连接").into();
    }
    if let Some(seconds) = seconds(NO_BYTE) {
        return format!("{seconds} 秒内没有收到任何数据").into();
    }
    let words = match reason {
        UNKNOWN_NAME => "无法解析域名：没有网络，或地址有误",
        CLOSED => "对方关闭了连接",
        PROXY_REFUSED => "HTTP 代理拒绝了连接",
        EMPTY => "回答是空的",
        CUT => "回答还没结束就中断了",
        SAID_NOTHING => "流没有任何内容就结束了",
        UNTRUSTED => "证书的签发者不受信任",
        EXPIRED => "证书已过期，或本机时钟不准",
        OTHER_NAME => "证书与域名不符",
        // Those of `std::io::ErrorKind`.
        "connection refused" => "连接被拒绝",
        "connection reset" => "连接被重置",
        "host unreachable" => "主机不可达",
        "network unreachable" => "网络不可达",
        "timed out" => "超时",
        reason => reason,
    };
    words.into()
}

/// The cases, in the order of the contract's table.
impl ApiError {
    /// The body isn't the JSON object that it should be; `what` it is instead.
    pub fn invalid_json(what: &str) -> Self {
        let message = format!("The request body is {what}. Send a JSON object in UTF-8.");
        Self::new(400, "invalid_json", message)
    }

    /// The body ended early.
    pub fn broken_body() -> Self {
        Self::new(400, "invalid_json", "The request body ended early or its chunks are broken.")
    }

    /// `OPENROUTER_API_KEY` is not set.
    pub fn missing_key() -> Self {
        let message = "No OpenRouter key is set. Get a free one at https://openrouter.ai/keys and put it into .env as OPENROUTER_API_KEY=sk-or-v1-...; no restart is needed.";
        Self::new(401, "missing_api_key", message)
    }

    /// The client didn't send `PROXY_API_KEY`.
    pub fn wrong_proxy_key() -> Self {
        let message = "This proxy asks for its own key: send the value of PROXY_API_KEY as the API key (Authorization: Bearer).";
        Self::new(401, "invalid_proxy_key", message)
    }

    /// The request was sent to a name that isn't this machine's. `port` is the one in use.
    pub fn forbidden_host(port: u16) -> Self {
        let message = format!(
            "This name is not one of this machine's. Use http://localhost:{port} or an IP address, or set PROXY_API_KEY in .env."
        );
        Self::new(403, "forbidden_host", message)
    }

    /// The panel was asked for from another machine.
    pub fn panel_is_local() -> Self {
        Self::new(403, "forbidden_host", "The panel answers only on the machine that the proxy runs on.")
    }

    /// A web page that isn't allowed to calls.
    pub fn forbidden_origin() -> Self {
        let message = "This web page may not use the proxy. If you trust it, add its origin to ALLOWED_ORIGINS in .env.";
        Self::new(403, "forbidden_origin", message)
    }

    /// Another page asks for the panel's data.
    pub fn panel_is_its_own_page() -> Self {
        Self::new(403, "forbidden_origin", "Only the panel's own page may ask for this.")
    }

    /// The panel is asked for, and debug mode is off.
    pub fn debug_disabled() -> Self {
        let message = "Debug mode is off. Create an empty file DEBUG_MODE.txt beside .env to switch it on; no restart is needed.";
        Self::new(403, "debug_disabled", message)
    }

    /// No endpoint has this path; what was probably meant is `slip`, a sentence or nothing.
    pub fn not_found(asked: &str, slip: &str, served: &str) -> Self {
        let message = format!("There is no {asked} here. {slip}Served are {served}.");
        Self::new(404, "not_found", message)
    }

    /// The panel has no such page or call.
    pub fn no_such(what: &str) -> Self {
        Self::new(404, "not_found", what)
    }

    /// Something that only a named model may do (`what`: in English and Chinese) was asked of one that isn't free; `free` are
    /// those that are, `setting` names one.
    pub fn model_not_free([what, chinese]: [&str; 2], setting: &str, free: &[String]) -> Self {
        let free = match free {
            [] => "there are none now, or the list can't be had".to_owned(),
            free => free.join(", "),
        };
        let message = format!(
            "{what} are only made by free models, and none stands in for another. Name one in the request, or set {setting} in .env. Free ones: {free}."
        );
        Self::new(400, "model_not_free", message)
            .chinese(format!("{chinese}请求需要免费的{chinese}模型：请在请求中或用 {setting} 指定一个"))
    }

    /// The built-in model can't do this.
    pub fn not_offline() -> Self {
        let message = "The built-in model of --offline (TEST_MODE) can't do this: start without it, with a key in .env.";
        Self::new(501, "not_supported", message)
            .chinese("--offline（TEST_MODE）的内置模型不支持这项功能：请在 .env 中写入密钥并正常启动")
    }

    /// A conversation of which the server is to have kept the beginning.
    pub fn no_kept_conversations() -> Self {
        let message =
            "No conversations are kept here: send the whole conversation with each request, without thread.";
        Self::new(400, NO_THREADS, message)
            .chinese("这里不保存对话：请在每个请求中发送整个对话，不要使用 thread")
    }

    /// `GET /v1/models/{id}` of a model that isn't listed.
    pub fn no_such_model() -> Self {
        let message = "No such free model. GET /v1/models lists those there are.";
        Self::new(404, "model_not_found", message)
    }

    /// The endpoint takes other methods.
    pub fn method_not_allowed(asked: &str, allowed: &[&str]) -> Self {
        let allowed = allowed.join(", ");
        let message = format!("There is no {asked} here, but there is {allowed} of the same path.");
        Self::new(405, "method_not_allowed", message).with("allow", allowed)
    }

    /// A tool that Google runs by itself, without any function beside it.
    pub fn not_googles_tool(name: &str) -> Self {
        let message = format!(
            "Google's own tools aren't here: {name} can't be used, only functions that the client runs (functionDeclarations)."
        );
        Self::new(400, "not_supported", message)
            .chinese(format!("这里没有 Google 自带的工具 {name}：只能使用由客户端执行的函数"))
    }

    /// What Ollama does to the models on its disk.
    pub fn not_ollamas_disk() -> Self {
        let message = "There are no models on a disk here to pull, create, copy or delete: all free ones can be used at once (GET /api/tags).";
        Self::new(501, "not_supported", message)
    }

    /// The body is larger than `MAX_BODY_MB`.
    pub fn body_too_large(limit_mb: u64) -> Self {
        let message = format!(
            "The request body is larger than {limit_mb} MB. Send less, or raise MAX_BODY_MB in .env."
        );
        Self::new(413, "body_too_large", message)
    }

    /// Nothing more of a body came for so long.
    pub fn stalled_body(limit: Duration) -> Self {
        let message = format!("Nothing more of the request came for {} s. Send it again.", limit.as_secs());
        Self::new(408, "request_timeout", message)
    }

    /// What was sent is not a request that can be understood in one way only.
    pub fn bad_request(message: &str) -> Self {
        Self::new(400, "bad_request", message)
    }

    /// The head is over its bounds.
    pub fn head_too_large() -> Self {
        Self::new(
            431,
            "bad_request",
            "The head of the request is too large: at most 64 KB and 200 header fields.",
        )
    }

    /// The target is over its bound.
    pub fn target_too_long() -> Self {
        Self::new(414, "bad_request", "The target of the request is longer than 16 KB.")
    }

    /// The head took too long.
    pub fn slow_head(limit: Duration) -> Self {
        let message =
            format!("The head of the request didn't come within {} s. Send it again.", limit.as_secs());
        Self::new(408, "bad_request", message)
    }

    /// Another version of HTTP.
    pub fn unknown_version() -> Self {
        Self::new(
            505,
            "bad_request",
            "This proxy speaks HTTP/1.1, and HTTP/1.0: have your tool use one of them.",
        )
    }

    /// `Expect` other than `100-continue`.
    pub fn unknown_expectation() -> Self {
        Self::new(417, "bad_request", "Expect can only be 100-continue.")
    }

    /// `Content-Encoding` that isn't known.
    pub fn unknown_encoding() -> Self {
        Self::new(415, "bad_request", "Content-Encoding can only be gzip or deflate, or left out.")
    }

    /// The body isn't encoded as it says.
    pub fn undecodable_body() -> Self {
        Self::new(400, "invalid_json", "The request body isn't encoded as its Content-Encoding says.")
    }

    /// Not HTTP at all.
    pub fn not_http() -> Self {
        let message = "This is no HTTP request. Write the address with http://, not https://.";
        Self::new(400, "bad_request", message)
    }

    /// A WebSocket is asked for. [RFC 9110, 15.5.22](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.22) wants to be
    /// told what would do instead.
    pub fn no_websockets() -> Self {
        let message = "There are no WebSockets here. Send the request as plain HTTP.";
        Self::new(426, "upgrade_unsupported", message)
            .with("upgrade", "HTTP/1.1")
            .with("connection", "close, upgrade")
    }

    /// The system gives the program no more connections.
    pub fn no_descriptors() -> Self {
        let message = "Too many connections are open: try again in a moment, or raise the limit of open files (ulimit -n).";
        Self::new(503, "overloaded", message)
            .retry_after(1)
            .chinese("打开的连接过多：请稍后再试，或提高可打开文件数的上限（ulimit -n）")
    }

    /// A panic.
    pub fn internal() -> Self {
        let message = "The proxy failed on this request; others are not affected.";
        Self::new(500, "internal_error", message)
    }

    /// There is no connection to the upstream.
    pub fn unreachable(reason: &str) -> Self {
        let advice = match reason.starts_with(TLS) {
            true => {
                "Where a company's proxy inspects connections, put its root certificate into a file and name that in SSL_CERT_FILE in .env"
            }
            false => "Check the network, OPENROUTER_BASE_URL and, behind a proxy, HTTPS_PROXY in .env",
        };
        let message = format!("The upstream can't be reached: {reason}. {advice}.");
        let words = in_chinese(reason);
        let advice = match reason.starts_with(TLS) {
            true => {
                "如果公司的代理会解密 HTTPS，请把它的根证书存成文件，并在 .env 的 SSL_CERT_FILE 中写入该文件"
            }
            false => "请检查网络和 OPENROUTER_BASE_URL；如果需要代理，请检查 .env 中的 HTTPS_PROXY",
        };
        Self::new(502, "upstream_unreachable", message).chinese(format!("无法连接上游：{words}。{advice}"))
    }

    /// The upstream's connection ended, or carried something else than HTTP.
    pub fn broke_off(reason: &str) -> Self {
        Self::new(502, "upstream_error", format!("The upstream broke off: {reason}. Try again."))
            .chinese(format!("上游中断：{}。请重试", in_chinese(reason)))
    }

    /// The upstream answered something that nobody could read.
    pub fn unusable(reason: &str) -> Self {
        Self::new(502, "upstream_error", format!("The upstream's answer can't be used: {reason}."))
    }

    /// The model said nothing.
    pub fn empty_answer() -> Self {
        let message =
            "The model gave an empty answer. Try again, or name another model in MODEL or FALLBACK_MODELS.";
        Self::new(502, "upstream_error", message)
            .chinese("模型的回答是空的：请重试，或在 MODEL 或 FALLBACK_MODELS 中换一个模型")
    }

    /// The account's limit lasts longer than a request may wait: until `reset`, which is `time` (HH:MM) here.
    pub fn limit_reached(time: &str, reset: SystemTime) -> Self {
        let remaining = reset.duration_since(SystemTime::now()).unwrap_or_default();
        let message = format!(
            "The account's limit for free models is reached until {time}. Wait until then, or use the key of another account."
        );
        let seconds = remaining.as_secs_f64().ceil().max(1.0) as u64;
        let resets_at = reset.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs());
        let words = format!("账户的免费额度已用完，{time} 恢复：请等到那时，或换用另一个账户的密钥");
        Self {
            resets_at,
            ..Self::new(429, "rate_limit_exceeded", message).retry_after(seconds).chinese(words)
        }
    }

    /// The upstream failed, and every backup rests, the first of them for this long.
    pub fn nobody_left(reason: &str, rests: Duration) -> Self {
        let message = format!("OpenRouter can't answer ({reason}), and no backup may be asked now.");
        Self::new(429, "rate_limit_exceeded", message).retry_after(rests.as_secs().max(1))
    }

    /// All workers are busy, and the queue is full.
    pub fn queue_is_full() -> Self {
        let message = "All workers are busy and the queue is full: try again in a moment, or raise WORKERS or QUEUE in .env.";
        Self::new(503, "overloaded", message).retry_after(1)
    }

    /// Too many wait for the account's limit.
    pub fn too_many_wait() -> Self {
        let message = "Too many requests wait for the account's limit: try again later.";
        Self::new(503, "overloaded", message).retry_after(1)
    }

    /// The program is asked to stop.
    pub fn stopping() -> Self {
        Self::new(503, "shutting_down", "The proxy is stopping. Start it again to go on.")
    }

    /// `UPSTREAM_TIMEOUT` went by without a byte.
    pub fn silent(limit: Duration) -> Self {
        let message =
            format!("The upstream kept silent for {} s (UPSTREAM_TIMEOUT in .env).", limit.as_secs_f64());
        Self::new(504, "upstream_timeout", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_in_chinese() {
        for (english, chinese) in [
            ("the proxy h:1: connection refused", "代理 h:1：连接被拒绝"),
            ("TLS: its certificate is one for another name", "TLS：证书与域名不符"),
            ("no byte for 0.5 s", "0.5 秒内没有收到任何数据"),
            ("no connection within 10 s", "10 秒内未能建立连接"),
            ("503 busy", "503 busy"),
        ] {
            assert_eq!(in_chinese(english), chinese);
        }
    }

    #[test]
    fn the_body_is_json() {
        let error = ApiError::new(502, "upstream_error", "it said \"no\"\n");
        let body = serde_json::from_str::<serde_json::Value>(&error.body()).unwrap();
        assert_eq!(body["error"]["message"], "it said \"no\"\n");
        assert_eq!(body["error"]["param"], serde_json::Value::Null);
    }
}
