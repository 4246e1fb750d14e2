"""Section 6 in a real browser: what the panel shows, on a proxy that serves real calls."""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/sdk"))
import openrouter  # noqa: E402

NOBODY = "http://127.0.0.1:1/api/v1"
EXECUTABLE = ROOT / "target/release/local-api-proxy"
SHOTS = ROOT / "target/screenshots"
BROWSER_ZONE = "America/Los_Angeles"
"""Another one than the proxy's, in every test."""
EVIL = "<img src=x onerror=\"document.title='hacked'\"></script><script>document.title='hacked'</script> javascript:alert(1)"


class Proxy:
    def __init__(self, home, upstream, port="0"):
        self.home = home
        self.upstream = f"http://127.0.0.1:{upstream}/api/v1"
        self.configure()
        (home / "DEBUG_MODE.txt").write_text("")
        self.start(port)

    def configure(self, *settings, key="OPENROUTER_API_KEY=sk-or-v1-browser-test-wxyz"):
        """Writes the settings; the last of a name counts."""
        lines = [key, f"OPENROUTER_BASE_URL={self.upstream}", "RETRIES=0", *settings]
        (self.home / ".env").write_text("\n".join(lines) + "\n")

    def start(self, port, **more):
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")} | more
        command = [EXECUTABLE, "--dir", self.home, "--port", port]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for line in self.process.stdout:
            if line.strip().startswith("address"):
                break
        self.url = line.split()[1].removesuffix("/v1")

    def chat(self, words, **more):
        return self.post("/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": words}], **more})

    def post(self, path, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            return urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers)).read()
        except urllib.error.HTTPError as error:
            return error.read()

    def get(self, path):
        return json.load(urllib.request.urlopen(f"{self.url}/debug/{path}"))

    def restart(self, **environment):
        port = self.url.rsplit(":", 1)[1]
        self.stop()
        self.start(port, **environment)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(20) == 0


@pytest.fixture(scope="session")
def upstream():
    return openrouter.start()


@pytest.fixture
def proxy(tmp_path, upstream):
    proxy = Proxy(tmp_path, upstream)
    yield proxy
    proxy.stop()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--lang=en-US", "--disable-component-update",
                     "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    zone = {**os.environ, "TZ": BROWSER_ZONE}
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver", env=zone))
    driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, proxy):
    """Each proxy has its own port, so what the page remembers is new each time."""
    chromium.set_window_size(1280, 860)
    chromium.get_log("browser")
    yield chromium
    complaints = [entry["message"] for entry in chromium.get_log("browser") if "Content Security Policy" in entry["message"] or "Uncaught" in entry["message"]]
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.get("about:blank")
    assert complaints == []


def until(browser, found, what):
    return WebDriverWait(browser, 20).until(lambda _: found(), f"waited in vain for {what}")


def text(browser, id):
    return browser.find_element(By.ID, id).text


def rows(browser):
    return browser.find_elements(By.CSS_SELECTOR, "#rows tr")


def statuses(browser):
    return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#rows .status")]


def refresh(browser):
    """What the page does every 5 s."""
    browser.execute_script("document.dispatchEvent(new Event('visibilitychange'))")


def until_shown(browser, id, expected):
    until(browser, lambda: (refresh(browser), expected in text(browser, id))[1], f"{expected!r} in {id}")


def open_call(browser, row, expected):
    row.click()
    until(browser, lambda: expected in text(browser, "call"), f"{expected!r} in the opened call")


def copied(browser, label):
    """What the button with this label puts into the clipboard."""
    browser.execute_script("navigator.clipboard.writeText('')")
    button = next(b for b in browser.find_elements(By.TAG_NAME, "button") if b.text == label)
    button.click()
    until(browser, lambda: button.text == "copied", "the copy")
    return browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")


def open_panel(browser, proxy, calls):
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: len(rows(browser)) == calls and text(browser, "state") == "ok", f"{calls} rows")


def test_no_calls_yet(browser, proxy):
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: "curl http" in text(browser, "no-calls"), "the curl line to copy")
    assert text(browser, "count") == "0"
    shoot(browser, "empty")


def test_figures_plots_and_table(browser, proxy):
    proxy.chat("hello")
    proxy.chat("hello there", stream=True)
    proxy.chat("error 402")
    open_panel(browser, proxy, 3)
    assert (text(browser, "count"), text(browser, "errors")) == ("2", "1")
    cells = [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows(browser)]
    assert [row[4] for row in cells] == ["402", "200", "200"]
    assert cells[1][1:4] == ["chat", "gpt-4o", "a/b:free"]
    assert cells[1][7] == "3 + 4"
    titles = browser.execute_script("return [...document.querySelectorAll('#plot-hours title')].map(e => e.textContent)")
    assert titles[-1].endswith("ok: 2, errors: 1")
    tokens = browser.execute_script("return document.querySelector('#plot-tokens').textContent")
    assert "a/b:free" in tokens and "14" in tokens
    until(browser, lambda: (refresh(browser), text(browser, "quota"))[1] == "38 / 50", "the quota")


