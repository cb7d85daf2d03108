"""Ranks of one machine, started and watched by one process: where one is lost, all end, and it is said which."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

GRACE = 60.0  # seconds that the others have to notice that one is gone, say so and end
LOOK = 0.2


def launch(count: int, command: Sequence[str]) -> int:
    """Runs a command as ``count`` ranks; gives the exit status.

    What the first rank says is said; of another one, what it said last, if it was the first to fail. A signal is
    handed to all.
    """
    with ExitStack() as held:
        folder = Path(held.enter_context(TemporaryDirectory()))
        said = [held.enter_context((folder / str(rank)).open("w+b")) for rank in range(count)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = [_start(rank, count, port, command, said[rank]) for rank in range(count)]
        held.enter_context(_handed_on(ranks))
        failed = _first_failure(ranks)
        if failed is None:
            return 0
        _end(ranks)
        if failed:
            said[failed].seek(0)
            sys.stderr.write(said[failed].read()[-2000:].decode(errors="replace"))
        lost = [n for n, rank in enumerate(ranks) if rank.returncode < 0]
        if failed in lost:
            name = signal.Signals(-ranks[failed].returncode).name
            why = " (the machine may have run out of memory)" if name == "SIGKILL" else ""
            print(f"rank {failed} of {count} was ended by {name}{why}; the others were stopped", file=sys.stderr)
        status = ranks[0].returncode if ranks[0].returncode > 0 else ranks[failed].returncode
        return status if status > 0 else 128 - status


def _start(rank: int, count: int, port: int, command: Sequence[str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // count)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    environment |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # A session of their own: Ctrl-C in a terminal would come twice, which means at once.
    return subprocess.Popen(command, env=environment, start_new_session=True, **_streams(rank, said))


def _streams(rank: int, said: IO[bytes]) -> dict[str, Any]:
    return {"stdout": subprocess.DEVNULL, "stderr": said} if rank else {}


def _first_failure(ranks: Sequence[subprocess.Popen[bytes]]) -> int | None:
    while True:
        ended = [rank.poll() for rank in ranks]
        failed = {n: status for n, status in enumerate(ended) if status}
        if failed:  # one that was killed comes before one that tells of it
            return min(failed, key=lambda n: failed[n] > 0)
        if not any(status is None for status in ended):
            return None
        time.sleep(LOOK)


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Waits for those that are left, and ends them if need be."""
    for seconds, number in ((GRACE, signal.SIGTERM), (GRACE / 4, signal.SIGKILL), (GRACE, signal.SIGKILL)):
        last = time.monotonic() + seconds
        while time.monotonic() < last and any(rank.poll() is None for rank in ranks):
            time.sleep(LOOK)
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)


@contextmanager
def _handed_on(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def hand_on(number: int, _: object) -> None:
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    before = {s: signal.signal(s, hand_on) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def talks() -> bool:
    """Whether this process tells what all have done: alone, or the first rank."""
    return os.environ.get("RANK", "0") == "0"
