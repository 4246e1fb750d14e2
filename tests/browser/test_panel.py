"""Section 6 in a real browser: what the panel shows, on a proxy that serves real calls."""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
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
EXECUTABLE = pathlib.Path(os.environ.get("LOCAL_API_PROXY_EXE", ROOT / "target/release/local-api-proxy"))
SHOTS = ROOT / "target/screenshots"
AXE = ROOT / "target/browser/node_modules/axe-core/axe.min.js"
"""From npm: tests/browser/package.json says which."""
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
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
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
    return browser.execute_script("return [...document.querySelectorAll('#rows .status')].map(e => e.textContent)")


def refresh(browser):
    """What the page does every 5 s."""
    browser.execute_script("document.dispatchEvent(new Event('visibilitychange'))")


def until_shown(browser, id, expected):
    until(browser, lambda: (refresh(browser), expected in text(browser, id))[1], f"{expected!r} in {id}")


def open_call(browser, row, expected):
    browser.execute_script("arguments[0].click()", row.find_element(By.CLASS_NAME, "time"))
    until(browser, lambda: expected in text(browser, "call"), f"{expected!r} in the opened call")


def copied(browser, label):
    """What the button with this label puts into the clipboard."""
    browser.execute_script("navigator.clipboard.writeText('')")
    button = next(b for b in browser.find_elements(By.TAG_NAME, "button") if b.text == label)
    wide = button.size
    button.click()
    until(browser, lambda: button.get_attribute("data-copied") == "copied", "the copy")
    assert button.size == wide, "nothing moves"
    return browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")


def open_panel(browser, proxy, calls):
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: len(rows(browser)) == calls and text(browser, "state") == "ok", f"{calls} rows")


def parts(browser):
    """Of today's calls: how many ended how."""
    found = browser.find_elements(By.CSS_SELECTOR, "#parts .part")
    return {part.get_attribute("data-kind"): int(part.find_element(By.TAG_NAME, "b").text.replace(",", "")) for part in found}


def cells(row):
    return {cell.get_attribute("class").split()[0]: cell.get_attribute("textContent") for cell in row.find_elements(By.TAG_NAME, "td")}


def check_access(browser, what):
    """Nothing that axe finds serious, or moderate."""
    browser.execute_script(AXE.read_text())
    found = browser.execute_async_script("axe.run(document, {resultTypes: ['violations']}).then(arguments[0])")["violations"]
    found = [f"{v['impact']}: {v['help']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] != "minor"]
    assert found == [], what


def test_no_calls_yet(browser, proxy):
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: "curl http" in text(browser, "no-calls"), "the curl line to copy")
    assert text(browser, "calls-today") == "0"
    plots = browser.execute_script("return [...document.querySelectorAll('#hours-plots svg')].map(e => e.textContent)")
    assert all("nothing yet" in plot for plot in plots), "empty plots have a word"
    shoot(browser, "empty")


def test_figures_plots_and_table(browser, proxy):
    proxy.chat("hello")
    proxy.chat("hello there", stream=True)
    proxy.chat("error 402")
    open_panel(browser, proxy, 3)
    assert parts(browser) == {"answered": 2, "errors": 1, "cancelled": 0, "refused": 0}
    assert text(browser, "calls-today") == "3"
    shown = [cells(row) for row in rows(browser)]
    assert [row["status"] for row in shown] == ["402", "200", "200"]
    assert shown[1]["words"] == "hello there" and shown[1]["tool"] == "Python urllib"
    assert (shown[1]["asked"], shown[1]["model"]) == ("gpt-4o", "a/b")
    assert shown[1]["tokens"] == "3 + 4"
    titles = browser.execute_script("return [...document.querySelectorAll('#plot-calls title')].map(e => e.textContent)")
    assert titles[-1].endswith("2 answered, 1 errors, 0 cancelled, 0 refused")
    tokens = browser.execute_script("return document.querySelector('#plot-models').textContent")
    assert "a/b:free" in tokens and "14" in tokens
    assert "Python urllib" in browser.execute_script("return document.querySelector('#plot-tools').textContent")
    until(browser, lambda: (refresh(browser), text(browser, "quota"))[1] == "38 / 50", "the quota")
    proxy.chat("hello")
    until(browser, lambda: (refresh(browser), text(browser, "quota"))[1] == "37 / 50", "one less")
    browser.find_element(By.ID, "plots-days").click()
    until(browser, lambda: browser.execute_script("return document.querySelectorAll('#plot-days g').length") == 30, "thirty days")


def test_it_refreshes_by_itself_and_keeps_what_is_open(browser, proxy):
    proxy.chat("first call")
    open_panel(browser, proxy, 1)
    open_call(browser, rows(browser)[0], "You said: first call")
    browser.execute_script("getSelection().selectAllChildren(document.querySelector('.said'))")
    marked = browser.execute_script("return getSelection().toString()")
    proxy.chat("second call")
    until(browser, lambda: len(rows(browser)) == 2, "the second row")
    assert "You said: first call" in text(browser, "call")
    assert browser.execute_script("return getSelection().toString()") == marked
    assert rows(browser)[1].find_element(By.TAG_NAME, "a").get_attribute("aria-current") == "true"


def test_an_opened_call(browser, proxy):
    proxy.chat("weather?", tools=[{"type": "function", "function": {"name": "weather", "parameters": {}}}], stream=True)
    open_panel(browser, proxy, 1)
    rows(browser)[0].find_element(By.TAG_NAME, "a").send_keys(Keys.ENTER)
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
    Select(browser.find_element(By.ID, "filter-tool")).select_by_value("Python urllib")
    until(browser, lambda: len(statuses(browser)) == 2, "the tool's calls")
    browser.find_element(By.CSS_SELECTOR, "#parts [data-kind=answered]").click()
    until(browser, lambda: statuses(browser) == ["200"], "what was answered")
    browser.find_element(By.CSS_SELECTOR, "#parts [data-kind=answered]").click()
    until(browser, lambda: len(statuses(browser)) == 2, "all of them")
    browser.find_element(By.ID, "filter-text").send_keys("nothing like this")
    until(browser, lambda: rows(browser) == [] and "No call matches" in text(browser, "no-match"), "none")