def test_it_refreshes_by_itself_and_keeps_what_is_open(browser, proxy):
    proxy.chat("first call")
    open_panel(browser, proxy, 1)
    rows(browser)[0].click()
    until(browser, lambda: "You said: first call" in text(browser, "call"), "the opened call")
    browser.execute_script("getSelection().selectAllChildren(document.querySelector('.said'))")
    marked = browser.execute_script("return getSelection().toString()")
    proxy.chat("second call")
    until(browser, lambda: len(rows(browser)) == 2, "the second row")
    assert "You said: first call" in text(browser, "call")
    assert browser.execute_script("return getSelection().toString()") == marked
    assert rows(browser)[1].get_attribute("aria-selected") == "true"


def test_an_opened_call(browser, proxy):
    proxy.chat("weather?", tools=[{"type": "function", "function": {"name": "weather", "parameters": {}}}], stream=True)
    open_panel(browser, proxy, 1)
    rows(browser)[0].send_keys(Keys.ENTER)
    until(browser, lambda: "tool call: weather" in text(browser, "call"), "the tool call")
    request, answer, events = browser.find_elements(By.CSS_SELECTOR, "#call section")
    assert "parameters" not in request.text, "folded"
    request.find_element(By.CSS_SELECTOR, "input").send_keys("PARAMETERS")
    until(browser, lambda: "parameters" in request.text and "messages" not in request.text, "what was searched for")
    assert [button.text for button in request.find_elements(By.TAG_NAME, "button")] == ["Copy", "Copy as curl"]
    assert "completion_tokens: 4" in answer.text
    events.find_element(By.TAG_NAME, "summary").click()
    until(browser, lambda: "data: [DONE]" in events.text and '"delta"' in events.text, "the events")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(browser, lambda: not browser.find_element(By.ID, "call").is_displayed(), "the call to close")


def test_filters(browser, proxy):
    proxy.chat("hello")
    proxy.chat("error 402")
    open_panel(browser, proxy, 2)
    Select(browser.find_element(By.ID, "filter-status")).select_by_value("errors")
    until(browser, lambda: statuses(browser) == ["402"], "the error alone")
    Select(browser.find_element(By.ID, "filter-status")).select_by_value("")
    Select(browser.find_element(By.ID, "filter-model")).select_by_value("a/b:free")
    until(browser, lambda: statuses(browser) == ["200"], "the model's call")
    Select(browser.find_element(By.ID, "filter-model")).select_by_value("")
    browser.find_element(By.ID, "filter-text").send_keys("nothing like this")
    assert rows(browser) == [] and "No call matches" in text(browser, "no-match")


def test_foreign_text_never_runs(browser, proxy):
    evil_tool = {"type": "function_call", "name": EVIL, "arguments": EVIL}
    evil_image = {"type": "input_image", "image_url": EVIL}
    proxy.post("/" + urllib.parse.quote(EVIL), b"")
    proxy.post("/v1/responses", {"model": EVIL, "input": [evil_tool, {"role": EVIL, "content": [evil_image]}, {"role": "user", "content": EVIL}]})
    proxy.chat(EVIL, model=EVIL)
    open_panel(browser, proxy, 3)
    for row in rows(browser):
        row.click()
        until(browser, lambda: "onerror" in text(browser, "call") and "Loading" not in text(browser, "call"), "the opened call")
        unfold = "return [...document.querySelectorAll('#call details')].every(e => { e.open = true; return e.children.length > 1 })"
        until(browser, lambda: browser.execute_script(unfold), "all that was folded")
        assert browser.execute_script("return document.querySelectorAll('#call img, #call a, #call script').length") == 0
    browser.find_element(By.ID, "tab-chat").click()
    browser.find_element(By.ID, "chat-model").send_keys(EVIL)
    browser.find_element(By.ID, "words").send_keys(EVIL + Keys.ENTER)
    until(browser, lambda: "You said: <img" in text(browser, "talk"), "the answer")
    assert browser.title == "local-api-proxy"
    assert browser.execute_script("return document.querySelectorAll('img, a[href^=javascript]').length") == 0


def test_chat(browser, proxy):
    open_panel(browser, proxy, 0)
    browser.find_element(By.ID, "tab-chat").click()
    words = browser.find_element(By.ID, "words")
    words.send_keys("hello" + Keys.ENTER)
    until(browser, lambda: "3 + 4 tokens" in text(browser, "talk"), "the answer")
    assert "a/b:free" in text(browser, "talk")
    words.send_keys("again" + Keys.ENTER)
    until(browser, lambda: text(browser, "talk").count("3 + 4 tokens") == 2, "the second answer")
    assert len(openrouter.OpenRouter.received[-1][2]["messages"]) == 3, "the conversation goes on"
    words.send_keys("error 402" + Keys.ENTER)
    until(browser, lambda: "Insufficient credits" in text(browser, "talk"), "the error")

    before = openrouter.OpenRouter.aborted
    browser.find_element(By.ID, "clear").click()
    words.send_keys("slowly please" + Keys.ENTER)
    until(browser, lambda: "0 1 2" in text(browser, "talk"), "the stream")
    browser.find_element(By.ID, "stop").click()
    until(browser, lambda: "stopped" in text(browser, "talk"), "the end")
    until(browser, lambda: openrouter.OpenRouter.aborted == before + 1, "the upstream to be told")
    shoot(browser, "chat")


