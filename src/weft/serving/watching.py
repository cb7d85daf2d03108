"""What the operator sees: metrics for Prometheus, and one JSON object a line of log. Nothing of what users send.

Routes are named as the server knows them, never as a client wrote them; an error is named by its type and its place.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from weft.serving.engine import Engine

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
LOG = logging.getLogger("weft.serving")


class Metrics:
    """One registry a server, so that several in one process do not meet."""

    def __init__(self, engine: Engine) -> None:
        own = self._own = CollectorRegistry()
        self.requests = Counter("weft_requests", "Answered requests.", ("route", "status"), registry=own)
        self.seconds = Histogram("weft_request_seconds", "Of a request.", ("route",), registry=own, buckets=SECONDS)
        self.first = Histogram("weft_first_token_seconds", "Until an answer begins.", registry=own, buckets=SECONDS)
        self.under_way = Gauge("weft_requests_under_way", "Requests that the server holds.", registry=own)
        self.prompt = Counter("weft_prompt_tokens", "Tokens of prompts, media included.", registry=own)
        self.generated = Counter("weft_generated_tokens", "Tokens of answers.", registry=own)
        for name in engine.counts():
            gauge = Gauge(f"weft_{name}", "Of the engine, now; media since the start.", registry=own)
            gauge.set_function(partial(_count, engine, name))

    def text(self) -> bytes:
        return generate_latest(self._own)


def _count(engine: Engine, name: str) -> float:
    return engine.counts()[name]


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        said |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[1] is not None:
            said |= failure(record.exc_info[1])
        return json.dumps(said, ensure_ascii=True)


def log_to_stderr() -> None:
    """One handler for the server and for uvicorn, whose own lines about connections are left out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("weft.serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "weft.serving" else logging.WARNING)


def log(event: str, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:
    LOG.log(level, event, extra={"facts": facts | (failure(error) if error is not None else {})})


def failure(error: BaseException) -> dict[str, Any]:
    """An error without its words, which may quote a request: its type, those of its causes, and where it came from."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 5:
        chain.append(cause)
    types, frames = [type(one).__name__ for one in chain], traceback.extract_tb(chain[-1].__traceback__)[-4:]
    return {"error": types, "at": [f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in frames]}