def test_the_filter_finds_words_anywhere_in_the_prompt(browser, proxy):
    """Also far behind the first words, in two places, escaped, in Chinese, and of calls that only their files hold."""
    proxy.configure("CACHE_DIR=cache")
    proxy.chat("How many legs has it? " + "word " * 200 + "The Zebra of Quagga\n你好")
    proxy.chat("hello", model="c/tools:free", User_Agent="x")
    proxy.post("/v1/chat/completions", {"model": "x", "messages": [{"role": "user", "content": "hi"}]}, User_Agent="opencode/1.18")
    for again in (False, True):
        if again:
            proxy.restart()
        open_panel(browser, proxy, 3)
        for typed, found in [("zebra", 1), ("QUAGGA zebra", 1), ("你好", 1), ("opencode hi", 1), ("tools", 1), ("legs giraffe", 0)]:
            box = browser.find_element(By.ID, "filter-text")
            box.clear()
            browser.execute_script("document.activeElement.blur()")
            browser.find_element(By.TAG_NAME, "body").send_keys("/")
            assert browser.switch_to.active_element == box, "the key for it"
            box.send_keys(typed)
            until(browser, lambda: len(rows(browser)) == found and text(browser, "shown").startswith(f"{found} of"), f"{found} with {typed}")


def test_foreign_text_never_runs(browser, proxy):
    evil_tool = {"type": "function_call", "name": EVIL, "arguments": EVIL}
    evil_image = {"type": "input_image", "image_url": EVIL}
    proxy.post("/" + urllib.parse.quote(EVIL), b"")
    proxy.post("/v1/responses", {"model": EVIL, "input": [evil_tool, {"role": EVIL, "content": [evil_image]}, {"role": "user", "content": EVIL}]})
    proxy.chat(EVIL, model=EVIL)
    open_panel(browser, proxy, 3)
    for number in range(3):
        rows(browser)[number].find_element(By.CLASS_NAME, "time").click()
        until(browser, lambda: "onerror" in text(browser, "call") and "Loading" not in text(browser, "call"), "the opened call")
        unfold = "return [...document.querySelectorAll('#call details')].every(e => { e.open = true; return e.children.length > 1 })"
        until(browser, lambda: browser.execute_script(unfold), "all that was folded")
        assert browser.execute_script("return document.querySelectorAll('#call img, #call a, #call script').length") == 0
    browser.find_element(By.ID, "tab-chat").click()
    evil = EVIL + " [x](javascript:alert(1)) ![y](javascript:alert(2)) [z](data:text/html,x) **<b onclick=alert(1)>** `<script>`"
    browser.find_element(By.ID, "words").send_keys(evil + Keys.ENTER)
    until(browser, lambda: "You said: <img" in text(browser, "talk"), "the answer")
    assert browser.title == "local-api-proxy"
    assert browser.execute_script("return document.querySelectorAll('main img, #talk a, #talk b[onclick], #talk script').length") == 0


MARKDOWN = """# Title

Some **bold**, *slanted* and `code`.
Next line, with https://example.com/x and [a link](https://example.com).

1. one
   - inside
2. two

> said

| a | b |
|---|---|
| 1 | `2` |

```python
print("x" < 1)
```
a_b_c 2 * 3 * 4"""


def test_markdown_becomes_elements(browser, proxy):
    open_panel(browser, proxy, 0)
    shown = browser.execute_async_script("""const done = arguments[1];
        import('/debug/markdown.js').then(m => { const e = m.markdown(arguments[0]); document.getElementById('talk').append(e); done([...e.querySelectorAll('*')].map(x => x.tagName.toLowerCase()).join(' ')) })""", MARKDOWN)
    assert shown == ("p p strong em code br a a ol li ul li li blockquote p div table thead tr th th tbody tr td td code "
                     "div div span button pre code p")
    kept = browser.execute_script("const e = document.querySelector('#talk .markdown'); return [e.querySelector('pre').textContent, e.lastChild.textContent, e.querySelector('a').rel]")
    assert kept == ['print("x" < 1)', "a_b_c 2 * 3 * 4", "noopener noreferrer"]
    # However it is written, it is read in no time.
    for hostile in ("*" * 50_000, "`" * 50_000, "[" * 50_000, "*a **b _c " * 10_000, "> " * 5_000, "- " * 5_000, "|" * 20_000 + "\n|-|", "x" * 100_000, " " * 50_000 + "|"):
        spent = browser.execute_async_script("const [text, done] = arguments; import('/debug/markdown.js').then(m => { const t = performance.now(); m.markdown(text); done(performance.now() - t) })", hostile)
        assert spent < 5_000, hostile[:10]


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
    until(browser, lambda: "402 Insufficient credits" in text(browser, "talk") and "Try again" in text(browser, "talk"), "the error")
    words.send_keys("a draft")
    browser.refresh()
    until(browser, lambda: text(browser, "talk").count("3 + 4 tokens") == 2, "what was said before the reload")
    words = browser.find_element(By.ID, "words")
    assert words.get_attribute("value") == "a draft"
    until(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, "#chat-model option")) > 4, "the models")
    Select(browser.find_element(By.ID, "chat-model")).select_by_value("c/tools:free")
    words.clear()
    words.send_keys("hello" + Keys.ENTER)
    until(browser, lambda: "c/tools:free" in text(browser, "talk"), "the chosen model's answer")

    before = openrouter.OpenRouter.aborted
    browser.find_element(By.ID, "clear").click()
    words.send_keys("slowly please" + Keys.ENTER)
    until(browser, lambda: "0 1 2" in text(browser, "talk"), "the stream")
    browser.find_element(By.ID, "stop").click()
    until(browser, lambda: "stopped" in text(browser, "talk"), "the end")
    assert browser.find_elements(By.CSS_SELECTOR, "#talk .bad") == [], "to stop is no error"
    until(browser, lambda: openrouter.OpenRouter.aborted == before + 1, "the upstream to be told")
    shoot(browser, "chat")
    browser.find_element(By.ID, "tab-calls").click()
    until(browser, lambda: (refresh(browser), parts(browser)["cancelled"])[1] == 1, "that it was cancelled")
    assert cells(rows(browser)[0])["tool"] == "panel"


