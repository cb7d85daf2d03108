"""Large blocks are kept for the next update, and holes are given back now and then."""

import os
import subprocess
import sys

import pytest

from weft.training import memory

CHILD = """
import ctypes, runpy, sys
Blocks = runpy.run_path(sys.argv[1])["Blocks"]  # importing weft would import torch

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def used(size):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    return block

blocks = Blocks()
size, start = 96 << 20, resident()
block, pin = used(size), used(1 << 16)  # which keeps the heap's end from shrinking
libc.free(block)
kept = resident() - start > size // 2
for _ in range(4):
    blocks.updated()
print(int(blocks.kept), int(kept), int(resident() - start < size // 2))
"""


@pytest.mark.parametrize(("environment", "said"), [({}, "1 1 1"), ({"MALLOC_MMAP_THRESHOLD_": "1048576"}, "0 0 1")])
def test_freed_blocks_are_kept_until_some_updates_are_done(environment, said):
    if not sys.platform.startswith("linux") or not os.confstr("CS_GNU_LIBC_VERSION"):
        pytest.skip("needs glibc, whose allocator this is about")
    others = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", CHILD, memory.__file__]
    done = subprocess.run(command, capture_output=True, text=True, env=others | environment)
    assert done.stdout.strip() == said, done.stderr
