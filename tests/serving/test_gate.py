"""Who may ask, how much, how slowly; what happens to answers when clients or the server go."""

import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving_kit import NAME, audio, image, png, request, user, wav

from weft.generation import Model
from weft.serving.limits import Limits

SLOW = Limits(tokens=400, batch=2, queue=2, body_seconds=1.0)


def waits(condition, seconds=20.0):
    """Whether it holds within that time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def generated(served):
    """Tokens of all answers that have ended, one way or the other."""
    numbers = served.http.get("/metrics").text
    return float(numbers.split("\nweft_generated_tokens_total ")[1].split("\n")[0])


def raw(served, data, shut=False, seconds=20.0):
    """What the server sends to bytes on a connection, until it closes it."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=seconds) as connection:
        connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while block := connection.recv(65536):
                received += block
        except ConnectionResetError:
            pass
        return received


def post(body, length=None, path="/v1/chat/completions", more=""):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@pytest.fixture(scope="module")
def endless(model, serve):
    """A server whose answers never end by themselves, and that takes four requests."""
    unending = Model(model.model, model.processor)
    unending.stop = frozenset()
    with serve(unending, SLOW) as served:
        yield served


@pytest.mark.slow
def test_past_the_queue_a_request_is_told_when_to_come_again(endless):
    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(endless.chat, user(f"{i}"), max_tokens=200) for i in range(24)]
        answers = [a.result() for a in asked]
    refused = [a for a in answers if a.status_code == 429]
    assert refused and {a.status_code for a in answers} == {200, 429}
    assert all(int(a.headers["retry-after"]) >= 1 for a in refused)
    assert refused[0].json()["error"]["type"] == "rate_limit_error"


def test_a_client_that_goes_away_frees_its_place(endless):
    counts = endless.engine.counts
    for stream in (True, False):
        body = json.dumps(request(user("a"), max_tokens=390, stream=stream)).encode()
        with socket.create_connection(("127.0.0.1", endless.port)) as connection:
            connection.sendall(post(body))
            assert waits(lambda: counts()["rows_running"] == 1)
            before = generated(endless)
        assert waits(lambda before=before: generated(endless) > before)
        assert generated(endless) - before < 390 and waits(lambda: counts()["rows_running"] == 0)


def test_a_half_closed_connection_ends_in_bounded_time(endless):
    body = json.dumps(request(user("a"), max_tokens=390)).encode()
    raw(endless, post(body), shut=True)
    raw(endless, post(body, length=len(body) + 10), shut=True)
    assert waits(lambda: endless.engine.counts()["rows_running"] == 0)


def test_a_body_that_does_not_come_is_not_waited_for(endless):
    begun = time.monotonic()
    received = raw(endless, post(b'{"model"', length=500))
    assert b" 408 " in received.split(b"\r\n")[0] and b"too_slow" in received
    assert time.monotonic() - begun < 10


def test_a_head_that_never_ends_is_closed(endless, monkeypatch):
    monkeypatch.setattr("weft.serving.run.HEAD_SECONDS", 0.3)
    for data in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"):
        assert raw(endless, data) == b""
    first = post(json.dumps(request(user("a"), max_tokens=2)).encode())
    assert raw(endless, first + b"GET /hea").count(b"HTTP/1.1") == 1  # and a second one on the same connection


def test_a_body_that_is_too_large_is_refused_whatever_it_says_of_its_length(model, serve):
    with serve(model, Limits(body_bytes=2000, tokens=32)) as served:
        large = served.chat(user("a" * 5000))
        assert large.status_code == 413 and large.json()["error"]["code"] == "too_large"
        chunks = served.http.post("/v1/chat/completions", content=(b"a" * 500 for _ in range(9)))
        assert chunks.status_code == 413
        assert served.http.post("/v1/audio/transcriptions", files={"file": b"a" * 5000}).status_code == 413
        assert served.chat(user("a")).status_code == 200


def test_a_client_that_asks_first_is_told_before_it_sends(model, serve):
    """As curl does with more than a megabyte: what is too large is not sent at all."""
    with serve(model, Limits(body_bytes=2000, tokens=32, body_seconds=30.0)) as served:
        begun = time.monotonic()
        received = raw(served, post(b"", length=10**11, more="Expect: 100-continue\r\n"))
        assert b" 413 " in received.split(b"\r\n")[0] and b"100 Continue" not in received
        assert time.monotonic() - begun < 10
        body = json.dumps(request(user("a"), max_tokens=2)).encode()
        received = raw(served, post(body, more="Expect: 100-continue\r\nConnection: close\r\n"))
        assert received.startswith(b"HTTP/1.1 100 Continue") and b"chat.completion" in received


def test_each_limit_on_media_is_named(model, serve):
    limits = Limits(media=2, pixels=5000, audio_seconds=2.0, characters=100, messages=3, tokens=32)
    with serve(model, limits) as served:
        cases = [
            (user(*[image(png(i)) for i in range(3)]), "at most 2", 413),
            (user(image(png(1)), image(png(2)), image(png(3))), "at most 2", 413),
            (user(audio(wav(1.5)), audio(wav(1.0)), "?"), "2 seconds", 413),
            (user("a" * 101), "100 characters", 413),
            (user("a") * 4, "at most 3", 400),
        ]
        for messages, said, status in cases:
            answer = served.chat(messages, max_tokens=2)
            assert (answer.status_code, said in answer.text) == (status, True), answer.text
        assert served.chat(user(image(png(1)), image(png(2)), "a"), max_tokens=2).status_code == 200  # 2 x 2000 pixels
    with serve(model, Limits(pixels=3000, tokens=32)) as served:
        assert "megapixels" in served.chat(user(image(png(1)), image(png(2)))).text