def test_unreachable_and_without_a_key(browser, proxy):
    proxy.configure(f"OPENROUTER_BASE_URL={NOBODY}")
    proxy.chat("hello")
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: text(browser, "state") == "upstream unreachable", "the notice")
    proxy.configure(key="")
    until(browser, lambda: "put OPENROUTER_API_KEY into .env" in text(browser, "state"), "what to write where")
    proxy.configure(key="OPENROUTER_API_KEY=sk-or-v1-refused-0bad")
    proxy.chat("error 401")
    until(browser, lambda: (refresh(browser), text(browser, "state").startswith("key refused"))[1], "the refused key")


def test_the_keyboard_is_enough(browser, proxy):
    for number in range(3):
        proxy.chat(f"call {number}")
    open_panel(browser, proxy, 3)
    active = lambda: browser.switch_to.active_element
    for _ in range(30):
        active().send_keys(Keys.TAB)
        if active().tag_name == "tr":
            break
    active().send_keys(Keys.ARROW_DOWN)
    active().send_keys(Keys.ENTER)
    until(browser, lambda: "You said: call 1" in text(browser, "call"), "the second row's call")
    active().send_keys(Keys.ESCAPE)
    until(browser, lambda: active().get_attribute("aria-selected") == "false" and active().tag_name == "tr", "the way back")
    unnamed = browser.execute_script("""return [...document.querySelectorAll('button, input, select, textarea')]
        .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)""")
    assert unnamed == []


def test_five_thousand_calls(browser, proxy):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: proxy.chat(f"call {number}"), range(5000)))
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: text(browser, "count") == "5,000", "the count")
    assert len(rows(browser)) == 200, "more when asked for"
    browser.find_element(By.ID, "more").click()
    until(browser, lambda: len(rows(browser)) == 400, "more rows")
    assert "1,000" in text(browser, "shown"), "the newest 1,000 are kept"
    title = browser.execute_script("return [...document.querySelectorAll('#plot-hours title')].reduce((n, e) => n + +e.textContent.match(/ok: ([0-9,]+)/)[1].replaceAll(',', ''), 0)")
    assert title == 5000, "the plot knows of all of them"


def test_times_are_the_proxys(browser, proxy):
    """Half an hour and half a day away from the browser's."""
    proxy.restart(TZ="Asia/Kolkata")
    proxy.chat("hello")
    open_panel(browser, proxy, 1)
    browser_offset, proxy_offset = browser.execute_script("return new Date().getTimezoneOffset()"), proxy.get("stats")["utc_offset_minutes"]
    assert (-browser_offset, proxy_offset) in [(-8 * 60, 330), (-7 * 60, 330)], "the test would prove nothing"
    begun = proxy.get("calls")["calls"][0]["timestamp"][11:19]
    assert rows(browser)[0].text.startswith(f"{begun} chat")
    assert text(browser, "updated").split()[-1] == proxy.get("stats")["last_updated"][11:19]
    titles = browser.execute_script("return [...document.querySelectorAll('#plot-hours title')].map(e => e.textContent)")
    hour = proxy.get("stats")["last_updated"][11:13]
    assert titles[-1] == f"{hour}:00  ok: 1, errors: 0" and len(titles) == 24
    labels = browser.execute_script("return [...document.querySelectorAll('#plot-hours text')].map(e => e.textContent)")
    yesterday = labels[0].split()[0] if hour != "23" else ""
    assert labels[:2] == [f"{yesterday} {(int(hour) + 1) % 24:02}:00".strip(), f"{hour}:00"]
    assert hour == "23" or re.fullmatch(r"\d\d-\d\d", yesterday)
    until_shown(browser, "quota-reset", "resets 05:30")


IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP4z8DAwPD/PwMDAwMDAwAo8gUBW7Y0zQAAAABJRU5ErkJggg=="
FUNCTION = {"name": "weather", "parameters": {}}
THINKING = {"type": "enabled", "budget_tokens": 1024}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
                                 {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}, {"type": "file", "file": {"filename": "a.pdf"}}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}}]},
    {"role": "tool", "tool_call_id": "c", "content": "21 degrees"},
]
ITEMS = [
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
    {"role": "user", "content": [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "21 degrees"},
    {"type": "custom_tool_call", "call_id": "d", "name": "apply_patch", "input": "*** Begin Patch"},
    {"type": "custom_tool_call_output", "call_id": "d", "output": "patched"},
    {"type": "brand_new", "id": "x"},
]
MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
                                 {"type": "document", "title": "a.pdf", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}]},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "tool_use", "id": "t", "name": "weather", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "21 degrees"}]}]},
]
OLLAMA = [
    {"role": "user", "content": "Look", "images": [IMAGE]},
    {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "x"}}}]},
    {"role": "tool", "tool_name": "weather", "content": "21 degrees"},
]
# The API's name, its path, the body, and the conversation as it reads: a box a line, its parts behind bars, images as #.
DIALECTS = [
    ("chat", "/v1/chat/completions", {"messages": CHAT, "tools": [{"type": "function", "function": FUNCTION}]},
     ["system|Be brief.", "user|Look|#|[image] https://example.com/cat.png|file a.pdf", "assistant|tool call: weather", "tool|21 degrees", "assistant|The tool said: 21 degrees"]),
    ("chat", "/v1/chat/completions", {"messages": CHAT[:1], "reasoning": {"effort": "high"}, "tools": [{"type": "function", "function": FUNCTION}]},
     ["system|Be brief.", "assistant|reasoning|tool call: weather"]),
    ("responses", "/v1/responses", {"instructions": "Be brief.", "input": "hello"}, ["system|Be brief.", "user|hello", "assistant|You said: hello"]),
    ("responses", "/v1/responses", {"input": ITEMS, "reasoning": {"effort": "high"}, "tools": [{"type": "function", **FUNCTION}]},
     ["developer|Be brief.", "user|Look|#", "assistant|reasoning|tool call: weather", "tool|21 degrees", "assistant|tool call: apply_patch", "tool|patched", "brand_new|brand_new",
      "assistant|reasoning|tool call: weather"]),
    ("messages", "/v1/messages", {"max_tokens": 9, "system": [{"type": "text", "text": "Be brief."}], "messages": MESSAGES, "thinking": THINKING,
                                  "tools": [{"name": "weather", "input_schema": {"type": "object"}}]},
     ["system|Be brief.", "user|Look|#|document a.pdf", "assistant|reasoning|tool call: weather", "tool|21 degrees", "assistant|reasoning|The tool said: 21 degrees"]),
    ("completions", "/v1/completions", {"prompt": "once upon"}, ["user|once upon", "assistant|You said: once upon"]),
    ("embeddings", "/v1/embeddings", {"model": "n/embed:free", "input": ["one", "two"]}, ["user|one", "user|two", "vectors: 2, dimensions: 4"]),
    ("embeddings", "/v1/embeddings", {"model": "n/embed:free", "input": "one", "encoding_format": "base64"}, ["user|one", "vectors: 1, dimensions: 4"]),
    ("embeddings", "/v1/embeddings", {"model": "n/embed:free", "input": [[1, 2, 3]]}, ["user|3 tokens", "vectors: 1, dimensions: 4"]),
    ("ollama", "/api/chat", {"messages": OLLAMA, "think": True, "tools": [{"type": "function", "function": FUNCTION}]},
     ["user|Look|#", "assistant|reasoning|tool call: weather", "tool · weather|21 degrees", "assistant|reasoning|The tool said: 21 degrees"]),
    ("ollama", "/api/generate", {"system": "Be brief.", "prompt": "Look", "images": [IMAGE], "stream": False}, ["system|Be brief.", "user|Look|#", "assistant|You said: image"]),
    ("ollama", "/api/embed", {"model": "n/embed:free", "input": "one"}, ["user|one", "vectors: 1, dimensions: 4"]),
]
CONVERSATION = """return [...document.querySelectorAll('#call .said')].map(box => [...box.children].map(
    part => part.tagName === 'IMG' ? (part.naturalWidth ? '#' : 'broken') : part.tagName === 'DETAILS' ? (part.open ? 'open' : part.firstChild.textContent.trim()) : part.textContent).join('|'))"""


def test_every_api_reads_like_a_conversation(browser, proxy):
    for _, path, body, _ in DIALECTS:
        proxy.post(path, {"model": "gpt-4o", **body})
    open_panel(browser, proxy, len(DIALECTS))
    apis = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#rows .api")]
    assert apis[::-1] == [name for name, *_ in DIALECTS]
    for row, (_, path, body, conversation) in zip(rows(browser)[::-1], DIALECTS):
        row.click()
        until(browser, lambda: browser.execute_script(CONVERSATION) == conversation, f"{path} as {conversation}")
        assert f"POST {path}" in text(browser, "call")
        curl = copied(browser, "Copy as curl")
        assert curl.startswith(f"curl {proxy.url}{path} -d '{{\"model\":") and "wxyz" not in curl and "uthorization" not in curl
    shoot(browser, "dialects")


