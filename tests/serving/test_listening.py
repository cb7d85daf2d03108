"""Listening: who is shown the page finds it there."""

import os
import signal
import threading

import httpx2 as httpx
from serving_kit import NAME

from weft.serving.app import build_app
from weft.serving.engine import LocalEngine
from weft.serving.run import listen


def test_the_page_is_shown_at_an_address_that_answers(model, monkeypatch):
    found = []

    def visit(address):
        found.append(httpx.get(address).text)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("weft.serving.run.log_to_stderr", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        app = build_app(LocalEngine(model), NAME)
        listen(app, NAME, "127.0.0.1", 0, show=lambda address: threading.Thread(target=visit, args=(address,)).start())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "<title>weft</title>" in found[0]
