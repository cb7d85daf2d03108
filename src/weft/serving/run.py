"""Listening: uvicorn, with a time limit for the head of a request, and an end that lets answers finish."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from weft.conversation import WeftError
from weft.serving.watching import log, log_to_stderr

HEAD_SECONDS = 15.0  # for the head of a request, from the connection or the first byte of it
DRAIN_SECONDS = 120  # for answers under way, after SIGTERM


class Protocol(H11Protocol):
    """Closes connections on which the head of a request never ends; uvicorn lets them stand."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if not idle and self._late is not None:
            self._late.cancel()
            self._late = None
        elif idle and self._late is None and self.timeout_keep_alive_task is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)


def listen(
    app: FastAPI,
    name: str,
    host: str,
    port: int,
    cert: str | None = None,
    key: str | None = None,
    show: Callable[[str], object] | None = None,
) -> None:
    """Serves until SIGTERM or Ctrl-C; then no new request is taken and those under way are answered. ``show`` is given
    the address as soon as who asks there will be answered."""
    log_to_stderr()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((host, port))
    except OSError as error:
        place.close()
        raise WeftError(
            f"{host}:{port} cannot be listened on ({error.strerror}); give another --port or --host"
        ) from None
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=cert,
        ssl_keyfile=key,
    )
    shown = f"[{host}]" if ":" in host else host
    address = f"{'https' if cert else 'http'}://{shown}:{place.getsockname()[1]}"
    log("listening", model=name, address=address)
    if show is not None:
        place.listen()  # who comes before uvicorn is there waits
        show(address)
    # uvicorn raises the signal again once all is answered: that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        uvicorn.Server(config).run(sockets=[place])
    finally:
        place.close()
    log("stopped")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches what listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
