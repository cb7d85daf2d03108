"""Several processes that answer together, each with the model for itself: on several GPUs, or on many cores.

One process reads the conversations and gets all replies, so what it writes, and how it goes on after a kill, is as with
one. The others are its own: they end with it, however it ends.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import torch

from weft.conversation import Audio, Conversation, Image, Part, WeftError
from weft.generation.engine import CHUNK_BATCHES, Asked, Model
from weft.generation.identity import identity
from weft.generation.reply import Options, Reply
from weft.media import Stored

Load = Callable[[str | None], Model]  # of a device; picklable


class Workers:
    """``count`` processes with a model each; where a file is answered, or a model evaluated, what `Model` is.

    A context manager. ``load`` makes the model of a process, on the device that it is given: a GPU of its own where
    there are several and ``device`` names none.
    """

    def __init__(self, load: Load, count: int, device: str | None = None) -> None:
        gpus = torch.cuda.device_count() if device is None else 0
        threads = max(1, (os.cpu_count() or 1) // count)
        context = get_context("spawn")
        self.lines: list[Connection] = []
        self.processes: list[Any] = []
        for number in range(count):
            ours, theirs = context.Pipe()
            place = f"cuda:{number % gpus}" if gpus else device
            process = context.Process(target=_work, args=(load, place, threads, theirs), daemon=True)
            process.start()
            theirs.close()  # so that its end is heard of
            self.lines.append(ours)
            self.processes.append(process)

    def __enter__(self) -> Workers:
        try:
            facts = [self._heard(line) for line in self.lines]
        except BaseException:
            self.close()
            raise
        self.identity, self.processor, self.dtype, self.device, self.name = facts[0]
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes."""
        for process, line in zip(self.processes, self.lines, strict=True):
            line.close()
            process.terminate()
            process.join()

    def replies(
        self, conversations: Iterable[Asked | WeftError], options: Options | None = None, *, batch_size: int = 16
    ) -> Iterator[tuple[int, Reply | WeftError]]:
        """As `Model.replies`: ``(index, reply)`` as answers are made, in no order."""
        numbered, size = iter(enumerate(conversations)), batch_size * CHUNK_BATCHES
        first = list(islice(numbered, size * len(self.lines)))  # shared out evenly: there may be no more
        shares = [first[i :: len(self.lines)] for i in range(len(self.lines))]
        busy = [line for line, share in zip(self.lines, shares, strict=True) if share]
        for line, share in zip(self.lines, shares, strict=True):
            if share:
                line.send((options, batch_size, sendable(share)))
        while busy:
            for ready in wait(busy):
                line = cast(Connection, ready)
                found = self._heard(line)
                if found is not None:
                    yield found
                elif share := list(islice(numbered, size)):
                    line.send((options, batch_size, sendable(share)))
                else:
                    busy.remove(line)

    def score(self, messages: Asked) -> float:
        """As `Model.score`, by the first of the processes."""
        self.lines[0].send(messages)
        value: float = self._heard(self.lines[0])
        return value

    def _heard(self, line: Connection) -> Any:
        try:
            found = line.recv()
        except (EOFError, ConnectionError):
            process = self.processes[self.lines.index(line)]
            process.join()
            raise WeftError(
                f"a process that answers has ended (status {process.exitcode}; -9: killed, as where memory ran out); "
                "answers that are written stay: give the command again, with fewer of them (--nproc)"
            ) from None
        if isinstance(found, WeftError):
            raise found
        return found


def sendable(share: list[tuple[int, Asked | WeftError]]) -> list[tuple[int, Asked | WeftError]]:
    """Conversations whose media lie in shards, with the bytes of these: a shard that is open stays where it is."""
    return [(number, _inside(one) if isinstance(one, Conversation) else one) for number, one in share]


def _inside(asked: Conversation) -> Conversation | WeftError:
    def read(part: Part) -> Part:
        if isinstance(part, Image | Audio) and isinstance(part.source, Stored):
            return replace(part, source=part.source.read())
        return part

    try:
        return asked.changed(read)
    except WeftError as error:
        return error


def _end_with(parent: Any) -> None:
    """Ends this process, in the middle of an answer too, when who started it has ended."""
    wait([parent.sentinel])
    os._exit(1)


def _work(load: Load, device: str | None, threads: int, line: Connection) -> None:
    """One process: facts of its model, then replies to what comes, None behind the last of each share."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for who started us, and who ends us
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    with suppress(EOFError, ConnectionError):  # who started us is gone
        try:
            model = load(device)
        except WeftError as error:
            return line.send(error)
        line.send((identity(model), model.processor, model.dtype, str(model.device), model.name))
        while True:
            asked = line.recv()
            if not isinstance(asked, tuple):
                try:
                    line.send(model.score(asked))
                except WeftError as error:
                    line.send(error)
                continue
            options, batch_size, share = asked
            try:
                for k, reply in model.replies([one for _, one in share], options, batch_size=batch_size):
                    line.send((share[k][0], reply))
            except WeftError as error:
                line.send(error)
            line.send(None)
