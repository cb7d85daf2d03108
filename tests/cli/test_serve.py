"""`weft serve`: what it refuses to start, and how it ends."""

import json
import signal
import ssl
import subprocess
import time
import urllib.request
from importlib.util import find_spec
from shutil import which

import openai
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
        (["--name", " "], "--name is empty"),
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


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a model whose answers never end by themselves."""
    model, folder = tiny(), tmp_path_factory.mktemp("models") / "small"
    model.model.generation_config.eos_token_id = None
    model.model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return folder


def started(folder, *options):
    """A server in a process of its own, and its address."""
    server = Python(COMMAND, "serve", folder, "--port", 0, "--dtype", "float32", *options)
    for _ in range(2400):
        lines = [json.loads(line) for line in server.printed.read_text().splitlines() if line.startswith("{")]
        address = next((line["address"] for line in lines if line["event"] == "listening"), None)
        if address:
            return server, address
        assert server.returncode is None, server.communicate()
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.skipif(which("openssl") is None, reason="openssl makes the certificate")
@pytest.mark.slow
def test_with_a_certificate_clients_that_trust_it_are_answered_and_others_are_not(small, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    said = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2", "-nodes"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *said]
    subprocess.run([*made, "-keyout", key, "-out", cert], check=True, capture_output=True)
    server, address = started(small, "--tls-cert", cert, "--tls-key", key)
    try:
        assert address.startswith("https://")
        trusting = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=cert))
        messages = [{"role": "user", "content": "hello"}]
        with openai.OpenAI(base_url=f"{address}/v1", api_key="any", http_client=trusting, max_retries=9) as client:
            answer = client.chat.completions.create(model="small", messages=messages, max_tokens=4)
        assert answer.usage.completion_tokens == 4
        with openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as client:
            with pytest.raises(openai.APIConnectionError) as failed:
                client.models.list()
            assert "CERTIFICATE_VERIFY_FAILED" in str(failed.value.__cause__)
        with pytest.raises(OSError):  # and nothing is answered in the clear
            urllib.request.urlopen(address.replace("https", "http"), timeout=5)
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()


@pytest.mark.slow
def test_an_answer_under_way_is_finished_after_sigterm_and_the_status_is_0(small):
    server, address = started(small)
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