@pytest.mark.slow
def test_media_of_all_requests_together_have_a_limit(model, serve):
    """Counted as long as they are held: those of answers that have ended, or failed, are not."""
    unending = Model(model.model, model.processor)
    unending.stop = frozenset()
    picture, clip = image(png(1)), audio(wav(1.0))  # 6,000 and 64,000 bytes
    limits = Limits(held_bytes=100_000, tokens=1000, batch=4)
    with serve(unending, limits) as served, ThreadPoolExecutor(2) as pool:
        assert served.chat(user(clip, clip, picture), max_tokens=2).status_code == 200  # alone it may
        first = pool.submit(served.chat, user(clip, "a"), max_tokens=900)
        assert waits(lambda: served.engine.counts()["rows_running"] == 1)
        refused = served.chat(user(audio(wav(1.0, 5)), "b"), max_tokens=2)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["code"] == "too_much_media"
        files = {"file": ("a.wav", wav(1.0, 6))}
        assert served.http.post("/v1/audio/transcriptions", data={"model": NAME}, files=files).status_code == 429
        assert served.chat(user(picture, "c"), max_tokens=2).status_code == 200  # there is room for that
        assert first.result().status_code == 200
        assert waits(lambda: served.chat(user(clip, "e"), max_tokens=2).status_code == 200)


def test_a_key_is_asked_for_and_compared_whole(model, serve):
    with serve(model, Limits(tokens=4), keys=("one", "two")) as served:
        get, guarded = served.http.get, ("/v1/models", "/metrics", "/openapi.json")
        for key in ("", "Bearer", "Bearer on", "Bearer onee", "Basic one", "one"):
            for path in guarded:
                answer = get(path, headers={"Authorization": key})
                assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        for key in ("one", "two"):
            assert {get(path, headers={"Authorization": f"Bearer {key}"}).status_code for path in guarded} == {200}
        assert get("/health").status_code == get("/ready").status_code == 200


def test_web_pages_of_others_are_refused(model, serve):
    with serve(model, Limits(tokens=4), origins=("https://chat.example.org",)) as served:

        def status(**headers):
            return served.http.get("/v1/models", headers=headers).status_code

        own = f"127.0.0.1:{served.port}"
        assert status() == status(Origin=f"http://{own}") == 200
        assert status(Origin="https://evil.example") == status(Origin="null") == 403
        assert status(Host="evil.example") == status(Host=f"evil.example:{served.port}") == 403
        assert status(Host="chat.example.org", Origin="https://chat.example.org") == 200
        page = served.http.get("/v1/models", headers={"Origin": "https://chat.example.org"})
        assert page.headers["access-control-allow-origin"] == "https://chat.example.org"
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        assert served.http.options("/v1/chat/completions", headers=asked).status_code == 403


def test_answers_under_way_are_finished_before_the_server_ends(model, serve):
    unending = Model(model.model, model.processor)
    unending.stop = frozenset()
    with serve(unending, Limits(tokens=400)) as served, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(served.chat, user(f"{i}"), max_tokens=60) for i in range(4)]
        assert waits(lambda: served.engine.counts()["rows_running"] > 0)
    assert [a.result().json()["usage"]["completion_tokens"] for a in asked] == [60] * 4


def test_logs_and_metrics_tell_counts_and_no_content(served, caplog):
    logger, secret = logging.getLogger("weft.serving"), "s3cr3t words"
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "weft.serving")
    try:
        assert served.chat(user(secret, audio(wav(0.3)))).status_code == 200
        served.http.post(f"/v1/{secret}", json={"a": secret})
        served.chat(user(secret, {"type": secret}))
    finally:
        logger.removeHandler(caplog.handler)
    from weft.serving.watching import JsonLines

    lines = [JsonLines().format(record) for record in caplog.records if record.name == "weft.serving"]
    assert len(lines) >= 3 and not any("s3cr3t" in line for line in lines)
    first = json.loads(lines[0])
    assert first["route"] == "/v1/chat/completions" and first["status"] == 200 and first["prompt_tokens"] > 10
    numbers = served.http.get("/metrics").text
    assert 'weft_requests_total{route="/v1/chat/completions",status="200"}' in numbers
    assert "s3cr3t" not in numbers and "weft_media_encoded" in numbers and 'route="other"' in numbers


def test_an_engine_that_fails_is_a_500_that_tells_nothing_and_the_next_is_answered(model, serve, monkeypatch):
    with serve(model, Limits(tokens=32)) as served:
        whole = served.chat(user("b")).json()["choices"]
        forward = type(model.model).forward

        def failing(self, *args, **kwargs):
            raise MemoryError("s3cr3t")

        monkeypatch.setattr(type(model.model), "forward", failing)
        answer = served.chat(user("a"))
        assert (
            answer.status_code == 500
            and answer.json()["error"]["type"] == "server_error"
            and "s3cr3t" not in answer.text
        )
        streamed = served.chat(user("a"), stream=True).text
        assert "error" in streamed and "[DONE]" not in streamed
        monkeypatch.setattr(type(model.model), "forward", forward)
        assert served.chat(user("b")).json()["choices"] == whole
        assert served.http.get("/ready").status_code == 200


def test_threads_end_with_the_server(model, serve):
    before = threading.active_count()
    with serve(model) as served:
        assert served.http.get(f"/v1/models/{NAME}").status_code == 200
    assert waits(lambda: threading.active_count() <= before)
