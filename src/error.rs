//! Errors of the proxy's own: each case of the contract with its status, its code and its message, in the shape that
//! every OpenAI SDK understands (<https://platform.openai.com/docs/guides/error-codes>).

use std::io;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::json;
use crate::language::{Words, either};
use crate::object::object;

/// An error response: what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Machine-readable code, one for each case of the contract.
    pub code: &'static str,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// The message for a console in Chinese. (Clients get English: tools know it.)
    chinese: String,
    /// Header fields of the response.
    pub headers: Vec<(&'static str, String)>,
    /// For a limit, when it ends, in seconds since 1970.
    pub resets_at: Option<u64>,
}

impl ApiError {
    /// Creates an error of this status and code, with a message that isn't translated.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::own(status, code, message.clone(), message)
    }

    /// Creates an error of this status and code, with a message in English and in Chinese.
    pub fn own(
        status: u16,
        code: &'static str,
        message: impl Into<String>,
        chinese: impl Into<String>,
    ) -> Self {
        let (message, chinese) = (message.into(), chinese.into());
        Self { status, code, message, chinese, headers: Vec::new(), resets_at: None }
    }

    /// Sets another message for a console in Chinese.
    pub fn chinese(mut self, words: impl Into<String>) -> Self {
        self.chinese = words.into();
        self
    }

    /// Returns the message in both languages.
    pub fn words(&self) -> Words {
        Words::new(self.message.clone(), self.chinese.clone())
    }

    /// Returns the message for the console.
    pub fn in_words(&self) -> &str {
        either(&self.message, &self.chinese)
    }

    /// Adds the header field `Retry-After: seconds`.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with("retry-after", seconds.to_string())
    }

    /// Adds a header field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Returns whether retries are useless, at least for a long time.
    pub fn stays(&self) -> bool {
        matches!(self.status, 400..=499) && !matches!(self.status, 408 | 425 | 429)
            || self.resets_at.is_some()
    }

    /// Returns OpenAI's `type` for this error.
    pub fn kind(&self) -> &'static str {
        match self.status {
            // An unknown path must not look like an unknown model: tools then ask their users to choose another one.
            404 if self.code == "not_found" => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// Returns `{"message": …, "type": …, "param": null, "code": …}`.
    pub fn object(&self) -> String {
        json::text(&self.json())
    }

    /// Returns the body of the response.
    pub fn body(&self) -> String {
        json::text(&object! {"error": self.json()})
    }

    /// Returns the error object of OpenAI's API: <https://platform.openai.com/docs/guides/error-codes>.
    pub fn json(&self) -> Value {
        object! {"message": &self.message, "type": self.kind(), "param": Value::Null, "code": self.code}
    }
}

