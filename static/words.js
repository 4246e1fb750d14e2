// What the page says, in English and Chinese.

const WORDS = {
  en: {
    calls: "Calls", chat: "Chat", settings: "Settings", language: "中文", theme: "Theme", copied: "copied", copy: "Copy",
    copyCurl: "Copy as curl", callsToday: "calls today", errorsToday: "errors today", medianFirst: "median first token",
    quota: "free quota left", lastUpdate: "last update", perHour: "Calls per hour", latency: "First token and total, s",
    tokensByModel: "Tokens by model", filterText: "Filter", allStatuses: "all statuses", onlyOk: "ok", onlyErrors: "errors",
    allModels: "all models", time: "Time", asked: "Asked", usedModel: "Model", status: "Status", firstToken: "First token, s",
    total: "Total, s", tokens: "Tokens", openedCall: "Opened call", model: "Model", message: "Message",
    sayHint: "Enter sends, Shift+Enter breaks the line, Esc stops", send: "Send", stop: "Stop", clear: "Clear",
    settingsHint: "The settings in force. Edit .env to change them; the next request uses the new ones.",
    needsRestart: "needs a restart", ok: "ok", noKey: "no key: put OPENROUTER_API_KEY into .env", testMode: "built-in test model",
    limitUntil: "limit reached until", gone: "the proxy doesn't answer; trying again", off: "debug mode is off: create DEBUG_MODE.txt beside .env",
    noCalls: "No calls yet. Try this in a terminal:", noMatch: "No call matches the filter.", shown: "shown", of: "of",
    close: "Close", request: "Request", response: "Response", error: "Error", text: "Conversation", raw: "Raw JSON",
    attempts: "Attempts", waited: "waited", running: "running", none: "none", noText: "Too long ago: only the figures are kept.",
    notSaved: "files not saved", notSaving: "files are not saved: set CACHE_DIR in .env", unreachable: "upstream unreachable", used: "used", events: "Events", search: "Search", reasoning: "reasoning",
    noteFirst: "first token", noteTotal: "total", noteTokens: "tokens", more: "Show more", resets: "resets", you: "you", stopped: "stopped", callTool: "tool call",
  },
  zh: {
    calls: "调用", chat: "对话", settings: "设置", language: "English", theme: "主题", copied: "已复制", copy: "复制",
    copyCurl: "复制为 curl", callsToday: "今日调用", errorsToday: "今日错误", medianFirst: "首个词元中位数",
    quota: "剩余免费额度", lastUpdate: "最近更新", perHour: "每小时调用", latency: "首个词元与总时间（秒）",
    tokensByModel: "各模型词元数", filterText: "筛选", allStatuses: "全部状态", onlyOk: "成功", onlyErrors: "错误",
    allModels: "全部模型", time: "时间", asked: "请求的模型", usedModel: "模型", status: "状态", firstToken: "首个词元（秒）",
    total: "总时间（秒）", tokens: "词元", openedCall: "打开的调用", model: "模型", message: "消息",
    sayHint: "Enter 发送，Shift+Enter 换行，Esc 停止", send: "发送", stop: "停止", clear: "清空",
    settingsHint: "当前生效的设置。修改 .env 即可更改，下一个请求就会使用新设置。",
    needsRestart: "需要重启", ok: "正常", noKey: "没有密钥：请在 .env 中写入 OPENROUTER_API_KEY", testMode: "内置测试模型",
    limitUntil: "已达到限额，直到", gone: "代理没有响应，正在重试", off: "调试模式已关闭：请在 .env 旁创建 DEBUG_MODE.txt",
    noCalls: "还没有调用。在终端里试试：", noMatch: "没有符合筛选条件的调用。", shown: "条", of: "/",
    close: "关闭", request: "请求", response: "响应", error: "错误", text: "对话", raw: "原始 JSON",
    attempts: "尝试", waited: "等待", running: "进行中", none: "无", noText: "时间太久，只保留了数字。",
    notSaved: "个文件未能保存", notSaving: "没有保存文件：请在 .env 中设置 CACHE_DIR", unreachable: "无法连接上游", used: "已用", events: "事件", search: "搜索", reasoning: "推理",
    noteFirst: "首个词元", noteTotal: "总时间", noteTokens: "词元", more: "显示更多", resets: "重置时间", you: "你", stopped: "已停止", callTool: "工具调用",
  },
};

const remembered = localStorage.getItem("language");
let language = remembered in WORDS ? remembered : navigator.language.startsWith("zh") ? "zh" : "en";

export const word = (name) => WORDS[language][name] ?? name;

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("language", language);
  showWords();
}

/** Fills in every element that names its word. */
export function showWords() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const e of document.querySelectorAll("[data-word]")) e.textContent = word(e.dataset.word);
  for (const e of document.querySelectorAll("[data-placeholder]")) e.placeholder = word(e.dataset.placeholder);
  for (const e of document.querySelectorAll("[data-label]")) e.setAttribute("aria-label", word(e.dataset.label));
}