def test_what_has_no_known_shape(browser, proxy):
    """It is shown as JSON, whatever stands where something else is expected."""
    no_text = {"toString": 1, "valueOf": 1}
    bodies = [{"messages": 5}, {"messages": [None, 7, [], {"role": "user", "content": {"mark": 1}}]}, {"messages": [{"role": no_text, "content": [{"type": "tool_use", "name": no_text}]}]}]
    for body in bodies:
        proxy.post("/v1/chat/completions", body)
    open_panel(browser, proxy, len(bodies))
    for row in rows(browser):
        open_call(browser, row, "messages:")
        assert "Copy as curl" in text(browser, "call")


def test_folded_tool_calls_open(browser, proxy):
    proxy.chat("call weather {\"city\": \"Paris\"}", tools=[{"type": "function", "function": FUNCTION}])
    open_panel(browser, proxy, 1)
    open_call(browser, rows(browser)[0], "tool call: weather")
    assert "Paris" not in browser.find_elements(By.CSS_SELECTOR, "#call .said")[-1].text
    browser.find_element(By.CSS_SELECTOR, "#call .said summary").click()
    until(browser, lambda: 'city: "Paris"' in browser.find_elements(By.CSS_SELECTOR, "#call .said")[-1].text, "its arguments")


def test_streams_of_every_api(browser, proxy):
    """What was put together from a stream, and what had arrived of one that broke off."""
    said = {"/v1/chat/completions": lambda words: {"messages": [{"role": "user", "content": words}]}, "/v1/responses": lambda words: {"input": words},
            "/v1/messages": lambda words: {"max_tokens": 9, "messages": [{"role": "user", "content": words}]}, "/v1/completions": lambda words: {"prompt": words}}
    for path, body in said.items():
        proxy.post(path, {"model": "x", "stream": True, **body("hello")})
        try:
            proxy.post(path, {"model": "x", "stream": True, **body("breaks off, word by word")})
        except OSError:
            pass
    open_panel(browser, proxy, 8)
    assert statuses(browser) == ["502", "200"] * 4
    for broken, whole in zip(rows(browser)[::2], rows(browser)[1::2]):
        open_call(browser, whole, "You said: hello")
        open_call(browser, broken, "The upstream broke off")
        boxes = browser.execute_script(CONVERSATION)
        assert boxes[1].startswith("assistant|You ") and boxes[2].startswith("Error|The upstream broke off"), boxes
        assert "stream" in text(browser, "call") and "Events" in text(browser, "call")


def test_long_texts_and_long_conversations(browser, proxy):
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n} " + "long" * 100} for n in range(99)]
    proxy.chat("", messages=[{"role": "system", "content": "rule " * 5000}, *turns, {"role": "user", "content": "word " * 1000}], model="m" * 150)
    open_panel(browser, proxy, 1)
    open_call(browser, rows(browser)[0], "81 earlier messages")
    assert "turn 98" in text(browser, "call") and "turn 79" not in text(browser, "call")
    assert "5,000 characters word word" in text(browser, "call"), "what was asked folds"
    assert text(browser, "call").count("word " * 200) > 0, "what was answered doesn't"
    assert overflow(browser, "#call") <= 0 and overflow(browser, "#table") <= 0
    browser.find_element(By.CSS_SELECTOR, "#call > details > summary").click()
    until(browser, lambda: "turn 79" in text(browser, "call") and "25,000 characters rule" in text(browser, "call"), "the earlier ones")


def test_refused_requests(browser, proxy):
    proxy.chat("hello")
    proxy.post("/v1/v1/chat/completions", {})
    proxy.post("/v1/chat/completions", b"{'messages': []}")
    proxy.post("/v1/responses", {}, Host="evil.example")
    open_panel(browser, proxy, 4)
    asked = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#rows .asked")]
    assert list(zip(statuses(browser), asked)) == [
        ("403", "POST /v1/responses"), ("400", "POST /v1/chat/completions"), ("404", "POST /v1/v1/chat/completions"), ("200", "gpt-4o")]
    assert text(browser, "errors") == "0", "they were no calls"
    host, quotes, twice, _ = rows(browser)
    open_call(browser, twice, "The tool adds /v1 by itself")
    assert "404 not_found" in text(browser, "call") and "Copy as curl" not in text(browser, "call") and "Not kept" not in text(browser, "call")
    open_call(browser, quotes, "JSON wants double")
    open_call(browser, host, "forbidden_host")
    Select(browser.find_element(By.ID, "filter-status")).select_by_value("errors")
    browser.find_element(By.ID, "filter-text").send_keys("v1/v1")
    until(browser, lambda: statuses(browser) == ["404"], "what was looked for")


