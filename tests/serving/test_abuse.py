"""Hundreds of bad requests: each gets a 4xx, or an answer; none harms another or makes the server connect anywhere."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from bad_requests import bad_request
from serving_kit import user


@pytest.mark.slow
def test_bad_requests_get_a_4xx_and_harm_nobody(served):
    trap = socket.create_server(("127.0.0.1", 0))
    trap.settimeout(0.05)
    whole = served.chat(user("hello")).json()["choices"]

    def ask(seed):
        body = bad_request(seed, trap.getsockname()[1])
        headers = {"Content-Type": "application/json"}
        answer = served.http.post("/v1/chat/completions", content=body, headers=headers)
        error = answer.json()["error"] if answer.status_code >= 400 and answer.status_code != 429 else None
        return answer.status_code, None if error is None else set(error)

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(ask, range(200)))
    wrong = {seed: found for seed, found in enumerate(seen) if found[0] != 200 and not 400 <= found[0] < 500}
    assert not wrong
    assert {tuple(sorted(keys)) for _, keys in seen if keys} == {("code", "message", "param", "type")}
    assert sum(status != 200 for status, _ in seen) > 125
    assert served.chat(user("hello")).json()["choices"] == whole
    assert served.engine.counts()["rows_running"] == served.engine.counts()["rows_waiting"] == 0
    try:
        trap.accept()
        raise AssertionError("the server opened a connection to an address that a request named")
    except TimeoutError:
        pass
    finally:
        trap.close()


@pytest.mark.slow
def test_forms_that_are_none_get_a_4xx(served):
    kinds = ["multipart/form-data", "multipart/form-data; boundary=a", "application/json", "text/plain", ""]
    bodies = [
        b"",
        b"--a\r\n",
        b'--a\r\nContent-Disposition: form-data; name="file"\r\n\r\nx',
        b"\xff" * 50,
        b"file=x&model=y",
    ]
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/chat/completions"):
        for kind in kinds:
            for body in bodies:
                answer = served.http.post(path, content=body, headers={"Content-Type": kind})
                assert 400 <= answer.status_code < 500, (path, kind, body, answer.text)
    many = {f"field{i}": "x" for i in range(2000)}
    assert served.http.post("/v1/audio/transcriptions", data=many, files={"file": b"a"}).status_code == 400


def test_methods_and_paths_that_are_none_get_a_4xx(served):
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
        assert 400 <= served.http.request(method, "/v1/chat/completions").status_code < 500
    for path in (
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/%00",
        "/v1/models/../x",
        "/x//evil",
        "/\u202e",
    ):
        assert 400 <= served.http.get(path).status_code < 500