def test_states(browser, proxy):
    """Each says what is wrong and the way out, in one line above and whole below, without a call having been made."""
    env = str(proxy.home / ".env")
    proxy.configure(f"OPENROUTER_BASE_URL={NOBODY}")
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: text(browser, "state") == "upstream unreachable", "the notice")
    assert NOBODY in text(browser, "notice") and "directly" in text(browser, "notice")
    shoot(browser, "unreachable")
    proxy.configure(f"OPENROUTER_BASE_URL=http://openrouter.invalid/api/v1", "HTTP_PROXY=http://127.0.0.1:2")
    until(browser, lambda: (refresh(browser), "through the proxy 127.0.0.1:2" in text(browser, "notice"))[1], "by which way")
    proxy.configure(key="")
    until(browser, lambda: (refresh(browser), text(browser, "state") == "no key")[1], "no key")
    assert env in text(browser, "notice") and "OPENROUTER_API_KEY=" in text(browser, "notice")
    assert browser.title.startswith("no key")
    shoot(browser, "no-key")
    proxy.configure(key="OPENROUTER_API_KEY=sk-or-v1-refused-0bad")
    proxy.chat("error 401")
    until(browser, lambda: (refresh(browser), text(browser, "state") == "key refused")[1], "the refused key")
    assert env in text(browser, "notice")
    shoot(browser, "key-refused")
    proxy.configure()
    proxy.chat("hello")
    until(browser, lambda: (refresh(browser), text(browser, "state") == "ok")[1], "that it works")
    assert not browser.find_element(By.ID, "notice").is_displayed()
    proxy.chat("the day's limit")
    until(browser, lambda: (refresh(browser), text(browser, "state").startswith("limit reached until "))[1], "the limit")
    until(browser, lambda: (refresh(browser), text(browser, "quota"))[1] == "0 / 50", "that nothing is left")
    assert text(browser, "state")[-5:] in text(browser, "notice") and text(browser, "state") in browser.title
    shoot(browser, "limit")
    (proxy.home / "DEBUG_MODE.txt").unlink()
    until(browser, lambda: (refresh(browser), text(browser, "state") == "debug mode is off")[1], "that it is off")
    browser.get(f"{proxy.url}/debug")
    assert str(proxy.home / "DEBUG_MODE.txt") in browser.find_element(By.TAG_NAME, "pre").text
    check_access(browser, "off")
    shoot(browser, "off")
    (proxy.home / "DEBUG_MODE.txt").write_text("")
    until(browser, lambda: browser.find_elements(By.ID, "state"), "the panel, by itself")


def test_the_keyboard_is_enough(browser, proxy):
    for number in range(3):
        proxy.chat(f"call {number}")
    open_panel(browser, proxy, 3)
    active = lambda: browser.switch_to.active_element
    in_table = lambda: browser.execute_script("return Boolean(document.activeElement.closest('#rows'))")
    for _ in range(40):
        active().send_keys(Keys.TAB)
        if in_table():
            break
    active().send_keys(Keys.ARROW_DOWN)
    active().send_keys(Keys.ENTER)
    until(browser, lambda: "You said: call 1" in text(browser, "call"), "the second row's call")
    assert "#call=" in browser.current_url
    active().send_keys("j")
    until(browser, lambda: "You said: call 0" in text(browser, "call"), "the next")
    active().send_keys("k")
    active().send_keys("k")
    until(browser, lambda: "You said: call 2" in text(browser, "call"), "the one before")
    address = browser.current_url
    active().send_keys(Keys.ARROW_RIGHT)
    until(browser, lambda: "You said: call 1" in text(browser, "call"), "the next by an arrow")
    active().send_keys(Keys.ARROW_LEFT)
    until(browser, lambda: "You said: call 2" in text(browser, "call"), "the one before by an arrow")
    active().send_keys(Keys.ESCAPE)
    until(browser, lambda: in_table() and not browser.find_element(By.ID, "call").is_displayed(), "the way back")
    browser.get("about:blank")
    browser.get(address)
    until(browser, lambda: "You said: call 2" in text(browser, "call"), "the call of an address")
    unnamed = browser.execute_script("""return [...document.querySelectorAll('button, input, select, textarea')]
        .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)""")
    assert unnamed == []


def test_an_address_with_a_call_shows_its_answer(browser, proxy):
    proxy.chat("question " * 400 + "?")
    [call] = proxy.get("calls")["calls"]
    browser.get(f"{proxy.url}/debug#call={call['message_id']}")
    until(browser, lambda: "You said" in text(browser, "call") and browser.execute_script("return Boolean(document.querySelector('#plot-calls svg rect'))"), "all of the page")
    answer = "const [box, said] = [document.getElementById('call'), [...document.querySelectorAll('#call .said')].at(-1)].map(e => e.getBoundingClientRect());"
    assert browser.execute_script(answer + "return said.top < box.bottom - 40 && said.bottom > box.top"), "the answer is in sight"