def test_tries_backups_and_waiting(browser, proxy, upstream):
    proxy.configure("RETRIES=1", "FALLBACK_MODELS=c/tools:free")
    proxy.chat("error 503", model="a/b:free")
    open_panel(browser, proxy, 1)
    assert statuses(browser) == ["503 ×2"]
    open_call(browser, rows(browser)[0], "Attempts")
    tries = [item.text.split(" (")[0] for item in browser.find_elements(By.CSS_SELECTOR, "#call li")]
    assert tries == ["a/b:free: 503 No instances available", "c/tools:free: 503"]

    backup = [f"OPENROUTER_BASE_URL={NOBODY}", "BACKUPS=spare", f"SPARE_BASE_URL=http://127.0.0.1:{upstream}/api/v1", "SPARE_MODEL=a/b:free"]
    proxy.configure(*backup)
    proxy.chat("hello", stream=True)
    until(browser, lambda: (refresh(browser), len(rows(browser)) == 2)[1], "the second row")
    assert rows(browser)[0].find_element(By.CLASS_NAME, "model").text == "spare · a/b:free"
    open_call(browser, rows(browser)[0], "answered by the backup spare")
    assert [item.text.split(":")[0] for item in browser.find_elements(By.CSS_SELECTOR, "#call li")][-1] == "spare · a/b"
    legend = [span.text.rsplit(" ", 2)[0] for span in browser.find_elements(By.CSS_SELECTOR, "#call .timing span")]
    assert legend == ["first token", "total"]
    parts = browser.execute_script("return [...document.querySelectorAll('#call .timing div i')].map(e => e.getBoundingClientRect().width)")
    bar = browser.execute_script("return document.querySelector('#call .timing div').getBoundingClientRect().width")
    assert len(parts) == 2 and abs(sum(parts) - bar) < 1 and parts[0] > bar / 2, "the refused connection took its time"


def test_an_answer_that_came_again(browser, proxy):
    proxy.configure("REUSE_ANSWERS=5")
    proxy.chat("hello", stream=True)
    proxy.chat("hello", stream=True)
    open_panel(browser, proxy, 2)
    assert statuses(browser) == ["200 ↺", "200"]
    assert text(browser, "updated").startswith("1 saved · last update")
    bands = browser.find_elements(By.CSS_SELECTOR, "#plot-latency g")
    assert len(bands) == 1, "how fast the models are is not what it shows"
    open_call(browser, rows(browser)[0], "You said: hello")
    assert re.search(r"an earlier answer, \d s old: no call was made", text(browser, "call"))
    open_call(browser, rows(browser)[1], "You said: hello")
    assert "an earlier answer" not in text(browser, "call")


def test_calls_of_an_earlier_run(browser, proxy):
    proxy.configure("CACHE_DIR=cache")
    proxy.chat("from a file")
    proxy.post("/v1/messages", {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "error 402"}]})
    proxy.restart()
    open_panel(browser, proxy, 2)
    row = {row.find_element(By.CLASS_NAME, "api").text: row for row in rows(browser)}
    open_call(browser, row["chat"], "You said: from a file")
    open_call(browser, row["messages"], "Insufficient credits")
    for file in (proxy.home / "cache").iterdir():
        file.unlink()
    open_call(browser, row["chat"], "Not kept any more")
    assert "Request" not in text(browser, "call") and "POST /v1/chat/completions" in text(browser, "call")


def test_what_memory_has_no_room_for(browser, proxy):
    for _ in range(3):
        proxy.chat("large " * 2_000_000)
    open_panel(browser, proxy, 3)
    open_call(browser, rows(browser)[2], "Not kept any more")
    open_call(browser, rows(browser)[0], "12,000,000 characters")


def test_a_call_that_is_long_in_coming(browser, proxy):
    """What the table knows is there at once."""
    proxy.chat("hello")
    open_panel(browser, proxy, 1)
    browser.execute_script("""const real = window.fetch;
        window.fetch = (path, options) => path.startsWith('/debug/calls/') ? new Promise(go => window.release = () => go(real(path, {}))) : real(path, options)""")
    open_call(browser, rows(browser)[0], "Loading…")
    assert "Status 200 · POST /v1/chat/completions" in text(browser, "call")
    browser.execute_script("release()")
    until(browser, lambda: "You said: hello" in text(browser, "call") and "Loading" not in text(browser, "call"), "the whole")


def test_a_call_under_way(browser, proxy):
    openrouter.OpenRouter.release.clear()
    openrouter.OpenRouter.holding.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(proxy.chat, "held")
        assert openrouter.OpenRouter.holding.wait(20)
        open_panel(browser, proxy, 1)
        assert statuses(browser) == ["running"]
        open_call(browser, rows(browser)[0], "held")
        openrouter.OpenRouter.release.set()
    until(browser, lambda: "You said: held" in text(browser, "call") and statuses(browser) == ["200"], "its end")


MODELS = "return [...document.querySelectorAll('#models tr')].map(row => [...row.children].map(cell => cell.textContent))"


def open_models(browser, proxy):
    browser.get(f"{proxy.url}/debug")
    browser.find_element(By.ID, "tab-models").click()


