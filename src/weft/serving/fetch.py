"""Media behind addresses: of hosts that the operator has named, and never on a private network.

A request that names an address makes this machine connect to it, so: only hosts of a list; every address that the name
stands for must be public; the connection goes to an address that was checked, not to what the name says later; and a
redirect is a new address, checked like the first.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urljoin, urlsplit

from weft.serving.errors import ApiError

HOPS = 4
BLOCK = 1 << 16
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Fetcher:
    """Gives the bytes behind an address; ``hosts``: names whose media may be fetched, each for that name alone.

    ``public``: whether an address may be connected to (another one is for tests).
    """

    def __init__(self, hosts: Iterable[str], most: int, seconds: float, public: Any = None) -> None:
        self._hosts = {host.strip().lower().rstrip(".") for host in hosts}
        self._most, self._seconds, self._public = most, seconds, public or is_public

    def __call__(self, url: str) -> bytes:
        """Raises `ApiError` where the host is not allowed, not public, or does not answer within time and size."""
        end = time.monotonic() + self._seconds
        for _ in range(HOPS):
            try:
                found = self._get(url, end)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _refused(f"the address could not be fetched ({type(error).__name__})") from None
            if isinstance(found, bytes):
                return found
            url = found
        raise _refused(f"the address redirects more than {HOPS - 1} times")

    def _get(self, url: str, end: float) -> bytes | str:
        """The bytes, or the address of a redirect."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower().rstrip(".")
        if parts.scheme.lower() not in ("http", "https") or parts.username is not None or parts.password is not None:
            raise _refused("only plain http:// and https:// addresses are fetched")
        if host not in self._hosts:
            raise _refused(
                "the host of the address is not among those whose media this server fetches; send a data: URL"
            )
        secure = parts.scheme.lower() == "https"
        port = parts.port or (443 if secure else 80)
        connection = self._connected(host, port, secure, end)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", path, headers={"Accept": "image/*, audio/*, */*;q=0.1", "User-Agent": "weft"})
            answer = connection.getresponse()
            if answer.status in (301, 302, 303, 307, 308):
                return urljoin(url, answer.getheader("Location") or "")
            if answer.status != 200:
                raise _refused(f"the address answers with status {answer.status}")
            data = bytearray()
            while block := answer.read1(BLOCK):
                data += block
                if len(data) > self._most:
                    raise ApiError(413, f"what is at the address has more than {self._most:,} bytes", "messages")
                if time.monotonic() > end:
                    raise TimeoutError
            return bytes(data)
        finally:
            connection.close()

    def _connected(self, host: str, port: int, secure: bool, end: float) -> http.client.HTTPConnection:
        """A connection to an address that was checked, not to the name."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(map(self._public, addresses)):
            raise _refused("the host of the address is not on the public internet")
        left = max(0.1, end - time.monotonic())
        raw = socket.create_connection((addresses[0], port), timeout=left)
        connection = http.client.HTTPConnection(host, port, timeout=left)
        try:
            connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
        except Exception:
            raw.close()
            raise
        return connection


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet: not private, loopback, link-local, multicast or reserved, nor an
    IPv6 address that stands for an IPv4 address of these."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _refused(why: str) -> ApiError:
    return ApiError(400, why, "messages", "media_not_fetched")