/// Returns whether the process, or the system, has no descriptors left (`EMFILE`, `ENFILE`; on Windows of files and of
/// sockets). Such errors have no `ErrorKind`.
pub fn is_about_descriptors(error: &io::Error) -> bool {
    let codes: &[i32] = if cfg!(windows) { &[4, 10024] } else { &[23, 24] };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Returns whether an operation on a socket has timed out.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The code by which Anthropic's SDKs know that they have to send the whole conversation.
pub const NO_THREADS: &str = "thread_unsupported_request";
/// Marks an answer that is [`ApiError::loop_detected`], for the proxies of a chain through which the request came.
pub const LOOP_HEADER: &str = "x-local-api-proxy-loop";

/// The errors, in the order of the contract's table.
impl ApiError {
    /// The body isn't the JSON object that it should be; `english` and `chinese` say what it is instead.
    pub fn invalid_json(english: &str, chinese: &str) -> Self {
        Self::own(
            400,
            "invalid_json",
            format!("The request body is {english}. Send a JSON object in UTF-8."),
            format!("请求正文{chinese}：请发送 UTF-8 编码的 JSON 对象"),
        )
    }

    /// The body ended early, or its chunks are broken.
    pub fn broken_body() -> Self {
        Self::own(
            400,
            "invalid_json",
            "The request body ended early or its chunks are broken.",
            "请求正文提前结束，或分块格式有误",
        )
    }

    /// `OPENROUTER_API_KEY` is not set.
    pub fn missing_key() -> Self {
        Self::own(
            401,
            "missing_api_key",
            "No OpenRouter key is set. Get a free one at https://openrouter.ai/keys and put it into .env as OPENROUTER_API_KEY=sk-or-v1-...; no restart is needed.",
            "没有设置 OpenRouter 密钥：请在 .env 中写入 OPENROUTER_API_KEY（免费申请：https://openrouter.ai/keys），无需重启",
        )
    }

    /// The client didn't send `PROXY_API_KEY`.
    pub fn wrong_proxy_key() -> Self {
        Self::own(
            401,
            "invalid_proxy_key",
            "This proxy asks for its own key: send the value of PROXY_API_KEY as the API key (Authorization: Bearer).",
            "客户端没有发送正确的 PROXY_API_KEY",
        )
    }

    /// The request was sent to a name that isn't this machine's. `port` is the one in use.
    pub fn forbidden_host(host: &str, port: u16) -> Self {
        let host = beginning(host);
        Self::own(
            403,
            "forbidden_host",
            format!(
                "\"{host}\" is not one of this machine's names. Use http://localhost:{port} or an IP address, or set PROXY_API_KEY in .env."
            ),
            format!(
                "主机名“{host}”不属于本机：请使用 http://localhost:{port} 或 IP 地址，或在 .env 中设置 PROXY_API_KEY"
            ),
        )
    }

    /// The panel was asked for from another machine.
    pub fn panel_is_local() -> Self {
        Self::own(
            403,
            "forbidden_host",
            "The panel answers only on the machine that the proxy runs on.",
            "面板只能在运行代理的机器上打开",
        )
    }

    /// The panel was asked for through another server, so that nobody knows for whom.
    pub fn panel_is_not_forwarded() -> Self {
        Self::own(
            403,
            "forbidden_host",
            "The panel doesn't answer what another server forwards, because everybody who reaches that server would see it. Set PROXY_API_KEY in .env: then the browser asks for it.",
            "面板不回答其他服务器转发来的请求，否则能访问那台服务器的人都能看到面板。请在 .env 中设置 PROXY_API_KEY，浏览器会要求输入",
        )
    }

    /// A web page that isn't allowed to use the proxy has sent the request.
    pub fn forbidden_origin(origin: &str) -> Self {
        if origin == "null" {
            // To allow that would be to allow every page that hides where it comes from.
            return Self::own(
                403,
                "forbidden_origin",
                "A web page that doesn't say where it comes from (a file, or a sandboxed frame) may not use the proxy. Serve it from http://localhost.",
                "不允许来源不明的网页（本地文件或沙盒框架）使用代理：请通过 http://localhost 提供该网页",
            );
        }
        let origin = beginning(origin);
        Self::own(
            403,
            "forbidden_origin",
            format!(
                "The web page {origin} may not use the proxy. If you trust it, add {origin} to ALLOWED_ORIGINS in .env."
            ),
            format!("不允许网页 {origin} 使用代理：如果信任它，请把 {origin} 加入 .env 的 ALLOWED_ORIGINS"),
        )
    }

    /// Another page asks for the panel's data.
    pub fn panel_is_its_own_page() -> Self {
        Self::own(
            403,
            "forbidden_origin",
            "Only the panel's own page may ask for this.",
            "只有面板自己的页面可以请求它",
        )
    }

    /// The panel is asked for, and debug mode is off.
    pub fn debug_disabled() -> Self {
        Self::own(
            403,
            "debug_disabled",
            "Debug mode is off. Create an empty file DEBUG_MODE.txt beside .env to switch it on; no restart is needed.",
            "调试模式已关闭：在 .env 旁创建空文件 DEBUG_MODE.txt 即可打开，无需重启",
        )
    }

    /// No endpoint has this path. `slip` is a sentence on what was probably meant, or empty.
    pub fn not_found(asked: &str, slip: &str, served: &str) -> Self {
        Self::own(
            404,
            "not_found",
            format!("There is no {asked} here. {slip}Served are {served}."),
            "没有这个地址：请检查工具里的基础地址（Base URL）",
        )
    }

    /// The panel has no such page or call.
    pub fn no_such(what: &str) -> Self {
        Self::own(404, "not_found", what, "面板中没有这一项")
    }

    /// The request needs a free model of a kind in which no model replaces another, and names none that is free.
    /// `what`, in English and Chinese, is made by such models; `free` are those there are, and `setting` can name one.
    pub fn model_not_free([what, chinese]: [&str; 2], setting: &str, free: &[String]) -> Self {
        let free = match free {
            [] => "there are none now, or the list can't be had".to_owned(),
            free => free.join(", "),
        };
        Self::own(
            400,
            "model_not_free",
            format!(
                "{what} are only made by free models, and none stands in for another. Name one in the request, or set {setting} in .env. Free ones: {free}."
            ),
            format!("{chinese}请求需要免费的{chinese}模型：请在请求中或用 {setting} 指定一个"),
        )
    }

    /// The built-in model can't do this.
    pub fn not_offline() -> Self {
        Self::own(
            501,
            "not_supported",
            "The built-in model of --offline (TEST_MODE) can't do this: start without it, with a key in .env.",
            "--offline（TEST_MODE）的内置模型不支持这项功能：请在 .env 中写入密钥并正常启动",
        )
    }

    /// The request belongs to a conversation whose beginning the server should have kept.
    pub fn no_kept_conversations() -> Self {
        Self::own(
            400,
            NO_THREADS,
            "No conversations are kept here: send the whole conversation with each request, without thread.",
            "这里不保存对话：请在每个请求中发送整个对话，不要使用 thread",
        )
    }

    /// `GET /v1/models/{id}` of a model that isn't listed.
    pub fn no_such_model() -> Self {
        Self::own(
            404,
            "model_not_found",
            "No such free model. GET /v1/models lists those there are.",
            "没有这个免费模型：GET /v1/models 列出现有的模型",
        )
    }

    /// The endpoint has other methods only.
    pub fn method_not_allowed(asked: &str, allowed: &[&str]) -> Self {
        let allowed = allowed.join(", ");
        Self::own(
            405,
            "method_not_allowed",
            format!("There is no {asked} here, but there is {allowed} of the same path."),
            format!("这个地址不支持该请求方法，支持的是 {allowed}"),
        )
        .with("allow", allowed)
    }

    /// The request has only a tool that Google runs by itself, and no function beside it.
    pub fn not_googles_tool(name: &str) -> Self {
        let message = format!(
            "Google's own tools aren't here: {name} can't be used, only functions that the client runs (functionDeclarations)."
        );
        Self::new(400, "not_supported", message)
            .chinese(format!("这里没有 Google 自带的工具 {name}：只能使用由客户端执行的函数"))
    }

    /// The request is for what Ollama does to the models on its disk.
    pub fn not_ollamas_disk() -> Self {
        Self::own(
            501,
            "not_supported",
            "There are no models on a disk here to pull, create, copy or delete: all free ones can be used at once (GET /api/tags).",
            "没有本地模型可供创建、复制或删除：所有免费模型都可直接使用",
        )
    }

    /// The body is larger than `MAX_BODY_MB`.
    pub fn body_too_large(limit_mb: u64) -> Self {
        Self::own(
            413,
            "body_too_large",
            format!(
                "The request body is larger than {limit_mb} MB. Send less, or raise MAX_BODY_MB in .env."
            ),
            format!("请求正文超过 {limit_mb} MB：可在 .env 中提高 MAX_BODY_MB"),
        )
    }

    /// Nothing more of a body arrived within the limit.
    pub fn stalled_body(limit: Duration) -> Self {
        let seconds = limit.as_secs();
        Self::own(
            408,
            "request_timeout",
            format!("Nothing more of the request came for {seconds} s. Send it again."),
            format!("{seconds} 秒内没有收到请求的其余部分：请重新发送"),
        )
    }

    /// The bytes aren't a request that can be understood in one way only.
    pub fn bad_request(english: &str, chinese: &str) -> Self {
        Self::own(400, "bad_request", english, chinese)
    }

    /// The head is larger than allowed.
    pub fn head_too_large() -> Self {
        Self::own(
            431,
            "bad_request",
            "The head of the request is too large: at most 64 KB and 200 header fields.",
            "请求头过大：最多 64 KB、200 个字段",
        )
    }

    /// The target is longer than allowed.
    pub fn target_too_long() -> Self {
        Self::own(
            414,
            "bad_request",
            "The target of the request is longer than 16 KB.",
            "请求的地址超过 16 KB",
        )
    }

    /// The head didn't arrive in time.
    pub fn slow_head(limit: Duration) -> Self {
        let seconds = limit.as_secs();
        Self::own(
            408,
            "bad_request",
            format!("The head of the request didn't come within {seconds} s. Send it again."),
            format!("{seconds} 秒内没有收到完整的请求头：请重新发送"),
        )
    }

    /// The request is in another version of HTTP.
    pub fn unknown_version() -> Self {
        Self::own(
            505,
            "bad_request",
            "This proxy speaks HTTP/1.1, and HTTP/1.0: have your tool use one of them.",
            "代理使用 HTTP/1.1 和 HTTP/1.0：请让工具使用其中之一",
        )
    }

    /// The value of `Expect` isn't `100-continue`.
    pub fn unknown_expectation() -> Self {
        Self::own(417, "bad_request", "Expect can only be 100-continue.", "Expect 只能是 100-continue")
    }

    /// The value of `Content-Encoding` isn't known.
    pub fn unknown_encoding() -> Self {
        Self::own(
            415,
            "bad_request",
            "Content-Encoding can only be gzip or deflate, or left out.",
            "Content-Encoding 只能是 gzip 或 deflate，或不写",
        )
    }

    /// The body isn't encoded as its `Content-Encoding` says.
    pub fn undecodable_body() -> Self {
        Self::own(
            400,
            "invalid_json",
            "The request body isn't encoded as its Content-Encoding says.",
            "请求正文的压缩方式与 Content-Encoding 不符",
        )
    }

    /// The bytes are not HTTP at all.
    pub fn not_http() -> Self {
        Self::own(
            400,
            "bad_request",
            "This is no HTTP request. Write the address with http://, not https://.",
            "不是有效的 HTTP 请求：地址请以 http:// 开头，而不是 https://",
        )
    }

    /// The client asks for a WebSocket. [RFC 9110, 15.5.22](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.22)
    /// requires the answer to say which protocol would do instead.
    pub fn no_websockets() -> Self {
        Self::own(
            426,
            "upgrade_unsupported",
            "There are no WebSockets here. Send the request as plain HTTP.",
            "不支持 WebSocket：请使用普通 HTTP 请求",
        )
        .with("upgrade", "HTTP/1.1")
        .with("connection", "close, upgrade")
    }

    /// The system gives the program no more descriptors.
    pub fn no_descriptors() -> Self {
        Self::own(
            503,
            "overloaded",
            "Too many connections are open: try again in a moment, or raise the limit of open files (ulimit -n).",
            "打开的连接过多：请稍后再试，或提高可打开文件数的上限（ulimit -n）",
        )
        .retry_after(1)
    }

    /// A panic ended the request.
    pub fn internal() -> Self {
        Self::own(
            500,
            "internal_error",
            "The proxy failed on this request; others are not affected.",
            "代理处理此请求时出错；其他请求不受影响",
        )
    }

    /// The upstream can't be reached, perhaps because of TLS.
    pub fn unreachable(reason: &Words, is_about_tls: bool) -> Self {
        let (advice, chinese) = if is_about_tls {
            (
                "Where a company's proxy inspects connections, put its root certificate into a file and name that in SSL_CERT_FILE in .env",
                "如果公司的代理会解密 HTTPS，请把它的根证书存成文件，并在 .env 的 SSL_CERT_FILE 中写入该文件",
            )
        } else {
            (
                "Check the network, OPENROUTER_BASE_URL and, behind a proxy, HTTPS_PROXY in .env",
                "请检查网络和 OPENROUTER_BASE_URL；如果需要代理，请检查 .env 中的 HTTPS_PROXY",
            )
        };
        Self::own(
            502,
            "upstream_unreachable",
            format!("The upstream can't be reached: {}. {advice}.", reason.english),
            format!("无法连接上游：{}。{chinese}", reason.chinese),
        )
    }

    /// The connection to the upstream ended, or carried something else than HTTP.
    pub fn broke_off(reason: &Words) -> Self {
        Self::own(
            502,
            "upstream_error",
            format!("The upstream broke off: {}. Try again.", reason.english),
            format!("上游中断：{}。请重试", reason.chinese),
        )
    }

    /// The upstream's answer can't be understood.
    pub fn unusable(reason: &Words) -> Self {
        Self::own(
            502,
            "upstream_error",
            format!("The upstream's answer can't be used: {}.", reason.english),
            format!("上游的回答无法使用：{}", reason.chinese),
        )
    }

    /// The model's answer is empty.
    pub fn empty_answer() -> Self {
        Self::own(
            502,
            "upstream_error",
            "The model gave an empty answer. Try again, or name another model in MODEL or FALLBACK_MODELS.",
            "模型的回答是空的：请重试，或在 MODEL 或 FALLBACK_MODELS 中换一个模型",
        )
    }

    /// The upstream is this proxy.
    pub fn loop_detected() -> Self {
        Self::own(
            508,
            "loop_detected",
            "The upstream is this proxy itself: every request would come back to it. Correct OPENROUTER_BASE_URL, or the address of the backup, in .env.",
            "上游就是这个代理自己，每个请求都会绕回来：请在 .env 中改正 OPENROUTER_BASE_URL 或备用服务的地址",
        )
        .with(LOOP_HEADER, "1")
        .with("x-should-retry", "false")
    }

    /// The account's limit lasts longer than a request may wait: until `reset`, which is `time` (HH:MM) in local time.
    /// A key of another account wouldn't help: OpenRouter's limits are those of a person.
    pub fn limit_reached(time: &str, reset: SystemTime) -> Self {
        let remaining = reset.duration_since(SystemTime::now()).unwrap_or_default();
        let seconds = remaining.as_secs_f64().ceil().max(1.0) as u64;
        let resets_at = reset.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs());
        let error = Self::own(
            429,
            "rate_limit_exceeded",
            format!(
                "The account's limit for free models is reached until {time}. Wait until then, or set up a backup (BACKUPS in .env: a local model, or another free server); 10 credits, bought once at OpenRouter, raise the limit from 50 to 1000 requests a day."
            ),
            format!(
                "账户的免费额度已用完，{time} 恢复。可以等到那时，或在 .env 中用 BACKUPS 设置备用服务（本地模型或其他免费服务）；在 OpenRouter 一次性充值 10 美元（10 credits），每天的额度会从 50 次提高到 1000 次"
            ),
        );
        Self { resets_at, ..error.retry_after(seconds) }
    }

    /// OpenRouter can't answer, and every backup rests; `until` is when the first of them may be asked again.
    pub fn all_rest(reason: &Words, until: SystemTime) -> Self {
        let remaining = until.duration_since(SystemTime::now()).unwrap_or_default();
        let seconds = remaining.as_secs_f64().ceil().max(1.0) as u64;
        let (reason, chinese) = (reason.english.trim_end_matches('.'), reason.chinese.trim_end_matches('。'));
        let error = Self::own(
            429,
            "rate_limit_exceeded",
            format!("OpenRouter can't answer ({reason}), and every backup rests. Try again in {seconds} s."),
            format!("OpenRouter 无法回答（{chinese}），备用服务也都在暂停。请在 {seconds} 秒后重试"),
        );
        let resets_at = until.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs());
        // SDKs wait for a minute at most.
        let is_soon = if seconds <= 60 { "true" } else { "false" };
        Self { resets_at, ..error.retry_after(seconds).with("x-should-retry", is_soon) }
    }

    /// The backup that the client has named can't be reached.
    pub fn backup_unreachable(name: &str, reason: &str) -> Self {
        let setting = format!("{}_BASE_URL", name.to_uppercase().replace('-', "_"));
        Self::own(
            502,
            "upstream_unreachable",
            format!(
                "The backup {name} can't be reached: {reason}. Check whether it runs, and {setting} in .env."
            ),
            format!("无法连接备用服务 {name}：{reason}。请检查它是否在运行，以及 .env 中的 {setting}"),
        )
    }

    /// All workers are busy, and the queue is full.
    pub fn queue_is_full() -> Self {
        Self::own(
            503,
            "overloaded",
            "All workers are busy and the queue is full: try again in a moment, or raise WORKERS or QUEUE in .env.",
            "请求过多，队列已满：请稍后再试，或在 .env 中提高 WORKERS 或 QUEUE",
        )
        .retry_after(1)
    }

    /// Too many requests wait for the account's limit.
    pub fn too_many_wait() -> Self {
        Self::own(
            503,
            "overloaded",
            "Too many requests wait for the account's limit: try again later.",
            "等待额度恢复的请求过多：请稍后再试",
        )
        .retry_after(1)
    }

    /// The program is asked to stop.
    pub fn stopping() -> Self {
        Self::own(
            503,
            "shutting_down",
            "The proxy is stopping. Start it again to go on.",
            "代理正在停止：请重新启动后再试",
        )
    }

    /// Somebody has cancelled the call in the panel.
    pub fn cancelled() -> Self {
        Self::own(499, "cancelled", "The call was cancelled in the panel.", "调用已在面板中取消")
            .with("x-should-retry", "false")
    }

    /// The body has too many values to be translated.
    pub fn too_many_values(most: usize) -> Self {
        Self::own(
            413,
            "body_too_large",
            format!("The request has more than {most} JSON values. Send fewer, or longer, parts."),
            format!("请求中的 JSON 值超过 {most} 个：请减少 part 的数量"),
        )
    }

    /// A request in Gemini's API asks nothing.
    pub fn no_contents() -> Self {
        Self::own(
            400,
            "no_contents",
            "The request has no contents: send at least one part with a text, a picture, a file or a result.",
            "请求中没有 contents：请至少发送一个含文本、图片、文件或结果的 part",
        )
    }

    /// The client closed the connection.
    pub fn client_closed() -> Self {
        Self::new(499, "client_closed", "The client closed the connection.")
    }

    /// No byte arrived for as long as `UPSTREAM_TIMEOUT`.
    pub fn silent(limit: Duration) -> Self {
        let seconds = limit.as_secs_f64();
        Self::own(
            504,
            "upstream_timeout",
            format!("The upstream kept silent for {seconds} s (UPSTREAM_TIMEOUT in .env)."),
            format!("上游在 {seconds} 秒内没有响应（.env 中的 UPSTREAM_TIMEOUT）"),
        )
    }
}

/// Returns the beginning of what a client has sent, for a message that names it.
fn beginning(text: &str) -> String {
    const MOST_CHARACTERS: usize = 100;
    text.chars().take(MOST_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_json() {
        let error = ApiError::new(502, "upstream_error", "it said \"no\"\n");
        let body = serde_json::from_str::<serde_json::Value>(&error.body()).unwrap();
        assert_eq!(body["error"]["message"], "it said \"no\"\n");
        assert_eq!(body["error"]["param"], serde_json::Value::Null);
    }
}