def test_a_phones_way_back_leads_to_the_same_place(browser, proxy):
    for number in range(30):
        proxy.chat(f"call {number}")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True})
    open_panel(browser, proxy, 30)
    browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'; document.querySelectorAll('#rows tr')[20].scrollIntoView()")
    before = browser.execute_script("return scrollY")
    assert before > 300
    open_call(browser, rows(browser)[22], "You said: call 7")
    assert browser.execute_script("return document.getElementById('call').getBoundingClientRect().top") < 844
    browser.find_element(By.CSS_SELECTOR, "#call .back").click()
    until(browser, lambda: abs(browser.execute_script("return scrollY") - before) < 2, "the place where the table was")


def test_an_address_with_a_key(browser, proxy):
    proxy.configure("PROXY_API_KEY=open-sesame")
    url = proxy.url.replace("://", "://me:open-sesame@")
    browser.get(f"{url}/debug")
    until(browser, lambda: text(browser, "state") == "ok", "the state")
    browser.find_element(By.ID, "tab-chat").click()
    browser.find_element(By.ID, "words").send_keys("hello", Keys.ENTER)
    until(browser, lambda: "You said: hello" in text(browser, "talk"), "the answer")


def test_five_thousand_calls(browser, proxy):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: proxy.chat(f"call {number}"), range(5000)))
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: text(browser, "calls-today") == "5,000", "the count")
    assert len(rows(browser)) == 200, "more when asked for"
    browser.find_element(By.ID, "more").click()
    until(browser, lambda: len(rows(browser)) == 400, "more rows")
    assert "1,000" in text(browser, "shown"), "the newest 1,000 are kept"
    title = browser.execute_script("return [...document.querySelectorAll('#plot-calls title')].reduce((n, e) => n + +e.textContent.match(/([0-9,]+) answered/)[1].replaceAll(',', ''), 0)")
    assert title == 5000, "the plot knows of all of them"


def test_times_are_the_proxys(browser, proxy):
    """Half an hour and half a day away from the browser's."""
    proxy.restart(TZ="Asia/Kolkata")
    proxy.chat("hello")
    open_panel(browser, proxy, 1)
    browser_offset, proxy_offset = browser.execute_script("return new Date().getTimezoneOffset()"), proxy.get("stats")["utc_offset_minutes"]
    assert (-browser_offset, proxy_offset) in [(-8 * 60, 330), (-7 * 60, 330)], "the test would prove nothing"
    begun = proxy.get("calls")["calls"][0]["timestamp"][11:19]
    assert cells(rows(browser)[0])["time"] == begun
    titles = browser.execute_script("return [...document.querySelectorAll('#plot-calls title')].map(e => e.textContent)")
    hour = proxy.get("stats")["last_updated"][11:13]
    assert titles[-1].startswith(f"{hour}:00: 1 answered") and len(titles) == 24
    labels = browser.execute_script("return [...document.querySelectorAll('#plot-calls text')].map(e => e.textContent)")
    assert labels[:2] == [f"{(int(hour) + 1) % 24:02}:00", f"{hour}:00"]
    until_shown(browser, "quota-note", "resets 05:30")


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
CONVERSATION = """for (const e of document.querySelectorAll('#call details')) if (/earlier message/.test(e.firstChild.textContent)) { e.open = true; e.unfold?.(); }
    return [...document.querySelectorAll('#call .said')].map(box => [...box.children].map(
    part => part.tagName === 'IMG' ? (part.naturalWidth ? '#' : 'broken') : part.tagName === 'DETAILS' ? (part.open ? 'open' : part.firstChild.textContent.trim()) : part.textContent).join('|'))"""


def test_every_api_reads_like_a_conversation(browser, proxy):
    for _, path, body, _ in DIALECTS:
        proxy.post(path, {"model": "gpt-4o", **body})
    open_panel(browser, proxy, len(DIALECTS))
    apis = [call["dialect"] for call in proxy.get("calls")["calls"]]
    assert apis[::-1] == [name for name, *_ in DIALECTS]
    for row, (_, path, body, conversation) in zip(rows(browser)[::-1], DIALECTS):
        browser.execute_script("arguments[0].click()", row.find_element(By.CLASS_NAME, "time"))
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
    open_call(browser, rows(browser)[0], "98 earlier messages")
    assert "turn 98" in text(browser, "call") and "turn 79" not in text(browser, "call")
    assert "5,000 characters word word" in text(browser, "call"), "what was asked folds"
    assert text(browser, "call").count("word " * 200) > 0, "what was answered doesn't"
    assert overflow(browser, "#call") <= 0 and overflow(browser, "#table") <= 0
    sight = browser.execute_script("const e = [...document.querySelectorAll('#call .said')].at(-1).getBoundingClientRect(); return [e.top, innerHeight]")
    assert sight[0] < sight[1], "the answer is in sight"
    browser.execute_script("[...document.querySelectorAll('#call button')].find(e => e.textContent === 'Expand all').click()")
    until(browser, lambda: "turn 79" in text(browser, "call") and "rule " * 200 in text(browser, "call"), "all of it")


