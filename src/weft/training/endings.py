"""How a run ends before its end: a signal, a mistake, what is not finite, a full disk. Each says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weft.conversation import WeftError
from weft.files import is_full
from weft.training.checkpoint import DiskFull, disk_full
from weft.training.ranks import Ranks, leave


class Interrupted(Exception):
    """A signal ended the run; it is saved. ``status`` is the exit status that shells expect."""

    def __init__(self, run: Path, step: int, number: int) -> None:
        self.status = 128 + number
        super().__init__(
            f"stopped by {signal.Signals(number).name} and saved at step {step}; go on with: weft train --resume {run}"
        )


class Agreed(WeftError):
    """An error that every rank knows of, so that all can save before they end."""


class NotFinite(Agreed):
    """A loss or gradient that is not a number."""


class Signals:
    """SIGTERM and Ctrl-C end the run after the update under way; a second one ends it at once. A context manager."""

    def __init__(self) -> None:
        self.number = 0  # of the signal that came; 0: none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
        for s in self._before:
            signal.signal(s, self._note)
        return self

    def _note(self, number: int, _: Any) -> None:
        self.number = number
        self.__exit__()

    def __exit__(self, *_: Any) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)


@contextmanager
def saved_at_the_end(run: Path, ranks: Ranks, save: Callable[[], None], saved: Callable[[], int]) -> Iterator[None]:
    """Whatever ends what is within, save what is whole and say how to go on.

    ``save`` writes a checkpoint of the last update that was done, unless there is one; ``saved`` tells the step of the
    newest. A mistake that is met before anything is trained is passed on as it is: there is nothing to go on with.
    """
    try:
        yield
    except DiskFull as error:
        raise DiskFull(f"{error}: weft train --resume {run}") from None
    except WeftError as error:
        # What one rank alone has met the others do not know of, so they could not save together.
        together = ranks.world == 1 or isinstance(error, Agreed)
        if together:
            save()
            leave()
            if not ranks.first:
                raise SystemExit(2) from None  # the first rank says it
        if ranks.world == 1 and not saved() and not isinstance(error, Agreed):
            raise
        raise type(error)(f"{error}; the run is saved at step {saved()}: weft train --resume {run}") from None
    except OSError as error:
        if not is_full(error):
            raise
        what = f"{error.filename} could not be written" if error.filename else str(error)
        raise DiskFull(f"{disk_full(run, what)}: weft train --resume {run}") from error
