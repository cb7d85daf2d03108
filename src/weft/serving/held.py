"""Decoded media that all requests hold together: limits of one request times the requests that are held is no limit."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from weft.serving.errors import ApiError


class Held:
    """Bytes of decoded pictures and sound that are alive; past ``most`` the next request is to come again.

    What a request holds counts until nothing refers to it any more, however the request ends. One request alone may
    hold more: its own limits bound it.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self.bytes = 0

    def check(self, size: int, own: int) -> None:
        """Raises `ApiError` where ``size`` bytes more are too many beside those of others; ``own``: this request's."""
        if self.bytes > own and self.bytes + size > self._most:
            raise ApiError(
                429,
                "the pictures and clips of all requests fill the memory that they may; try again in a moment",
                "messages",
                "too_much_media",
                Retry_After="1",
            )

    def hold(self, medium: Any, size: int) -> None:
        """Counts a medium of ``size`` bytes for as long as it lives."""
        self._add(size)
        weakref.finalize(medium, self._add, -size).atexit = False

    def _add(self, size: int) -> None:
        with self._lock:
            self.bytes += size
