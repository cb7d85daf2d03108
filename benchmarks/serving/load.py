"""Many clients at once against `weft serve`, beside one at a time: the same answers, how fast, how much memory.

    python -m benchmarks.serving.load [--clients 64] [--seconds 120 | --answers 10000] [--size tiny|100m] [--kill]

The server is a process of its own with a model of random weights in float32. Every question has a picture, a clip or
both that no other has, and is streamed. One client asks all of them in turn; then the clients ask them at random, for
so many seconds or answers. Beside the time by the clock stands what the server computed, for a machine that others use.
``--kill`` ends the server with SIGKILL half-way and starts it again: clients try again, as OpenAI's do, and nothing may
be lost. Exit status 1 where an answer differs from the same request alone, or a request fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import soundfile
from benchmarks.serving.models import build, question

TRIES = 200


def written(part: dict[str, Any]) -> dict[str, Any]:
    """A part as clients of OpenAI's API write it."""
    out = BytesIO()
    if part["type"] == "image":
        part["image"].save(out, "PNG")
        return {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{b64encode(out.getvalue()).decode()}"},
        }
    if part["type"] == "audio":
        soundfile.write(out, *part["audio"], format="WAV")
        return {"type": "input_audio", "input_audio": {"data": b64encode(out.getvalue()).decode(), "format": "wav"}}
    return part


