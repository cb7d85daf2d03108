"""The gate before every request: whose it is, how many there are, how large and how slow it may be.

A request is refused before its body is read into memory; the body is still taken off the wire, within the time that any
has, for a client that is cut off while it writes never sees why.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from weft.serving.errors import ApiError, Json, shaped
from weft.serving.limits import Limits
from weft.serving.watching import Metrics, log

OPEN = ("/health", "/ready")  # for load balancers: without a key
LOCAL = ("localhost", "127.0.0.1", "[::1]", "::1")
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        b"require-trusted-types-for 'script'",
    ),
]


class Gate:
    """ASGI middleware. ``keys``: any of them opens ``/v1`` and ``/metrics``; none: no key is asked for.

    ``local``: the server listens on loopback, so that a request for another host's name is a web page's trick (DNS
    rebinding); ``origins``: web pages that may call from elsewhere than the server's own.
    """

    def __init__(
        self, app: Any, limits: Limits, metrics: Metrics, keys: Sequence[str], origins: Sequence[str], local: bool
    ) -> None:
        self._app, self._limits, self._metrics, self._local = app, limits, metrics, local
        self._keys = [_digest(key.encode()) for key in keys]
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._hosts = {*LOCAL, *(urlsplit(origin).hostname or "" for origin in self._origins)}
        self._under_way = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, seen = time.monotonic(), {"status": 0}
        name = uuid.uuid4().hex
        facts: dict[str, Any] = scope.setdefault("state", {}).setdefault("facts", {})

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                message = {**message, "headers": [*message["headers"], *HEADERS, (b"x-request-id", name.encode())]}
            await send(message)

        body = _Body(receive, self._limits, begun)
        counted = scope["method"] == "POST"
        try:
            self._admit(scope, counted)
        except ApiError as refusal:
            counted = False
            waits = dict(scope["headers"]).get(b"expect", b"").lower() == b"100-continue"
            if not waits:  # one that asks first sends nothing once it is refused
                await body.drain()
            await Json(refusal.body, refusal.status_code, refusal.headers)(scope, receive, sent)
            return self._done(scope, seen["status"], begun, name, facts)
        self._under_way += counted
        self._metrics.under_way.set(self._under_way)
        try:
            await self._app(scope, body.receive, sent)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log("failure", logging.ERROR, error, id=name)
            if not seen["status"]:
                await Json(shaped(500, "the server failed on this request"), 500)(scope, receive, sent)
        finally:
            self._under_way -= counted
            self._metrics.under_way.set(self._under_way)
            self._done(scope, seen["status"], begun, name, facts)

    def _admit(self, scope: Any, counted: bool) -> None:
        """Raises `ApiError` where a request is not to be served."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._local and _name(host) not in self._hosts:
            raise ApiError(
                403, "this server answers requests for its own name alone; --allow-origin names others", None
            )
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and origin not in self._origins and urlsplit(origin).netloc != host:
            raise ApiError(403, "this server takes no requests from that web page; --allow-origin names those it does")
        path = scope["path"]
        guarded = path not in OPEN and (path.startswith("/v1") or path in ("/metrics", "/openapi.json"))
        if self._keys and guarded and scope["method"] != "OPTIONS":
            kind, _, key = headers.get(b"authorization", b"").partition(b" ")
            given = _digest(key.strip() if kind.lower() == b"bearer" else b"")
            if not sum(hmac.compare_digest(given, own) for own in self._keys):  # each is compared
                said = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
                raise ApiError(401, said, None, "invalid_api_key", WWW_Authenticate="Bearer")
        if counted and self._under_way >= self._limits.requests:
            said = f"the server holds {self._limits.requests} requests already; try again in a moment"
            raise ApiError(429, said, None, "too_many_requests", Retry_After="1")
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limits.body_bytes:
            raise too_large(self._limits)

    def _done(self, scope: Any, status: int, begun: float, name: str, facts: dict[str, Any]) -> None:
        seconds = time.monotonic() - begun
        route = getattr(scope.get("route"), "path", None) or "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if route not in OPEN:
            method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
            log("request", id=name, method=method, route=route, status=status, seconds=round(seconds, 4), **facts)


class _Body:
    """A request's body: within its size, and whole within its time."""

    def __init__(self, receive: Any, limits: Limits, begun: float) -> None:
        self._receive, self._limits, self._end = receive, limits, begun + limits.body_seconds
        self._bytes, self._whole = 0, False

    async def receive(self) -> Any:
        if self._whole:
            return await self._receive()
        left = self._end - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.01))
        except TimeoutError:
            said = f"the request was not there within {self._limits.body_seconds:g} seconds"
            raise ApiError(408, said, None, "too_slow", Connection="close") from None
        self._bytes += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._bytes > self._limits.body_bytes:
            await self.drain()
            raise too_large(self._limits)
        return message

    async def drain(self) -> None:
        """Takes what is left off the wire, and keeps none of it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self._end - time.monotonic(), 0.01)):
                while not self._whole:
                    self._whole = not (await self._receive()).get("more_body", False)


def too_large(limits: Limits) -> ApiError:
    return ApiError(413, f"the request has more than {limits.body_bytes:,} bytes", None, "too_large")


def _digest(key: bytes) -> bytes:
    """Keys are compared by digests, which are of one length."""
    return hashlib.sha256(key).digest()


def _name(host: str) -> str:
    """The name in a Host header, its port left out."""
    return host.rsplit(":", 1)[0] if not host.endswith("]") and ":" in host else host
