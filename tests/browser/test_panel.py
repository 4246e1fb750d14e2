"""Section 6 in a real browser: what the panel shows, on a proxy that serves real calls."""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.request

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/sdk"))
import openrouter  # noqa: E402

EXECUTABLE = ROOT / "target/release/local-api-proxy"
SHOTS = ROOT / "target/screenshots"
EVIL = "<img src=x onerror=\"document.title='hacked'\"></script><script>document.title='hacked'</script> javascript:alert(1)"


class Proxy:
    def __init__(self, home, port="0"):
        self.home = home
        self.start(port)

    def start(self, port):
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        command = [EXECUTABLE, "--dir", self.home, "--port", port]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for line in self.process.stdout:
            if line.strip().startswith("address"):
                break
        self.url = line.split()[1].removesuffix("/v1")

    def chat(self, words, **more):
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": words}], **more}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode())
        try:
            return urllib.request.urlopen(request).read()
        except urllib.error.HTTPError as error:
            return error.read()

    def stop(self):
        self.process.terminate()
        assert self.process.wait(20) == 0


@pytest.fixture(scope="session")
def upstream():
    return openrouter.start()


@pytest.fixture
def proxy(tmp_path, upstream):
    (tmp_path / ".env").write_text(
        f"OPENROUTER_API_KEY=sk-or-v1-browser-test-wxyz\nOPENROUTER_BASE_URL=http://127.0.0.1:{upstream}/api/v1\nRETRIES=0\n"
    )
    (tmp_path / "DEBUG_MODE.txt").write_text("")
    proxy = Proxy(tmp_path)
    yield proxy
    proxy.stop()


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--lang=en-US",
                     "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path}/chromium"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_window_size(1280, 860)
    yield driver
    severe = [entry for entry in driver.get_log("browser") if "Content Security Policy" in entry["message"]]
    driver.quit()
    assert severe == []


def until(browser, found, what):
    return WebDriverWait(browser, 20).until(lambda _: found(), f"waited in vain for {what}")


def text(browser, id):
    return browser.find_element(By.ID, id).text


def rows(browser):
    return browser.find_elements(By.CSS_SELECTOR, "#rows tr")


def open_panel(browser, proxy, calls):
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: len(rows(browser)) == calls and text(browser, "state") == "ok", f"{calls} rows")


def test_no_calls_yet(browser, proxy):
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: "curl http" in text(browser, "empty"), "the curl line to copy")
    assert text(browser, "count") == "0"
    shoot(browser, "empty")


def test_figures_plots_and_table(browser, proxy):
    proxy.chat("hello")
    proxy.chat("hello there", stream=True)
    proxy.chat("error 402")
    open_panel(browser, proxy, 3)
    assert (text(browser, "count"), text(browser, "errors")) == ("2", "1")
    cells = [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows(browser)]
    assert [row[3] for row in cells] == ["402", "200", "200"]
    assert cells[1][1:3] == ["gpt-4o", "a/b:free"]
    assert cells[1][6] == "3 + 4"
    titles = browser.execute_script("return [...document.querySelectorAll('#plot-hours title')].map(e => e.textContent)")
    assert titles[-1].endswith("2 ok, 1 errors")
    tokens = browser.execute_script("return document.querySelector('#plot-tokens').textContent")
    assert "a/b:free" in tokens and "14" in tokens
    until(browser, lambda: (browser.execute_script("window.dispatchEvent(new Event('visibilitychange'))"), text(browser, "quota"))[1] == "38 / 50", "the quota")


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
    until(browser, lambda: [row.find_elements(By.TAG_NAME, "td")[3].text for row in rows(browser)] == ["402"], "the error alone")
    Select(browser.find_element(By.ID, "filter-status")).select_by_value("")
    Select(browser.find_element(By.ID, "filter-model")).select_by_value("a/b:free")
    until(browser, lambda: [row.find_elements(By.TAG_NAME, "td")[3].text for row in rows(browser)] == ["200"], "the model's call")
    Select(browser.find_element(By.ID, "filter-model")).select_by_value("")
    browser.find_element(By.ID, "filter-text").send_keys("nothing like this")
    assert rows(browser) == [] and "No call matches" in text(browser, "empty")


def test_foreign_text_never_runs(browser, proxy):
    body = {"model": EVIL, "messages": [{"role": EVIL, "content": EVIL}, {"role": "user", "content": EVIL}]}
    request = urllib.request.Request(f"{proxy.url}/v1/chat/completions", json.dumps(body).encode())
    urllib.request.urlopen(request).read()
    open_panel(browser, proxy, 1)
    rows(browser)[0].click()
    until(browser, lambda: "onerror" in text(browser, "call"), "the opened call")
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
    environment = (proxy.home / ".env").read_text()
    (proxy.home / ".env").write_text("OPENROUTER_API_KEY=sk-or-v1-x\nOPENROUTER_BASE_URL=http://127.0.0.1:1/api/v1\nRETRIES=0\n")
    proxy.chat("hello")
    browser.get(f"{proxy.url}/debug")
    until(browser, lambda: text(browser, "state") == "upstream unreachable", "the notice")
    (proxy.home / ".env").write_text(environment.replace("OPENROUTER_API_KEY", "OTHER"))
    until(browser, lambda: "put OPENROUTER_API_KEY into .env" in text(browser, "state"), "what to write where")


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
    title = browser.execute_script("return [...document.querySelectorAll('#plot-hours title')].reduce((n, e) => n + +e.textContent.match(/  ([0-9,]+) ok/)[1].replace(',', ''), 0)")
    assert title == 5000, "the plot knows of all of them"


def test_small_and_soon_there(browser, proxy):
    open_panel(browser, proxy, 0)
    size, paint = browser.execute_script("""
        const entries = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
        const files = entries.filter(e => !/calls|stats|state|settings/.test(e.name));
        return [files.reduce((n, e) => n + e.transferSize, 0), performance.getEntriesByName('first-contentful-paint')[0].startTime];""")
    print(f"{size} bytes, first paint after {paint:.0f} ms")
    assert 0 < size <= 60_000


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
    until(browser, lambda: "还没有调用" in text(browser, "empty"), "Chinese, remembered")
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


@pytest.mark.parametrize("name, width, height, theme", [("light", 1280, 860, "light"), ("dark", 1280, 860, "dark"), ("phone", 500, 860, "light"), ("wide", 2560, 1200, "light")])
def test_looks(browser, proxy, name, width, height, theme):
    for number in range(12):
        proxy.chat(f"question {number}", stream=number % 2 == 0)
    proxy.chat("error 402")
    browser.set_window_size(width, height)
    if name == "phone": # no window is that narrow
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 2, "mobile": True})
    browser.get(f"{proxy.url}/debug")
    browser.execute_script(f"localStorage.setItem('theme', '{theme}')")
    open_panel(browser, proxy, 13)
    rows(browser)[1].click()
    until(browser, lambda: "You said: question" in text(browser, "call"), "the opened call")
    wide = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "nothing is cut off at the side"
    table_wide = browser.execute_script("const t = document.getElementById('table'); return t.scrollWidth - t.clientWidth")
    assert table_wide <= 0, "nor in the table"
    top = browser.execute_script("return document.getElementById('call').getBoundingClientRect().top")
    assert -1 <= top < height, "the opened call is in sight"
    if name == "phone":
        shoot(browser, "phone-call")
        browser.execute_script("scrollTo(0, 0)")
    shoot(browser, name)


def shoot(browser, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(SHOTS / f"{name}.png"))