class Server:
    """The process, on one port however often it is started."""

    def __init__(self, folder: str, clients: int, *more: str) -> None:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            self.port = place.getsockname()[1]
        options = [
            "--port",
            str(self.port),
            "--dtype",
            "float32",
            "--name",
            "model",
            "--max-queue",
            str(2 * clients),
            *more,
        ]
        self._command = [str(Path(sys.executable).with_name("weft")), "serve", folder, *options]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        while httpx_status(f"http://127.0.0.1:{self.port}/ready") != 200:
            if self.process.poll() is not None:
                sys.exit("the server ended before it answered")
            time.sleep(0.2)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> float:
        """Seconds that it takes to end."""
        begun = time.monotonic()
        self.process.terminate()
        self.process.wait(60)
        return time.monotonic() - begun

    @property
    def megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    @property
    def processor(self) -> float:
        """Seconds that the process has computed."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def httpx_status(url: str) -> int:
    try:
        return httpx.get(url, timeout=2).status_code
    except httpx.HTTPError:
        return 0


class Clients:
    def __init__(self, server: Server, bodies: list[bytes]) -> None:
        self._bodies = bodies
        self._url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
        self.expected: dict[int, str] = {}
        self.latency: list[float] = []
        self.first: list[float] = []
        self.tokens = self.wrong = self.failed = self.again = 0

    async def ask(self, http: httpx.AsyncClient, i: int) -> None:
        begun = time.monotonic()
        for _ in range(TRIES):
            try:
                text = await self._once(http, i, begun)
                break
            except httpx.HTTPError:
                self.again += 1
                await asyncio.sleep(0.25)
        else:
            self.failed += 1
            return
        self.latency.append(time.monotonic() - begun)
        self.wrong += text != self.expected.setdefault(i, text)

    async def _once(self, http: httpx.AsyncClient, i: int, begun: float) -> str:
        text, whole, first = "", False, None
        async with http.stream("POST", self._url, content=self._bodies[i]) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                whole = whole or line == "data: [DONE]"
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line[6:])
                for choice in chunk["choices"]:
                    text += choice["delta"].get("content") or ""
                if text and first is None:
                    first = time.monotonic() - begun
                if chunk.get("usage"):
                    self.tokens += chunk["usage"]["completion_tokens"]
        if not whole:
            raise httpx.RemoteProtocolError("the stream was cut")
        self.first.append(first or 0.0)
        return text

    def row(self, name: str, seconds: float, computed: float) -> str:
        p50, p90, p99 = np.percentile(self.latency, [50, 90, 99])
        f50, f99 = np.percentile(self.first, [50, 99])
        rate = f"{len(self.latency):,} | {len(self.latency) / seconds:.1f} | {self.tokens / seconds:,.0f}"
        own = f"{1000 * computed / len(self.latency):.1f} ms, {self.tokens / computed:,.0f}"
        return f"| {name} | {rate} | {own} | {f50:.2f}, {f99:.2f} s | {p50:.2f}, {p90:.2f}, {p99:.2f} s |"


async def run(given: argparse.Namespace, server: Server, bodies: list[bytes]) -> bool:
    clients = Clients(server, bodies)
    limits = httpx.Limits(max_connections=given.clients)
    headers = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(timeout=600, limits=limits, headers=headers) as http:
        begun, computed = time.monotonic(), server.processor
        for i in range(len(bodies)):
            await clients.ask(http, i)
        alone = clients.row("one at a time", time.monotonic() - begun, server.processor - computed)
        print(f"{len(set(clients.expected.values()))} different answers to {len(bodies)} questions")
        memory = [server.megabytes]
        clients.latency, clients.first, clients.tokens = [], [], 0
        begun, computed, draw = time.monotonic(), server.processor, random.Random(0)

        def done() -> float:
            """The share of what is to be done."""
            if given.answers:
                return len(clients.latency) / given.answers
            return (time.monotonic() - begun) / given.seconds

        async def client() -> None:
            while done() < 1:
                await clients.ask(http, draw.randrange(len(bodies)))

        tasks = [asyncio.create_task(client()) for _ in range(given.clients)]
        for quarter in range(1, 5):
            while done() < quarter / 4:
                await asyncio.sleep(0.2)
            if given.kill and quarter == 2:
                computed -= server.processor  # what the killed process has computed counts too
                server.kill()
                await asyncio.to_thread(server.start)
            memory.append(server.megabytes)
        await asyncio.gather(*tasks)
        seconds, computed = time.monotonic() - begun, server.processor - computed
    print(f"the server's memory, before and after each quarter: {', '.join(f'{m:,.0f}' for m in memory)} MB")
    columns = ("", "requests", "a second", "tokens a second", "processor: a request, tokens a second of it")
    print("| " + " | ".join([*columns, "first token: median, 99 %", "answer: median, 90 %, 99 %"]) + " |")
    print("|---|---|---|---|---|---|---|")
    print(alone)
    print(clients.row(f"{given.clients} clients", seconds, computed))
    print(f"{clients.wrong} answers differ from the same request alone, {clients.failed} requests failed")
    print(f"{clients.again} tries were repeated; the server ended {server.stop():.1f} s after SIGTERM")
    return not (clients.wrong or clients.failed)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--clients", type=int, default=64)
    ask.add_argument("--seconds", type=float, default=120)
    ask.add_argument("--answers", type=int, default=0, help="so many, however long they take")
    ask.add_argument("--size", default="tiny")
    ask.add_argument("--questions", type=int, default=96)
    ask.add_argument("--tokens", type=int, default=32)
    ask.add_argument("--kill", action="store_true")
    given = ask.parse_args()
    fields = {"model": "model", "max_tokens": given.tokens, "temperature": 0, "stream": True}
    fields |= {"stream_options": {"include_usage": True}}
    bodies = []
    for i in range(given.questions):
        (message,) = question(i)
        content = [written(part) for part in message["content"]]
        bodies.append(json.dumps({**fields, "messages": [{"role": "user", "content": content}]}).encode())
    with tempfile.TemporaryDirectory() as folder:
        model = build(given.size)
        model.model.save_pretrained(folder)
        model.processor.save_pretrained(folder)
        del model
        server = Server(folder, given.clients)
        try:
            held = asyncio.run(run(given, server, bodies))
        finally:
            if server.process.poll() is None:
                server.kill()
    sys.exit(not held)


if __name__ == "__main__":
    main()