def test_models(browser, proxy, monkeypatch):
    real = openrouter.OpenRouter.send
    monkeypatch.setattr(openrouter.OpenRouter, "send", lambda self, status, body, headers={}: real(self, status, body, headers | ({"Retry-After": "300"} if status == 429 else {})))
    proxy.configure("MODEL=c/tools:free")
    for words, model in [("hello", "a/b:free"), ("hello", "a/b:free"), ("error 503", "a/b:free"), ("error 429", "d/eyes:free")]:
        proxy.chat(words, model=model, stream=True)
    open_models(browser, proxy)
    until(browser, lambda: len(browser.execute_script(MODELS)) == 5, "the models")
    until_ms = next(model for model in proxy.get("models")["models"] if model["id"] == "d/eyes:free")["rests_until_ms"]
    offset = proxy.get("stats")["utc_offset_minutes"]
    resting = time.strftime("resting until %H:%M", time.gmtime(until_ms / 1000 + offset * 60))
    found = {row[0]: row[1:] for row in browser.execute_script(MODELS)}
    assert list(found) == ["openrouter/free", "a/b:free", "c/tools:free", "d/eyes:free", "e/words:free"], "the upstream's order"
    assert found["a/b:free"][:6] == ["131,072", "✓", "✓", "✓", "3", "66"] and found["a/b:free"][7:] == ["ready", "use this"]
    assert float(found["a/b:free"][6]) < 5
    assert found["c/tools:free"] == ["262,144", "✓", "–", "–", "0", "–", "–", "ready", "in use"]
    assert found["d/eyes:free"] == ["32,768", "–", "✓", "–", "1", "0", "–", resting, "use this"]
    assert "for 30 minutes (STICKY_MINUTES)" in text(browser, "sticky")
    shoot(browser, "models")

    heads = {button.text: button for button in browser.find_elements(By.CSS_SELECTOR, "#model-heads button")}
    ids = lambda: [row[0] for row in browser.execute_script(MODELS)]
    heads["Context"].click()
    assert ids() == ["c/tools:free", "openrouter/free", "a/b:free", "d/eyes:free", "e/words:free"]
    assert browser.find_element(By.CSS_SELECTOR, "[aria-sort=descending]").text.startswith("Context")
    heads["Context"].click()
    assert ids() == ["e/words:free", "d/eyes:free", "a/b:free", "openrouter/free", "c/tools:free"]
    heads["Answered, %"].click()
    assert ids()[:2] == ["a/b:free", "d/eyes:free"]
    heads["Answered, %"].click()
    assert ids()[:2] == ["d/eyes:free", "a/b:free"], "what isn't known stays last"
    heads["Model"].click()
    assert ids() == sorted(ids())
    browser.find_element(By.CSS_SELECTOR, "#model-filter [name=images]").click()
    assert ids() == ["a/b:free", "d/eyes:free", "openrouter/free"]
    browser.find_element(By.ID, "model-text").send_keys("EYES")
    assert ids() == ["d/eyes:free"] and text(browser, "models-shown") == "1 of 5"
    assert copied(browser, "use this") == "MODEL=d/eyes:free"


def test_backups_in_their_order(browser, proxy, upstream):
    open_models(browser, proxy)
    until(browser, lambda: "BACKUPS in .env" in text(browser, "no-backups"), "how to have some")
    proxy.configure("BACKUPS=first,second", f"OPENROUTER_BASE_URL={NOBODY}", f"FIRST_BASE_URL={NOBODY}", "FIRST_MODEL=x", f"SECOND_BASE_URL=http://127.0.0.1:{upstream}/api/v1", "SECOND_MODEL=a/b:free")
    proxy.chat("hello")
    until(browser, lambda: (refresh(browser), len(browser.find_elements(By.CSS_SELECTOR, "#backups tr")) == 2)[1], "the backups")
    first, second = [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in browser.find_elements(By.CSS_SELECTOR, "#backups tr")]
    assert first[:3] == ["first", "x", NOBODY] and re.fullmatch(r"resting until \d\d:\d\d", first[3])
    assert second == ["second", "a/b:free", f"http://127.0.0.1:{upstream}/api/v1", "ready"]
    assert text(browser, "no-backups") == ""


def test_when_the_list_of_models_cant_be_had(browser, proxy, monkeypatch):
    proxy.configure(f"OPENROUTER_BASE_URL={NOBODY}", "STICKY_MINUTES=0")
    open_models(browser, proxy)
    until(browser, lambda: f"{NOBODY} doesn't answer" in text(browser, "models-missing"), "the reason")
    assert [row[0] for row in browser.execute_script(MODELS)] == ["openrouter/free"]
    assert "STICKY_MINUTES is 0" in text(browser, "sticky")
    shoot(browser, "models-missing")
    proxy.configure("TEST_MODE=true")
    until_shown(browser, "models-missing", "built-in test model")

    listed = threading.Event()
    real = openrouter.OpenRouter.do_GET
    monkeypatch.setattr(openrouter.OpenRouter, "do_GET", lambda self: (listed.wait(20), real(self)))
    proxy.configure()
    open_models(browser, proxy)
    until(browser, lambda: text(browser, "models-missing") == "Loading…", "what it waits for")
    listed.set()
    until(browser, lambda: len(browser.execute_script(MODELS)) == 5 and text(browser, "models-missing") == "", "the list")