def test_results_of_tools_fold(browser, proxy):
    long, short = "\n".join(f"line {n}" for n in range(40)), "one\ntwo"
    turns = [{"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}}]}]
    proxy.chat("", messages=[{"role": "user", "content": "read"}, *turns, {"role": "tool", "tool_call_id": "c", "content": long}, {"role": "tool", "tool_call_id": "c", "content": short}])
    open_panel(browser, proxy, 1)
    open_call(browser, rows(browser)[0], "40 lines")
    assert "line 39" not in text(browser, "call") and "one\ntwo" in text(browser, "call")


def test_what_was_changed_on_the_way(browser, proxy):
    proxy.chat("hello", preset="p", web_search_options={})
    open_panel(browser, proxy, 1)
    open_call(browser, rows(browser)[0], "Changed on the way")
    assert 'model "gpt-4o" → "openrouter/free"' in text(browser, "call") and "preset dropped" in text(browser, "call")


def test_refused_requests(browser, proxy):
    proxy.chat("hello")
    proxy.post("/v1/v1/chat/completions", {})
    proxy.post("/v1/chat/completions", b"{'messages': []}")
    proxy.post("/v1/responses", {}, Host="evil.example")
    open_panel(browser, proxy, 4)
    asked = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#rows .words")]
    assert list(zip(statuses(browser), asked)) == [
        ("403", "POST /v1/responses"), ("400", "POST /v1/chat/completions"), ("404", "POST /v1/v1/chat/completions"), ("200", "hello")]
    assert parts(browser) == {"answered": 1, "errors": 0, "cancelled": 0, "refused": 3}, "they were no errors"
    host, quotes, twice, _ = rows(browser)
    open_call(browser, twice, "The tool adds /v1 by itself")
    assert "404 not_found" in text(browser, "call") and "Copy as curl" not in text(browser, "call") and "Not kept" not in text(browser, "call")
    open_call(browser, quotes, "JSON wants double")
    open_call(browser, host, "forbidden_host")
    Select(browser.find_element(By.ID, "filter-status")).select_by_value("refused")
    browser.find_element(By.ID, "filter-text").send_keys("v1/v1")
    until(browser, lambda: statuses(browser) == ["404"], "what was looked for")


def test_tries_backups_and_waiting(browser, proxy, upstream):
    proxy.configure("RETRIES=1", "FALLBACK_MODELS=c/tools:free")
    proxy.chat("error 503", model="a/b:free")
    open_panel(browser, proxy, 1)
    assert statuses(browser) == ["503 ×2"]
    open_call(browser, rows(browser)[0], "Attempts")
    tries = [item.text.split(" (")[0] for item in browser.find_elements(By.CSS_SELECTOR, "#call ol li")]
    assert tries == ["a/b:free: 503 No instances available", "c/tools:free: 503"]

    backup = ["CACHE_DIR=cache", f"OPENROUTER_BASE_URL={NOBODY}", "BACKUPS=spare", f"SPARE_BASE_URL=http://127.0.0.1:{upstream}/api/v1", "SPARE_MODEL=a/b:free"]
    proxy.configure(*backup)
    proxy.chat("hello", stream=True)
    until(browser, lambda: (refresh(browser), len(rows(browser)) == 2)[1], "the second row")
    assert cells(rows(browser)[0])["model"] == "spare · a/b"
    open_call(browser, rows(browser)[0], "answered by the backup spare")
    assert [item.text.split(":")[0] for item in browser.find_elements(By.CSS_SELECTOR, "#call ol li")][-1] == "spare · a/b"
    legend = [span.text.rsplit(" ", 2)[0] for span in browser.find_elements(By.CSS_SELECTOR, "#call .timing span")]
    assert legend == ["first token", "total"]
    parts = browser.execute_script("return [...document.querySelectorAll('#call .timing div i')].map(e => e.getBoundingClientRect().width)")
    bar = browser.execute_script("return document.querySelector('#call .timing div').getBoundingClientRect().width")
    assert len(parts) == 2 and abs(sum(parts) - bar) < 1 and parts[0] > bar / 2, "the refused connection took its time"
    assert "connection refused" in text(browser, "call")
    browser.find_element(By.ID, "language").click()
    until(browser, lambda: "连接被拒绝" in text(browser, "call"), "the reason in Chinese")
    proxy.restart()
    browser.refresh()
    until(browser, lambda: "连接被拒绝" in text(browser, "call"), "it, after a restart")


def test_an_answer_that_came_again(browser, proxy):
    proxy.configure("REUSE_ANSWERS=5")
    proxy.chat("hello", stream=True)
    proxy.chat("hello", stream=True)
    open_panel(browser, proxy, 2)
    assert statuses(browser) == ["200 ↺", "200"]
    assert "1 reused" in text(browser, "parts")
    calls = proxy.get("stats")["models"][0]["calls"]
    assert calls == 1, "how fast the models are is not what it shows"
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
    row = dict(zip([call["dialect"] for call in proxy.get("calls")["calls"]], rows(browser)))
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
        window.fetch = (path, options) => path.includes('/debug/calls/') ? new Promise(go => window.release = () => go(real(path, {}))) : real(path, options)""")
    open_call(browser, rows(browser)[0], "Loading…")
    assert "POST /v1/chat/completions" in text(browser, "call")
    browser.execute_script("release()")
    until(browser, lambda: "You said: hello" in text(browser, "call") and "Loading" not in text(browser, "call"), "the whole")


def test_a_call_under_way(browser, proxy):
    openrouter.OpenRouter.release.clear()
    openrouter.OpenRouter.holding.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(proxy.chat, "held")
        assert openrouter.OpenRouter.holding.wait(20)
        open_panel(browser, proxy, 1)
        assert statuses(browser) == ["running"] and re.fullmatch(r"\d+ s", cells(rows(browser)[0])["total"])
        open_call(browser, rows(browser)[0], "held")
        openrouter.OpenRouter.release.set()
    until(browser, lambda: "You said: held" in text(browser, "call") and statuses(browser) == ["200"], "its end")


def test_a_stream_is_seen_as_it_comes_and_cancelled(browser, proxy):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(proxy.chat, "slowly please", stream=True)
        until(browser, lambda: proxy.get("calls")["calls"], "the call")
        open_panel(browser, proxy, 1)
        open_call(browser, rows(browser)[0], "0 1 2")
        so_far = len(text(browser, "call"))
        until(browser, lambda: len(text(browser, "call")) > so_far + 20, "more of it")
        assert "so far" in text(browser, "call")
        shoot(browser, "running")
        browser.find_element(By.CSS_SELECTOR, "#call .cancel").click()
        until(browser, lambda: statuses(browser) == ["cancelled"], "its end")
    assert parts(browser)["cancelled"] == 1


MODELS = "return [...document.querySelectorAll('#model-rows tr')].map(row => [...row.children].map(cell => cell.textContent))"


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
    resting = time.strftime("rests until %H:%M", time.gmtime(until_ms / 1000 + offset * 60))
    heads = browser.execute_script("return [...document.querySelectorAll('#model-heads th')].map(e => e.dataset.name)")
    found = {row[1]: dict(zip(heads, row)) | {"use": row[-1]} for row in browser.execute_script(MODELS)}
    ids = lambda: [row[1] for row in browser.execute_script(MODELS)]
    assert sorted(found) == ["a/b", "c/tools", "d/eyes", "e/words", "openrouter/free"]
    best = [model["id"] for model in sorted((m for m in proxy.get("models")["models"] if m["rank"]), key=lambda m: m["rank"])]
    assert [f"{id}:free" for id in ids()[:len(best)]] == best, "the order in which `best` asks"
    ab = found["a/b"]
    assert [ab[name] for name in ("context", "tools", "images", "structured", "seenCalls", "answeredShare", "state", "use")] == ["131,072", "✓", "✓", "✓", "3", "67", "ready", "Use this"]
    assert float(ab["medianFirstS"]) < 5 and float(ab["share"]) < 100 and ab["rank"].isdigit() and float(ab["worth"]) > 0
    assert (found["c/tools"]["seenCalls"], found["c/tools"]["use"]) == ("0", "in use")
    assert (found["d/eyes"]["state"], found["d/eyes"]["rank"]) == (resting, "–")
    assert "for 30 minutes (STICKY_MINUTES)" in text(browser, "sticky")
    shoot(browser, "models")
    for width in (1920, 1280, 1101, 1024, 820, 390):
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 860, "deviceScaleFactor": 1, "mobile": False})
        assert overflow(browser, "#models-page") <= 0 and overflow(browser, "html") <= 0, f"all of it is in sight at {width} px while a model rests"
        shoot(browser, f"models-{width}")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    heads = {button.text: button for button in browser.find_elements(By.CSS_SELECTOR, "#model-heads button")}
    heads["Context"].click()
    assert ids() == ["c/tools", "openrouter/free", "a/b", "d/eyes", "e/words"]
    assert browser.find_element(By.CSS_SELECTOR, "[aria-sort=descending]").text.startswith("Context")
    heads["Context"].click()
    assert ids() == ["e/words", "d/eyes", "a/b", "openrouter/free", "c/tools"]
    heads["Answered, %"].click()
    assert ids()[:2] == ["a/b", "d/eyes"]
    heads["Answered, %"].click()
    assert ids()[:2] == ["d/eyes", "a/b"], "what isn't known stays last"
    heads["Model"].click()
    assert ids() == sorted(ids())
    browser.find_element(By.CSS_SELECTOR, "#model-filter [name=images]").click()
    assert ids() == ["a/b", "d/eyes", "openrouter/free"]
    browser.find_element(By.ID, "model-text").send_keys("EYES")
    assert ids() == ["d/eyes"] and text(browser, "models-shown") == "1 of 5"
    assert copied(browser, "Use this") == "MODEL=d/eyes:free"


def test_an_expired_model_is_not_offered(browser, proxy):
    browser.get(f"{proxy.url}/debug")
    browser.execute_script("""const real = window.fetch;
        window.fetch = async (path, options) => {
          const response = await real(path, options);
          if (!String(path).endsWith('/debug/models')) return response;
          const list = await response.json();
          list.models.find(m => m.id === 'd/eyes:free').expired = true;
          return new Response(JSON.stringify(list));
        }""")
    browser.find_element(By.ID, "tab-models").click()
    until(browser, lambda: len(browser.execute_script(MODELS)) == 5, "the models")
    found = {row[1]: row for row in browser.execute_script(MODELS)}
    assert "expired" in found["d/eyes"] and "Use this" not in found["d/eyes"] and "Use this" in found["a/b"]
    browser.find_element(By.ID, "tab-chat").click()
    offered = lambda: [option.get_attribute("value") for option in browser.find_elements(By.CSS_SELECTOR, "#chat-model option")]
    until(browser, lambda: "a/b:free" in offered(), "the models to choose from")
    assert "d/eyes:free" not in offered()


def test_backups_in_their_order(browser, proxy, upstream):
    open_models(browser, proxy)
    until(browser, lambda: "BACKUPS in .env" in text(browser, "no-backups"), "how to have some")
    proxy.configure("BACKUPS=first,second", f"OPENROUTER_BASE_URL={NOBODY}", f"FIRST_BASE_URL={NOBODY}", "FIRST_MODEL=x", f"SECOND_BASE_URL=http://127.0.0.1:{upstream}/api/v1", "SECOND_MODEL=a/b:free")
    proxy.chat("hello")
    until(browser, lambda: (refresh(browser), len(browser.find_elements(By.CSS_SELECTOR, "#backup-rows tr")) == 2)[1], "the backups")
    first, second = [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in browser.find_elements(By.CSS_SELECTOR, "#backup-rows tr")]
    assert first[:3] == ["first", "x", NOBODY] and re.fullmatch(r"rests until \d\d:\d\d", first[3])
    assert second == ["second", "a/b:free", f"http://127.0.0.1:{upstream}/api/v1", "ready"]
    assert text(browser, "no-backups") == ""


def test_when_the_list_of_models_cant_be_had(browser, proxy, monkeypatch):
    proxy.configure(f"OPENROUTER_BASE_URL={NOBODY}", "STICKY_MINUTES=0")
    open_models(browser, proxy)
    until(browser, lambda: f"{NOBODY} doesn't answer" in text(browser, "models-missing"), "the reason")
    assert [row[1] for row in browser.execute_script(MODELS)] == ["openrouter/free"]
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
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: proxy.chat(f"call {number}"), range(1000)))
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: len(rows(browser)) == 200, "the rows")
    size, paint, again = browser.execute_async_script("""const done = arguments[0];
        const entries = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
        const files = entries.filter(e => !/(calls\\?.*|stats|state|settings)$/.test(e.name));
        const data = () => performance.getEntriesByType('resource').filter(e => /calls.since/.test(e.name)).map(e => e.encodedBodySize);
        document.dispatchEvent(new Event('visibilitychange'));
        setTimeout(() => done([files.reduce((n, e) => n + e.encodedBodySize, 0), performance.getEntriesByName('first-contentful-paint')[0].startTime, data()]), 1500);""")
    print(f"{size} bytes, first paint after {paint:.0f} ms, calls {again}")
    assert 0 < size <= 90 * 1024
    assert again[0] > 100_000 and again[-1] < 200, "only what is new"


def test_copy_as_curl_for_cmd(browser, proxy):
    """Nothing in it means anything to cmd.exe, and what curl gets is the same JSON."""
    body = {"model": "AT&T", "messages": [{"role": "user", "content": "a & calc.exe | b > c < d ^ e %PATH% !x! \"q\" \\ '1' (2) \n 你好 😀 & echo \\\""}], "n": 1.5}
    proxy.post("/v1/chat/completions", body)
    open_panel(browser, proxy, 1)
    line, said = browser.execute_async_script("""const done = arguments[0];
        import('/debug/curl.js').then(async (m) => {
          const { calls } = await (await fetch('/debug/calls')).json();
          const call = await (await fetch('/debug/calls/' + calls[0].message_id)).json();
          done([m.curl(call, 'cmd'), m.curl(call, 'sh')]);
        })""")
    argument = line.split(" -d ", 1)[1]
    assert argument[0] == argument[-1] == '"' and not set("&|<>^%!()\n") & set(argument) and argument.isascii()
    inside = argument[1:-1]
    assert inside.replace('\\"', "").count('"') == 0, "each quote is escaped"
    assert json.loads(inside.replace('\\"', '"')) == body, "as the C runtime reads it"
    heard = subprocess.run(["sh", "-c", said.replace("curl ", "printf '%s\\n' ", 1)], capture_output=True, text=True).stdout
    assert json.loads(heard.split(" -d\n")[-1].split("-d\n", 1)[1]) == body


@pytest.mark.skipif(not shutil.which("wine"), reason="no cmd.exe here")
def test_cmd_takes_it_for_data(browser, proxy, tmp_path):
    proxy.chat("x & echo hacked > hacked.txt & \" & echo hacked > hacked2.txt | %USERNAME% ^")
    open_panel(browser, proxy, 1)
    line = browser.execute_async_script("""const done = arguments[0];
        import('/debug/curl.js').then(async (m) => {
          const { calls } = await (await fetch('/debug/calls')).json();
          done(m.curl(await (await fetch('/debug/calls/' + calls[0].message_id)).json(), 'cmd'));
        })""")
    (tmp_path / "try.bat").write_text("@" + line.replace("curl ", "echo ", 1) + "\r\n")
    environment = os.environ | {"WINEPREFIX": str(tmp_path / "wine"), "WINEDEBUG": "-all"}
    heard = subprocess.run(["wine", "cmd", "/c", "try.bat"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300).stdout
    assert line.split("curl ", 1)[1] in heard, "to the letter"
    assert list(tmp_path.glob("hacked*")) == []


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
    until(browser, lambda: "...wxyz" in text(browser, "setting-rows"), "the masked key")
    assert "browser-test" not in browser.page_source
    assert str(proxy.home / ".env") in text(browser, "settings-page")


def test_connect(browser, proxy):
    open_panel(browser, proxy, 0)
    browser.find_element(By.ID, "tab-connect").click()
    until(browser, lambda: "Claude Code" in text(browser, "connect-tools") and "Codex" in text(browser, "connect-tools"), "the tools")
    browser.find_element(By.CSS_SELECTOR, "#connect-tools summary").click()
    assert proxy.url in text(browser, "connect-tools")
    shoot(browser, "connect")


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


LOOKS = [(name, width, height, theme, language) for name, width, height in [("phone", 390, 844), ("tablet", 820, 1100), ("usual", 1280, 860), ("wide", 1920, 1080)]
         for theme, language in [("light", "en"), ("dark", "zh")]]


@pytest.mark.parametrize("name, width, height, theme, language", LOOKS)
def test_looks(browser, proxy, name, width, height, theme, language):
    for number in range(12):
        proxy.chat(f"question {number}", stream=number % 2 == 0)
    proxy.chat("error 402")
    proxy.post("/v1/v1/chat/completions", {})
    proxy.chat("", messages=[{"role": "user", "content": "word " * 2000}], model="vendor/" + "m" * 150)
    phone = width < 500  # no window is that narrow
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone})
    browser.get(f"{proxy.url}/debug")
    browser.execute_script(f"localStorage.setItem('theme', '{theme}'); localStorage.setItem('language', '{language}')")
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: len(rows(browser)) == 15, "the rows")
    look = f"{name}-{theme}"
    shoot(browser, look)
    check_access(browser, look)
    assert "POST /v1" in rows(browser)[1].text, "what was refused is told, however narrow"
    open_call(browser, rows(browser)[3], "You said: question")
    for part in ("html", "#call", "#table"):
        assert overflow(browser, part) <= 0, f"nothing is cut off at the side of {part}"
    top = browser.execute_script("return document.getElementById('call').getBoundingClientRect().top")
    assert -1 <= top < height, "the opened call is in sight"
    shoot(browser, f"{look}-call")
    check_access(browser, f"{look}-call")
    header = browser.execute_script("return document.querySelector('header').getBoundingClientRect().height")
    assert header < (90 if phone else 60), "the top line stays slim"
    if phone:
        assert not browser.find_element(By.ID, "table").is_displayed(), "a page of its own"
        browser.find_element(By.CSS_SELECTOR, "#call .back").click()
        until(browser, lambda: browser.find_element(By.ID, "table").is_displayed(), "the way back")
        boxes = browser.execute_script("return [...document.querySelectorAll('#calls-page *')].filter(e => e.clientHeight && e.scrollHeight > e.clientHeight + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowY)).map(e => e.id || e.className)")
        assert boxes == [], "no box scrolls within the page"
    edges = set()
    for tab, ready in [("chat", "words"), ("models", "model-rows"), ("connect", "connect-tools"), ("settings", "setting-rows")]:
        browser.find_element(By.ID, f"tab-{tab}").click()
        until(browser, lambda: browser.find_element(By.ID, ready).is_displayed() and (tab == "chat" or text(browser, ready)), tab)
        shoot(browser, f"{look}-{tab}")
        check_access(browser, f"{look}-{tab}")
        assert overflow(browser, "html") <= 0 and overflow(browser, f"#{tab}-page") <= 0, f"nothing is cut off in {tab}"
        edges.add(browser.execute_script("return [...arguments[0].children].find(e => e.clientWidth).getBoundingClientRect().left", browser.find_element(By.ID, f"{tab}-page")))
    assert len(edges) == 1, "one left edge"


def overflow(browser, selector):
    return browser.execute_script("const e = document.querySelector(arguments[0]); return e.scrollWidth - e.clientWidth", selector)


def shoot(browser, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(SHOTS / f"{name}.png"))


TOOLS = {"claude-cli/2.1.0 (external, cli)": "Claude Code", "codex_cli_rs/0.99.0": "Codex", "aider/0.86": "aider", "opencode/1.1": "opencode", "GeminiCLI/0.9": "Gemini CLI", "curl/8.5.0": "curl"}


def test_a_thousand_calls_of_six_tools_in_every_state(browser, proxy):
    """Nothing is cut off or wraps, in either language, on any screen; and it tells which tool asked what, and what is left."""
    def one(number):
        tool = list(TOOLS)[number % len(TOOLS)]
        if number % 40 == 0:
            return proxy.post("/v1/v1/chat/completions", {}, User_Agent=tool)
        words = "error 503" if number % 10 == 1 else f"question {number} about the zebra"
        model = ["gpt-4o", "a/b:free", "vendor/a-model-with-quite-a-long-name:free"][number % 3]
        return proxy.post("/v1/chat/completions", {"model": model, "stream": number % 2 == 0, "messages": [{"role": "user", "content": words}]}, User_Agent=tool)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(999)))
    streaming = concurrent.futures.ThreadPoolExecutor(1).submit(proxy.chat, "slowly please", stream=True)
    until(browser, lambda: proxy.get("stats")["running"] == 1, "the stream")
    limit = lambda: (proxy.configure(), proxy.chat("the day's limit"))
    refused = lambda: (proxy.configure(key="OPENROUTER_API_KEY=sk-or-v1-refused-0bad"), proxy.chat("error 401"))
    states = [
        ("running", lambda: None, "ok", "正常"),
        ("unreachable", lambda: proxy.configure(f"OPENROUTER_BASE_URL={NOBODY}"), "upstream unreachable", "无法连接上游"),
        ("no-key", lambda: proxy.configure(key=""), "no key", "没有密钥"),
        ("key-refused", refused, "key refused", "密钥被拒绝"),
        ("limit", limit, "limit reached until", "额度已用完"),
    ]
    for number, (name, begin, *words) in enumerate(states):
        begin()
        for _, width, height, theme, language in LOOKS if number == 0 else LOOKS[::3] + LOOKS[1::3]:
            phone = width < 500
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone})
            browser.get(f"{proxy.url}/debug")
            browser.execute_script(f"localStorage.setItem('theme', '{theme}'); localStorage.setItem('language', '{language}')")
            browser.get(f"{proxy.url}/debug")
            until(browser, lambda: (refresh(browser), text(browser, "state").startswith(words[language == "zh"]))[1] and len(rows(browser)) >= 50, f"{name} at {width}")
            for part in ("html", "#table", "#figures", "#notice", "#filter"):
                assert overflow(browser, part) <= 0, f"{part} fits at {width} in {name}, {language}"
            sizes = browser.execute_script("return [document.querySelector('header').getBoundingClientRect().height, document.getElementById('table').clientHeight]")
            assert sizes[0] < (90 if phone else 60) and sizes[1] >= 200, f"{name} at {width}: {sizes}"
            shoot(browser, f"state-{name}-{width}-{theme}")
            if (width, language) in ((390, "zh"), (1280, "en")):
                check_access(browser, f"{name} at {width}")
            if name == "running" and language == "en":
                assert sum(parts(browser).values()) == int(text(browser, "calls-today").replace(",", "")) + 1, "the one that runs"
                assert set(TOOLS.values()) <= {option.text for option in browser.find_elements(By.CSS_SELECTOR, "#filter-tool option")}
    assert [call for call in proxy.get("calls")["calls"] if call["status"] is None], "it still runs"
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    id = next(call["message_id"] for call in proxy.get("calls")["calls"] if call["status"] is None)
    urllib.request.urlopen(urllib.request.Request(f"{proxy.url}/debug/calls/{id}", method="DELETE"))
    streaming.result(20)
