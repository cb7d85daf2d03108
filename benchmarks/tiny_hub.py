"""A folder as a data set of a Hugging Face hub on this machine: what `HfFileSystem` asks for when it reads, no more.

    python -m benchmarks.tiny_hub FOLDER [--port 5056]     # then HF_ENDPOINT=http://127.0.0.1:5056, hf://datasets/me/set

Any ``NAMESPACE/NAME`` and revision are the folder. It counts bytes that it gives; nothing is written through it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = r"/api/datasets/(?P<id>[^/]+/[^/]+)"
INFO = re.compile(REPOSITORY + r"(/revision/[^/]+)?")
TREE = re.compile(REPOSITORY + r"/tree/[^/]+(?P<path>/.*)?")
PATHS = re.compile(REPOSITORY + r"/paths-info/[^/]+")
FILE = re.compile(r"/datasets/[^/]+/[^/]+/resolve/[^/]+/(?P<path>.+)")


class Hub(ThreadingHTTPServer):
    """``given``: bytes of files that were sent; ``refused``: so many next reads of files are answered with 503."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Answer)
        self.folder, self.given, self.reads, self.refused = folder, 0, 0, 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def entry(self, path: Path) -> dict[str, Any]:
        """How the hub lists a file or folder: what changes with a file is its name (``oid``)."""
        name, facts = path.relative_to(self.folder).as_posix(), path.stat()
        oid = hashlib.sha1(f"{name} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()
        kind = "directory" if path.is_dir() else "file"
        return {"type": kind, "oid": oid, "size": 0 if path.is_dir() else facts.st_size, "path": name}


class Answer(BaseHTTPRequestHandler):
    server: Hub
    disable_nagle_algorithm, wbufsize = True, -1  # an answer is one packet, sent at once
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        path = unquote(asked.path)
        if found := FILE.fullmatch(path):
            return self._file(self.server.folder / found["path"])
        if found := TREE.fullmatch(path):
            folder = self.server.folder / (found["path"] or "").strip("/")
            if not folder.is_dir():
                return self._missing()
            deep = parse_qs(asked.query).get("recursive") in (["True"], ["true"], ["1"])
            return self._json([self.server.entry(p) for p in sorted(folder.rglob("*") if deep else folder.iterdir())])
        if found := INFO.fullmatch(path):
            return self._json({"id": found["id"], "sha": "0" * 40, "private": False, "tags": [], "siblings": []})
        self._missing()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        kind = self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if "json" in kind else parse_qs(body).get("paths", [])
        if not PATHS.fullmatch(unquote(urlsplit(self.path).path)):
            return self._missing()
        there = [self.server.folder / path for path in paths]
        self._json([self.server.entry(path) for path in there if path.exists()])

    def _file(self, path: Path) -> None:
        if not path.is_file():
            return self._missing()
        if self.server.refused:
            self.server.refused -= 1
            return self._send(503, b"", {})
        data, status, more = path.read_bytes(), 200, {"ETag": f'"{self.server.entry(path)["oid"]}"'}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            more["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        self.server.given += len(data)
        self.server.reads += 1
        self._send(status, data, more)

    def _missing(self) -> None:
        self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Silent."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=5056)
    asked = parser.parse_args()
    Hub(asked.folder.resolve(), asked.port).serve_forever()


if __name__ == "__main__":
    main()
