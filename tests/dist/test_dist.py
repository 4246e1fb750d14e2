"""The files to hand out, as their users get them: unpacked from dist/, run on an empty Linux and under Wine."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/sdk"))
import openrouter  # noqa: E402

DIST = ROOT / "dist"
FILE_NAME = re.compile(r"^\d{8}_\d{6}_\d{3}_(REQUEST|RESPONSE|ERROR)_[0-9a-f]{8}\.json$")

# Wine 8 lacks a DLL that every Windows has.
BCRYPTPRIMITIVES = """
#include <windows.h>
#include <bcrypt.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) {
    return BCryptGenRandom(NULL, data, size, BCRYPT_USE_SYSTEM_PREFERRED_RNG) == 0;
}
"""


@pytest.fixture(scope="session")
def upstream():
    return openrouter.start()


def env(upstream, more=""):
    return f"OPENROUTER_API_KEY=sk-or-v1-dist-test\nOPENROUTER_BASE_URL=http://127.0.0.1:{upstream}/api/v1\nCACHE_DIR=cache\n{more}\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Running:
    def __init__(self, command, folder, **more):
        self.folder = folder
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.output = open(folder / "output.txt", "wb")
        self.process = subprocess.Popen([*command, "--port", str(port)], stdout=self.output, stderr=self.output, **more)
        until(self.health, "it to serve")

    def health(self):
        assert self.process.poll() is None, (self.folder / "output.txt").read_text()
        try:
            return json.load(urllib.request.urlopen(f"{self.url}/health", timeout=5))
        except OSError:
            return None

    def chat(self, words, **more):
        body = {"messages": [{"role": "user", "content": words}], **more}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode())
        return urllib.request.urlopen(request, timeout=60)

    def says(self, words):
        return json.load(self.chat(words))["choices"][0]["message"]["content"]

    def files(self, count):
        def whole():
            names = [path.name for path in (self.folder / "cache").glob("2*.json")]
            return len(names) >= count and names
        return until(whole, f"{count} debug files")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        for path in (self.folder / "cache").glob("*.json"):
            json.loads(path.read_text("utf-8"))
        return code


def until(found, what):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}: {value!r}")


def test_checksums():
    archives = [*DIST.glob("*.zip"), *DIST.glob("*.tar.gz")]
    assert len(archives) == 2
    for archive in archives:
        written = (DIST / f"{archive.name}.sha256").read_text().split()
        assert written == [hashlib.sha256(archive.read_bytes()).hexdigest(), archive.name]


def unpacked(folder, pattern):
    [archive] = DIST.glob(pattern)
    opened = zipfile.ZipFile(archive) if archive.suffix == ".zip" else tarfile.open(archive)
    with opened:
        opened.extractall(folder)
    [inside] = folder.iterdir()
    return inside


COMMON = {".env.example", "LICENSE", "THIRD-PARTY.txt", "README.md", "README.zh-CN.md", "SECURITY.md", "docs"}


def complete(folder, more):
    """All that goes with the executable is there, and what the READMEs point to."""
    assert {path.name for path in folder.iterdir()} == COMMON | more
    assert "ring" in (notices := (folder / "THIRD-PARTY.txt").read_text("utf-8")) and "Apache License" in notices
    for readme in ("README.md", "README.zh-CN.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", (folder / readme).read_text("utf-8")):
            assert "://" in target or (folder / target.split("#")[0]).exists(), f"{target} in {readme}"


def common_ground(proxy, upstream):
    assert proxy.health()["status"] == "ok"
    assert proxy.says("hello") == "You said: hello"
    text = proxy.chat("word by word", stream=True).read().decode()
    assert text.startswith(": OPENROUTER PROCESSING") and text.endswith("data: [DONE]\n\n")
    assert all(FILE_NAME.match(name) for name in proxy.files(4))
    for number, encode in enumerate([
        lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),
        str.encode,
    ]):
        (proxy.folder / ".env").write_bytes(encode(env(upstream, f"MODEL=edited/{number}:free")))
        proxy.says("which model?")
        assert openrouter.OpenRouter.received[-1][2]["model"] == f"edited/{number}:free"


def test_linux_in_an_empty_root(tmp_path, upstream):
    folder = unpacked(tmp_path, "*-x86_64-linux.tar.gz")
    complete(folder, {"local-api-proxy"})
    assert "statically linked" in subprocess.check_output(["ldd", folder / "local-api-proxy"], text=True, stderr=subprocess.STDOUT) \
        or "not a dynamic" in subprocess.run(["ldd", folder / "local-api-proxy"], text=True, capture_output=True).stderr
    (folder / ".env").write_text(env(upstream))
    (folder / "DEBUG_MODE.txt").touch()
    unshare = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
    proxy = Running([*unshare, shutil.which("chroot"), folder, "/local-api-proxy"], folder, env={})
    common_ground(proxy, upstream)
    assert proxy.stop() == 0


@pytest.fixture(scope="session")
def wine(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("wine")
    stub = prefix / "stub.c"
    stub.write_text(BCRYPTPRIMITIVES)
    dll = prefix / "bcryptprimitives.dll"
    subprocess.run(["x86_64-w64-mingw32-gcc", "-shared", "-o", dll, stub, "-lbcrypt"], check=True)
    environment = {**os.environ, "WINEPREFIX": str(prefix / "prefix"), "WINEDEBUG": "-all", "LANG": "C.UTF-8"}
    for name in [name for name in environment if name.lower().endswith("_proxy")]:
        del environment[name]
    yield dll, environment
    subprocess.run(["wineserver", "-k"], env=environment)


def on_windows(tmp_path, wine, name="folder"):
    """A running exe in its own folder, and a function that starts it."""
    dll, environment = wine
    (tmp_path / "unpacked").mkdir()
    folder = unpacked(tmp_path / "unpacked", "*-x86_64-windows.zip").rename(tmp_path / name)
    complete(folder, {"local-api-proxy.exe", "start_proxy.bat", "使用说明.txt"})
    shutil.copy(dll, folder)
    return folder, lambda: Running(["wine", str(folder / "local-api-proxy.exe")], folder, cwd=tmp_path, env=environment)


def test_windows_in_a_folder_with_blanks_and_chinese(tmp_path, wine, upstream):
    folder, start = on_windows(tmp_path, wine, "我的 USB 盘")
    assert "双击 local-api-proxy.exe" in (folder / "使用说明.txt").read_text("utf-8")
    (folder / ".env").write_text(env(upstream))
    (folder / "DEBUG_MODE.txt").touch()
    proxy = start()
    common_ground(proxy, upstream)
    # A stamp of whole seconds, as FAT has them, tells nothing: the same second, the same length.
    for model in ("first/one:free", "other/one:free"):
        (folder / ".env").write_text(env(upstream, f"MODEL={model}"))
        os.utime(folder / ".env", (1_770_000_000, 1_770_000_000))
        proxy.says("which model?")
        assert openrouter.OpenRouter.received[-1][2]["model"] == model
    assert proxy.stop() == 0
    text = (folder / "output.txt").read_text("utf-8")
    assert "\x1b" not in text, "no control sequences where the output is no console"
    # The stick has another name today.
    moved = folder.rename(tmp_path / "moved")
    proxy = Running(["wine", str(moved / "local-api-proxy.exe")], moved, cwd=tmp_path, env=wine[1])
    assert proxy.says("still there?") == "You said: still there?"
    assert proxy.stop() == 0


def test_windows_notices_a_client_that_leaves(tmp_path, wine, upstream):
    folder, start = on_windows(tmp_path, wine)
    (folder / ".env").write_text(env(upstream))
    (folder / "DEBUG_MODE.txt").touch()
    proxy = start()
    for number, host in enumerate(["127.0.0.1", "::1"], 1):
        calls, aborted = len(openrouter.OpenRouter.received), openrouter.OpenRouter.aborted
        client = socket.create_connection((host, int(proxy.url.rsplit(":", 1)[1])))
        body = json.dumps({"messages": [{"role": "user", "content": "never"}]})
        client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: len(openrouter.OpenRouter.received) > calls, "the call")
        client.close()
        until(lambda: openrouter.OpenRouter.aborted > aborted, "the call to be cut off")
        assert proxy.says("next") == "You said: next"
        names = proxy.files(4 * number)
        [error] = [json.loads((folder / "cache" / name).read_text("utf-8")) for name in sorted(names) if "_ERROR_" in name][number - 1:]
        assert error["data"]["error"]["code"] == "client_closed"
    assert proxy.stop() == 0


def test_windows_streams_without_steps(tmp_path, wine):
    class Steady(openrouter.OpenRouter):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(200):
                time.sleep(0.005)
                self.chunk([{"index": 0, "delta": {"content": f"{number} "}, "finish_reason": None}])
            self.piece("data: [DONE]\n\n")
            self.piece("")

    server = openrouter.ThreadingHTTPServer(("127.0.0.1", 0), Steady)
    openrouter.threading.Thread(target=server.serve_forever, daemon=True).start()
    folder, start = on_windows(tmp_path, wine)
    (folder / ".env").write_text(env(server.server_address[1]))
    proxy = start()
    proxy.chat("warm up", stream=True).read()
    response, gaps, last = proxy.chat("steady", stream=True), [], None
    while line := response.readline():
        if line.startswith(b"data: {"):
            now = time.monotonic()
            gaps.append(now - (last or now))
            last = now
    gaps.sort()
    steps = sum(gap > 0.035 for gap in gaps)
    print(f"{len(gaps)} chunks 5 ms apart: median {gaps[100] * 1e3:.1f} ms, 95 % within {gaps[190] * 1e3:.1f} ms, {steps} steps")
    assert len(gaps) == 200 and steps < 20, "delayed acknowledgements would make every other gap a step"
    assert proxy.stop() == 0


def test_the_first_try_for_cmd_arrives_as_json(tmp_path, wine):
    """The READMEs' line for cmd, with a program in curl's place that says what it was given."""
    folder, _ = on_windows(tmp_path, wine)
    for readme in ("README.md", "README.zh-CN.md"):
        [line] = [line for line in (ROOT / readme).read_text().splitlines() if line.startswith("curl ") and '-d "{\\"' in line]
        given = line[line.index(' -d ') + 4:]
        (folder / "try.bat").write_text(f'@"%~dp0local-api-proxy.exe" --dir {given}\r\n')
        said = subprocess.run(["wine", "cmd", "/c", "try.bat"], cwd=folder, env=wine[1], capture_output=True, text=True, timeout=60)
        body = re.search(r"--dir (\{.*\}): there is no such folder", said.stdout + said.stderr).group(1)
        assert json.loads(body)["messages"][0]["content"]


def command(wine, folder, *words, **more):
    """One command of the exe's, ended."""
    started = ["wine", str(folder / "local-api-proxy.exe"), *words]
    return subprocess.run(started, cwd=folder, env=wine[1] | more, capture_output=True, text=True, timeout=120)


