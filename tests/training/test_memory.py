"""Large blocks are given back, also after glibc would have begun to keep them."""

import os
import subprocess
import sys

import pytest

from weft.training import memory

CHILD = """
import ctypes, runpy, sys
give_back_large_blocks = runpy.run_path(sys.argv[1])["give_back_large_blocks"]  # importing weft would import torch

libc = ctypes.CDLL(None)
if not hasattr(libc, "mallinfo2"):
    sys.exit(3)
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
libc.mallinfo2.restype, libc.malloc.restype = Info, ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
fixed = "fixed" in sys.argv and give_back_large_blocks()
libc.free(libc.malloc(20 << 20))  # from here on glibc would keep blocks up to this size
before = libc.mallinfo2().hblks
block = libc.malloc(2 << 20)
print(int(fixed), libc.mallinfo2().hblks - before)
"""


@pytest.mark.parametrize(("how", "said"), [("fixed", "1 1"), ("left", "0 0")])
def test_a_large_block_is_mapped_by_itself(how, said):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", CHILD, memory.__file__, how]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 3 or not sys.platform.startswith("linux"):
        pytest.skip("needs glibc 2.33 or newer, whose allocator this is about")
    assert done.stdout.strip() == said, done.stderr
