"""A server of a tiny model in this process, on a port of its own, as clients reach it."""

import threading
import time
from contextlib import contextmanager

import httpx2 as httpx
import pytest
import uvicorn
from serving_kit import NAME, Served

from tiny_model import tiny
from weft.serving.app import build_app
from weft.serving.engine import LocalEngine
from weft.serving.limits import Limits
from weft.serving.run import Protocol


@contextmanager
def running(model, limits=None, engine=None, **settings):
    limits = limits or Limits(tokens=32, body_seconds=3.0)
    engine = engine or LocalEngine(model, limits.batch, limits.batch_tokens)
    app = build_app(engine, NAME, limits, **settings)
    config = uvicorn.Config(app, port=0, http=Protocol, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield Served(model, engine, port, client)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive() and not engine.alive


@pytest.fixture(scope="session")
def model():
    return tiny()


@pytest.fixture(scope="session")
def served(model):
    with running(model) as served:
        yield served


@pytest.fixture(scope="session")
def serve():
    """Starts another, with limits and settings of its own."""
    return running
