"""Thousands of bad requests to `weft serve`: each a 4xx or an answer, in bounded time; memory flat; no connection out.

    python -m benchmarks.serving.fuzz [--requests 10000] [--clients 8]

Requests are those of tests/serving/bad_requests.py, each from its own seed. schemathesis makes others from the server's
own description; with it installed (pip install schemathesis), against a server that runs:

    schemathesis run http://127.0.0.1:8000/openapi.json --checks not_a_server_error -n 2000 --request-timeout 60
"""

from __future__ import annotations

import argparse
import collections
import http.client
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.serving.load import Server
from benchmarks.serving.models import build

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests" / part) for part in ("serving", "")]

from bad_requests import bad_request  # noqa: E402


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--requests", type=int, default=10_000)
    ask.add_argument("--clients", type=int, default=8)
    ask.add_argument("--first", type=int, default=0, help="seed of the first")
    given = ask.parse_args()
    trap = socket.create_server(("127.0.0.1", 0))
    trap.settimeout(0.1)
    seen: collections.Counter[int] = collections.Counter()
    slow: list[float] = []
    bad: list[int] = []
    memory: list[float] = []
    seeds = iter(range(given.first, given.first + given.requests))
    taking = threading.Lock()

    def client(port: int, server: Server) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with taking:
                seed = next(seeds, None)
            if seed is None:
                return
            if seed % (given.requests // 10 or 1) == 0:
                memory.append(server.megabytes)
            body = bad_request(seed, trap.getsockname()[1]).replace(b'"model": "tiny"', b'"model": "model"')
            begun = time.monotonic()
            try:
                connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            slow.append(time.monotonic() - begun)
            with taking:
                seen[status] += 1
                if status != 200 and not 400 <= status < 500:
                    bad.append(seed)

    with tempfile.TemporaryDirectory() as folder:
        model = build("tiny")
        model.model.save_pretrained(folder)
        model.processor.save_pretrained(folder)
        server = Server(folder, given.clients, "--max-tokens", "64")  # some ask for no length, and would have 2,048
        try:
            threads = [threading.Thread(target=client, args=(server.port, server)) for _ in range(given.clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            memory.append(server.megabytes)
        finally:
            server.kill()
    try:
        trap.accept()
        connected = True
    except TimeoutError:
        connected = False
    print(f"{given.requests:,} requests: {dict(sorted(seen.items()))}; the slowest took {max(slow):.2f} s")
    print("memory of the server: " + ", ".join(f"{m:,.0f}" for m in memory) + " MB")
    print(f"it {'opened a' if connected else 'opened no'} connection; neither a 4xx nor an answer: seeds {bad[:20]}")
    sys.exit(bool(bad or connected))


if __name__ == "__main__":
    main()