def test_windows_starts_npms_programs(tmp_path, wine, upstream):
    """npm's programs are batch files, which are found by their extension."""
    folder, _ = on_windows(tmp_path, wine, "我的 盘")
    (folder / ".env").write_text(env(upstream, "PORT=1"))
    tools = tmp_path / "tools of npm"
    tools.mkdir()
    (tools / "claude.cmd").write_text("@echo off\r\necho root %ANTHROPIC_BASE_URL%\r\necho key %ANTHROPIC_AUTH_TOKEN%\r\n:next\r\nif [%1]==[] exit /b 7\r\necho word %1\r\nshift\r\ngoto next\r\n")
    done = command(wine, folder, "run", "claude", "-p", "hello world", WINEPATH=f"Z:{tools}".replace("/", "\\"))
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert done.returncode == 7, done
    assert lines[0].startswith("root http://localhost:") and lines[1] == "key x", done
    assert lines[2] == "word --settings" and lines[-2:] == ["word -p", 'word "hello world"'], done
    assert command(wine, folder, "run", "codex").returncode == 127
    assert command(wine, folder, "run", "emacs").returncode == 2


def test_windows_starts_with_the_session(tmp_path, wine, upstream):
    folder, _ = on_windows(tmp_path, wine, "我的 盘")
    port = free_port()
    (folder / ".env").write_text(env(upstream, f"PORT={port}"))
    entry = "drive_c/users/*/AppData/Roaming/Microsoft/Windows/Start Menu/Programs/Start[uU]p/local-api-proxy.vbs"
    entries = lambda: list(pathlib.Path(wine[1]["WINEPREFIX"]).glob(entry))  # noqa: E731
    assert command(wine, folder, "autostart", "status").stdout.startswith("off")
    on = command(wine, folder, "autostart", "on")
    assert on.stdout.startswith("on: ") and on.returncode == 0, on
    [script] = entries()
    text = script.read_bytes().decode("utf-16")
    assert "我的 盘\\local-api-proxy.exe" in text and text.rstrip().endswith(", 0, False"), text

    # Wine's wscript reads no UTF-16, which that of Windows does: whether the proxy runs then isn't to be seen here.
    status = command(wine, folder, "autostart", "status").stdout
    assert status.startswith("on\n") and f"at http://localhost:{port}/v1" in status, status
    assert command(wine, folder, "autostart", "off").stdout.startswith("off")
    assert not entries()
