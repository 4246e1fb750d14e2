"""The release build before an OpenRouter of the tests' own."""

import os
import pathlib
import subprocess

import openrouter
import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXECUTABLE = ROOT / "target/release/local-api-proxy"


@pytest.fixture(scope="session")
def base_url(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    upstream = openrouter.start()
    (home / ".env").write_text(f"OPENROUTER_API_KEY=sk-or-v1-sdk-tests\nOPENROUTER_BASE_URL=http://127.0.0.1:{upstream}/api/v1\n")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [EXECUTABLE, "--dir", home, "--port", "0"]
    proxy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for line in proxy.stdout:
        if line.strip().startswith("address"):
            break
    yield line.split()[1]
    proxy.terminate()
    assert proxy.wait(20) == 0
