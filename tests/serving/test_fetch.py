"""Media behind addresses: never without leave, and never on a private network."""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from serving_kit import image, png, user

from weft.serving.errors import ApiError
from weft.serving.fetch import Fetcher, is_public
from weft.serving.limits import Limits


class Host(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b"a")
                    time.sleep(0.05)
        else:
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(png(1))

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def host():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()


@pytest.fixture
def fetch():
    return Fetcher(["LOCALHOST", "cdn.example"], 100_000, 1.0, public=lambda address: address in ("127.0.0.1", "::1"))


def test_an_allowed_host_gives_its_bytes_after_redirects_too(fetch, host):
    assert fetch(f"{host}/a.png") == png(1)
    assert fetch(f"{host}/to//a.png") == png(1)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/to/http://127.0.0.1/x", "not among"),
        ("/to/http://169.254.169.254/latest", "not among"),
        ("/to/file:///etc/passwd", "only plain http"),
        ("/to//to//to//to//a.png", "redirects more"),
        ("/none", "status 404"),
        ("/slow", "could not be fetched"),
    ],
)
def test_what_an_address_leads_to_is_checked_as_the_first(fetch, host, path, said):
    with pytest.raises(ApiError, match=said):
        fetch(host + path)


def test_a_host_that_was_not_named_is_refused_unopened(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    fetch = Fetcher(["cdn.example"], 1000, 1.0)
    for url in (
        "http://127.0.0.1/x",
        "http://cdn.example.evil.example/x",
        "http://cdn.example@evil.example/x",
        "http://evil.example#cdn.example",
        "http://[::1]/x",
        "ftp://cdn.example/x",
        "http://user:word@cdn.example/x",
        "http:///x",
    ):
        with pytest.raises(ApiError):
            fetch(url)


@pytest.mark.parametrize("addresses", [["10.0.0.7"], ["8.8.8.8", "192.168.1.1"], ["::1"], ["::ffff:127.0.0.1"]])
def test_a_name_that_stands_for_a_private_address_is_refused(monkeypatch, addresses):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (a, 80)) for a in addresses])
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection was opened"))
    with pytest.raises(ApiError, match="public internet"):
        Fetcher(["cdn.example"], 1000, 1.0)("http://cdn.example/x")


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch):
    """A name may stand for another address a moment later."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    connected = []

    def connect(address, timeout):
        connected.append(address)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (a, 80)) for a in next(answers)])
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ApiError):
        Fetcher(["cdn.example"], 1000, 1.0)("http://cdn.example/x")
    assert connected == [("93.184.216.34", 80)]


def test_addresses_are_told_apart():
    private = [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
    ]  # fmt: skip
    assert [a for a in private if is_public(a)] == []
    public = ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808"]
    assert all(map(is_public, public))


def test_more_than_the_limit_is_not_read(host):
    fetch = Fetcher(["localhost"], 100, 5.0, public=lambda _: True)
    with pytest.raises(ApiError, match="100 bytes"):
        fetch(f"{host}/a.png")


@pytest.mark.slow
def test_the_server_fetches_for_a_request_only_what_it_may(model, serve, host, fetch):
    there = {"type": "image_url", "image_url": {"url": f"{host}/a.png"}}
    with serve(model, Limits(tokens=32), fetch=fetch) as served:
        own = served.chat(user(image(png(1)), "a")).json()["choices"][0]["message"]
        assert served.chat(user(there, "a")).json()["choices"][0]["message"] == own
    with serve(model, Limits(tokens=32)) as served:
        answer = served.chat(user(there, "a"))
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "media_not_fetched"
