"""Memory that the C library would keep for itself.

glibc maps large blocks one by one and gives them back when they are freed; but with each that is freed it takes up to
its size (32 MiB at most) for small from then on, and keeps such blocks in heaps, one of each thread. Activations of
rows of ever other lengths leave holes there that nothing fits. The model `scratch` on pictures and clips, one core: 2.8
GB after 171 updates, and 1.4 GB after 181 in the same 44 seconds with the size fixed; the difference grew on.
"""

from __future__ import annotations

import ctypes
import os

M_MMAP_THRESHOLD = -3  # of malloc.h
LARGE = 1 << 20


def give_back_large_blocks() -> bool:
    """Have every block of `LARGE` bytes and more given back when it is freed; False where that is not to be had.

    That is where there is no glibc, and where the environment says otherwise (``MALLOC_MMAP_THRESHOLD_``).
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE))
    except (AttributeError, OSError, TypeError):
        return False
