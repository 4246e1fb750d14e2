"""`curl -N`, as it stands in the README."""

import subprocess


def test_streamed(base_url):
    body = '{"stream": true, "messages": [{"role": "user", "content": "hello"}]}'
    command = ["curl", "-sN", f"{base_url}/chat/completions", "-d", body]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n\n")
    assert lines[0] == ": OPENROUTER PROCESSING"
    assert lines[-2] == "data: [DONE]"
