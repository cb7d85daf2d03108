"""Memory that the C library keeps for itself, and what asking the system for it anew costs.

glibc maps a large block by itself and gives it back when it is freed, so that the system has to clear its pages each
time: a row of 2,048 tokens through six layers of 384 took 1.97 CPU seconds, 0.70 of them for that. Kept, they
cost nothing: 1.33. But activations of rows of ever other lengths leave holes that nothing fits, and a process grows.
So blocks are kept, and the pages of holes are given back every few updates (`Blocks`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGE = (1 << 31) - 1
EVERY = 4  # updates


class Blocks:
    """Keeps freed blocks for the updates of this process; ``kept`` False where that is not to be had.

    That is where there is no glibc, and where the environment says otherwise (``MALLOC_MMAP_THRESHOLD_``).
    """

    def __init__(self, more: Callable[[], None] = lambda: None) -> None:
        """``more``: what is to be told of updates too."""
        self.kept, self.updates, self.more = False, 0, more
        if "MALLOC_MMAP_THRESHOLD_" in os.environ:
            return
        try:
            self.libc = ctypes.CDLL(None)
            self.libc.malloc_trim.argtypes = [ctypes.c_size_t]
            options = M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            self.kept = sum(self.libc.mallopt(option, LARGE) for option in options) == len(options)
        except (AttributeError, OSError, TypeError):
            return

    def updated(self) -> None:
        """Tells of an update: after each `EVERY` of them what lies free is given back."""
        self.more()
        self.updates += 1
        if self.kept and self.updates % EVERY == 0:
            self.libc.malloc_trim(0)