def test_small_and_soon_there(browser, proxy):
    open_panel(browser, proxy, 0)
    size, paint = browser.execute_script("""
        const entries = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
        const files = entries.filter(e => !/(calls|stats|state|settings)$/.test(e.name));
        return [files.reduce((n, e) => n + e.encodedBodySize, 0), performance.getEntriesByName('first-contentful-paint')[0].startTime];""")
    print(f"{size} bytes, first paint after {paint:.0f} ms")
    assert 0 < size <= 60 * 1024


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(browser, proxy, theme):
    """WCAG 2 AA: 4.5 : 1 for text."""
    open_panel(browser, proxy, 0)
    browser.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
    pairs = [(ink, back) for back in ("back", "raised") for ink in ("ink", "dim", "accent", "good", "bad", "warn")]
    pairs += [("accent", "accent-soft"), ("dim", "accent-soft"), ("ink", "accent-soft")]
    for ink, back in pairs:
        colors = browser.execute_script("""
            return arguments.map(name => { const e = document.createElement('i'); e.style.color = `var(--${name})`; document.body.append(e);
                const c = getComputedStyle(e).color; e.remove(); return c; })""".replace("arguments.map", "[...arguments].map"), ink, back)
        light, dark = sorted((luminance(color) for color in colors), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {back}, {theme}"


def luminance(color):
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_settings_are_masked(browser, proxy):
    open_panel(browser, proxy, 0)
    browser.find_element(By.ID, "tab-settings").click()
    until(browser, lambda: "...wxyz" in text(browser, "settings"), "the masked key")
    assert "browser-test" not in browser.page_source


def test_chinese_and_english(browser, proxy):
    open_panel(browser, proxy, 0)
    browser.find_element(By.ID, "language").click()
    until(browser, lambda: text(browser, "tab-calls") == "调用", "Chinese")
    browser.refresh()
    until(browser, lambda: "还没有调用" in text(browser, "no-calls"), "Chinese, remembered")
    missing = browser.execute_script("return [...document.querySelectorAll('[data-word]')].filter(e => !e.textContent || e.textContent === e.dataset.word).map(e => e.dataset.word)")
    assert missing == []


def test_gone_and_back(browser, proxy):
    proxy.chat("hello")
    open_panel(browser, proxy, 1)
    port = proxy.url.rsplit(":", 1)[1]
    proxy.stop()
    until(browser, lambda: "doesn't answer" in text(browser, "state"), "the notice")
    assert len(rows(browser)) == 1, "it keeps what it had"
    proxy.start(port)
    until(browser, lambda: text(browser, "state") == "ok", "the recovery")


LOOKS = [("light", 1280, 860, "light", "en"), ("dark", 1280, 860, "dark", "zh"), ("phone", 360, 800, "light", "en"), ("phone-dark", 360, 800, "dark", "zh"), ("tablet", 950, 800, "light", "en"),
         ("wide", 2560, 1200, "light", "zh")]


@pytest.mark.parametrize("name, width, height, theme, language", LOOKS)
def test_looks(browser, proxy, name, width, height, theme, language):
    for number in range(12):
        proxy.chat(f"question {number}", stream=number % 2 == 0)
    proxy.chat("error 402")
    proxy.post("/v1/v1/chat/completions", {})
    phone = width < 500  # no window is that narrow
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone})
    browser.get(f"{proxy.url}/debug")
    browser.execute_script(f"localStorage.setItem('theme', '{theme}'); localStorage.setItem('language', '{language}')")
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: len(rows(browser)) == 14, "the rows")
    shoot(browser, name)
    open_call(browser, rows(browser)[2], "You said: question")
    assert overflow(browser, "html") <= 0, "nothing is cut off at the side"
    assert overflow(browser, "#table") <= 0, "nor in the table"
    assert overflow(browser, "#call") <= 0, "nor in the call"
    top = browser.execute_script("return document.getElementById('call').getBoundingClientRect().top")
    assert -1 <= top < height, "the opened call is in sight"
    shoot(browser, f"{name}-call")
    header = browser.execute_script("return document.querySelector('header').getBoundingClientRect().height")
    assert header < (90 if phone else 60), "the top line stays slim"
    assert "POST /v1" in rows(browser)[0].text, "what was refused is told, however narrow"
    browser.find_element(By.ID, "tab-models").click()
    until(browser, lambda: len(browser.execute_script(MODELS)) == 5, "the models")
    shoot(browser, f"{name}-models")
    assert overflow(browser, "html") <= 0 and overflow(browser, "#models-page") <= 0, "nothing is cut off there either"


def overflow(browser, selector):
    return browser.execute_script("const e = document.querySelector(arguments[0]); return e.scrollWidth - e.clientWidth", selector)


def shoot(browser, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(SHOTS / f"{name}.png"))
