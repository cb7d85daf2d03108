"""Processes of their own for tests, without waiting for torch: a server that has imported all forks them.

What a fresh interpreter imports is not tested with these; what processes do to each other, or survive, is.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from weft.data import packing

WINDOW = 128  # samples planned together in tests, here and in conftest: small runs come to few of them
# The server is told nothing of sys.path before Python 3.13, and passes over what it cannot import.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["warm"])


class Python:
    """``python -c source *arguments``, begun at once; what it prints to either stream is `communicate`'s."""

    def __init__(self, source: str, *arguments: object, env: Mapping[str, str] | None = None) -> None:
        handle, name = tempfile.mkstemp(prefix="printed-", suffix=".txt")
        os.close(handle)
        self.printed = Path(name)
        self.process = CONTEXT.Process(target=run, args=(source, list(map(str, arguments)), dict(env or {}), name))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """As in subprocess: the exit status, less than 0 for a signal; None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def communicate(self, timeout: float = 240) -> str:
        """What it printed, once it has ended."""
        self.process.join(timeout)
        if self.returncode is None:
            self.process.kill()
            raise TimeoutError(f"still at work after {timeout} s; it said: {self.printed.read_text()}")
        said = self.printed.read_text()
        self.printed.unlink()
        return said


def run(source: str, arguments: list[str], environment: dict[str, str], printed: str) -> None:
    gc.freeze()  # else looking for garbage copies what is shared with the server
    os.environ |= environment
    packing.WINDOW = WINDOW
    to = os.open(printed, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(to, stream)
    sys.argv = ["-c", *arguments]
    exec(compile(source, "-c", "exec"), {"__name__": "__main__"})
