// What the page says. `{}` stands for what is filled in.

const LANGUAGES = ["en", "zh"];
const WORDS = {
  calls: ["Calls", "调用"],
  chat: ["Chat", "对话"],
  modelsTab: ["Models", "模型"],
  settings: ["Settings", "设置"],
  language: ["中文", "English"],
  theme: ["Theme", "主题"],
  copy: ["Copy", "复制"],
  copied: ["copied", "已复制"],
  copyCurl: ["Copy as curl", "复制为 curl"],

  ok: ["ok", "正常"],
  noKey: ["no key: put OPENROUTER_API_KEY into .env", "没有密钥：请在 .env 中写入 OPENROUTER_API_KEY"],
  testMode: ["built-in test model", "内置测试模型"],
  limitUntil: ["limit reached until {}", "已达限额，{} 恢复"],
  keyRefused: ["key refused: make a new one at openrouter.ai/keys", "密钥无效：请在 openrouter.ai/keys 新建一个"],
  unreachable: ["upstream unreachable", "无法连接上游"],
  gone: ["the proxy doesn't answer; trying again", "代理没有响应，正在重试"],
  off: ["debug mode is off: create DEBUG_MODE.txt beside .env", "调试模式已关闭：请在 .env 旁创建 DEBUG_MODE.txt"],

  callsToday: ["calls today", "今日调用"],
  errorsToday: ["errors today", "今日错误"],
  medianFirst: ["median first token", "首个词元中位数"],
  quota: ["free quota left", "剩余免费额度"],
  quotaUsed: ["{} used · resets {}", "已用 {} · {} 重置"],
  savedToday: ["{} saved", "节省 {} 次"],
  lastUpdate: ["last update {}", "最近更新 {}"],
  perHour: ["Calls per hour", "每小时调用"],
  hourTitle: ["{}  ok: {}, errors: {}", "{}  成功 {}，错误 {}"],
  latency: ["First token and total, s", "首个词元与总时间（秒）"],
  tokensByModel: ["Tokens by model", "各模型词元数"],

  filterText: ["Filter", "筛选"],
  allStatuses: ["all statuses", "全部状态"],
  onlyOk: ["ok", "成功"],
  onlyErrors: ["errors", "错误"],
  allModels: ["all models", "全部模型"],
  shown: ["{} of {}", "{} / {}"],
  more: ["Show more", "显示更多"],
  notSaved: ["{} files not saved", "{} 个文件未能保存"],
  notSaving: ["files are not saved: set CACHE_DIR in .env", "没有保存文件：请在 .env 中设置 CACHE_DIR"],
  time: ["Time", "时间"],
  asked: ["Asked", "请求"],
  model: ["Model", "模型"],
  status: ["Status", "状态"],
  firstToken: ["First token, s", "首个词元（秒）"],
  total: ["Total, s", "总时间（秒）"],
  tokens: ["Tokens", "词元"],
  running: ["running", "进行中"],
  noCalls: ["No calls yet. Try this in a terminal:", "还没有调用。在终端里试试："],
  noMatch: ["No call matches the filter.", "没有符合筛选条件的调用。"],

  close: ["Close", "关闭"],
  loading: ["Loading…", "加载中…"],
  notKept: ["Not kept any more: only the newest calls are, and those that CACHE_DIR has files of.", "已不再保留：只保留最新的调用，以及 CACHE_DIR 中存有文件的调用。"],
  stream: ["stream", "流式"],
  byBackup: ["answered by the backup {}", "由备用服务 {} 回答"],
  reused: ["an earlier answer, {} s old: no call was made", "重用 {} 秒前的回答，没有发出调用"],
  waited: ["waited", "等待"],
  attempts: ["Attempts", "尝试"],
  conversation: ["Conversation", "内容"],
  earlier: ["{} earlier messages", "之前的 {} 条消息"],
  reasoning: ["reasoning", "推理"],
  callTool: ["tool call", "工具调用"],
  image: ["image", "图片"],
  characters: ["{} characters", "{} 个字符"],
  vectors: ["vectors: {}, dimensions: {}", "向量 {} 个，维数 {}"],
  request: ["Request", "请求"],
  response: ["Response", "响应"],
  error: ["Error", "错误"],
  events: ["Events", "事件"],
  search: ["Search", "搜索"],
  none: ["none", "无"],

  sayHint: ["Enter sends, Shift+Enter breaks the line, Esc stops", "Enter 发送，Shift+Enter 换行，Esc 停止"],
  send: ["Send", "发送"],
  stop: ["Stop", "停止"],
  clear: ["Clear", "清空"],
  you: ["you", "你"],
  stopped: ["stopped", "已停止"],
  noteFirst: ["first token", "首个词元"],
  noteTotal: ["total", "总时间"],
  noteTokens: ["tokens", "词元"],

  sticky: [
    "A conversation keeps the model that answered it last, for {} minutes (STICKY_MINUTES), because the router picks another for every request.",
    "对话会继续使用上次回答它的模型，保留 {} 分钟（STICKY_MINUTES），因为路由器每次请求都会另选一个。",
  ],
  stickyOff: ["No conversation keeps its model (STICKY_MINUTES is 0): the router picks one for every request.", "对话不固定模型（STICKY_MINUTES 为 0）：路由器每次请求都会另选一个。"],
  listMissing: ["The list of free models can't be had: {} doesn't answer, or lists none. Trying again.", "无法获取免费模型列表：{} 没有响应，或没有列出免费模型。正在重试。"],
  listTest: ["There is no list of models: the built-in test model answers (TEST_MODE or --offline).", "没有模型列表：由内置测试模型回答（TEST_MODE 或 --offline）。"],
  context: ["Context", "上下文"],
  tools: ["Tools", "工具"],
  images: ["Images", "图片"],
  structured: ["Structured", "结构化"],
  answered: ["Answered, %", "成功率（%）"],
  medianFirstS: ["Median first token, s", "首个词元中位数（秒）"],
  state: ["State", "状态"],
  ready: ["ready", "可用"],
  rests: ["resting until {}", "暂停至 {}"],
  retired: ["gone; next try {}", "已下线，{} 再试"],
  unlisted: ["not in the list", "不在列表中"],
  useThis: ["use this", "用这个"],
  useHint: ["Copies {}={}, the line for .env", "复制 {}={}，粘贴到 .env 中"],
  inUse: ["in use", "使用中"],
  backups: ["Backups, in the order in which they are asked", "备用服务（按请求顺序）"],
  noBackups: ["None. BACKUPS in .env names servers that are asked when OpenRouter can't answer.", "没有。在 .env 的 BACKUPS 中写入备用服务，OpenRouter 无法回答时会请求它们。"],
  name: ["Name", "名称"],
  address: ["Address", "地址"],

  settingsHint: ["The settings in force. Edit .env to change them; the next request uses the new ones.", "当前生效的设置。修改 .env 即可更改，下一个请求就会使用新设置。"],
  notSet: ["not set", "未设置"],
  needsRestart: ["needs a restart", "需要重启"],
};

const remembered = localStorage.getItem("language");
let language = LANGUAGES.includes(remembered) ? remembered : navigator.language.startsWith("zh") ? "zh" : "en";

export function word(name, ...values) {
  const text = WORDS[name]?.[LANGUAGES.indexOf(language)] ?? name;
  return text.replace(/\{\}/g, () => values.shift() ?? "–");
}

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("language", language);
  showWords();
}

/** Fills in every element that names its word. */
export function showWords() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const e of document.querySelectorAll("[data-word]")) e.textContent = word(e.dataset.word);
  for (const e of document.querySelectorAll("[data-label]")) {
    e.setAttribute("aria-label", word(e.dataset.label));
    if ("placeholder" in e) e.placeholder = word(e.dataset.label);
  }
}
