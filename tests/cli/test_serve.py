"""`weft serve`: what it refuses to start, and how it ends."""

import json
import signal
import time
import urllib.request
from importlib.util import find_spec

import pytest

from processes import Python
from tiny_model import tiny
from weft.cli import run

COMMAND = "import sys; from weft.cli import run; sys.exit(run(sys.argv[1:]))"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--api-key"),
        (["--host", "192.168.0.1", "--api-key", ""], "empty"),
        (["--engine", "other"], "--engine"),
        (["--vllm", "tensor_parallel_size=2"], "--engine vllm"),
        (["--engine", "vllm", "--device", "cuda"], "--device"),
        (["--engine", "vllm", "--vllm", "alone"], "--vllm"),
        (["--tls-cert", "cert.pem"], "--tls-key"),
        (["--tls-cert", "cert.pem", "--tls-key", "key.pem"], "cert.pem"),
        (["--tls-cert", __file__, "--tls-key", __file__], "no certificate"),
        (["--no-key", "--api-key", "a"], "give one of them"),
        (["--allow-origin", "chat.example"], "an origin is https://HOST"),
        (["--api-key-file", "missing.txt"], "missing.txt"),
    ],
)
def test_what_would_be_unsafe_or_makes_no_sense_is_refused(options, said, capsys):
    assert run(["serve", "bundled", *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_the_engine_vllm_without_vllm_is_refused_in_one_sentence(capsys):
    assert run(["serve", "bundled", "--engine", "vllm"]) == 2
    said = capsys.readouterr().err
    assert "docs/vllm.md" in said and "vllm" in said and len(said.split("\n\n")) == 1


def test_an_answer_under_way_is_finished_after_sigterm_and_the_status_is_0(tmp_path):
    model = tiny()
    model.model.generation_config.eos_token_id = None
    model.model.save_pretrained(tmp_path / "small")
    model.processor.save_pretrained(tmp_path / "small")
    server = Python(COMMAND, "serve", tmp_path / "small", "--port", 0, "--dtype", "float32")
    address = None
    for _ in range(2400):
        lines = [json.loads(line) for line in server.printed.read_text().splitlines() if line.startswith("{")]
        address = next((line["address"] for line in lines if line["event"] == "listening"), None)
        if address:
            break
        assert server.returncode is None, server.communicate()
        time.sleep(0.05)
    body = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 300}
    request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(_retried(request), timeout=60) as answer:
        assert answer.readline().startswith(b"data: {")
        server.send_signal(signal.SIGTERM)
        rest = answer.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    said = server.communicate()
    assert server.returncode == 0, said
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [e["event"] for e in events] == ["listening", "request", "stopped"] and events[1]["status"] == 200


def _retried(request):
    """The request once the port is listened on, which is a moment after it is told."""
    host = f"{request.type}://{request.host}/ready"
    for _ in range(200):
        try:
            urllib.request.urlopen(host, timeout=5)
            return request
        except OSError:
            time.sleep(0.05)
    raise TimeoutError
