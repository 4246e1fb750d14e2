"""The release build before an OpenRouter of the tests' own."""

import os
import pathlib
import subprocess

import openrouter
import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXECUTABLE = pathlib.Path(os.environ.get("EXECUTABLE", ROOT / "target/release/local-api-proxy"))
SETTINGS = {"OPENROUTER_API_KEY": "sk-or-v1-sdk-tests", "EMBEDDING_MODEL": "n/embed:free"}


@pytest.fixture(scope="session")
def upstream():
    return openrouter.start()


@pytest.fixture(scope="session")
def start(tmp_path_factory, upstream):
    """Starts a proxy with these settings beside the usual ones, and says where it is: `http://localhost:PORT`."""
    running = []

    def start(**settings):
        home = tmp_path_factory.mktemp("home")
        settings = {**SETTINGS, "OPENROUTER_BASE_URL": f"http://127.0.0.1:{upstream}/api/v1", **settings}
        (home / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        # Nothing of the machine's own: neither its proxies nor its keys.
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        command = [EXECUTABLE, "--dir", home, "--port", "0"]
        proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        running.append(proxy)
        address = next(line.split()[1] for line in proxy.stdout if line.strip().startswith("address"))
        return address.removesuffix("/v1")

    yield start
    for proxy in running:
        proxy.terminate()
        assert proxy.wait(20) == 0


@pytest.fixture(scope="session")
def root(start):
    return start()


@pytest.fixture(scope="session")
def base_url(root):
    return f"{root}/v1"


@pytest.fixture
def received():
    """What has reached the upstream since the test began."""
    before = len(openrouter.OpenRouter.received)
    return lambda: openrouter.OpenRouter.received[before:]
