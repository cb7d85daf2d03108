"""The device that the checks of this folder run on: a real GPU where there is one, else the stand-in for one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import stand_in
import torch
from torch.nn.attention import varlen

import varlen as documentation
from weft.models import attention

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))  # tiny.py
REAL = torch.cuda.is_available()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if REAL:
        yield "cuda"
        return
    # Packed rows take the way that they take on a GPU, up to the kernel.
    monkeypatch.setattr(attention, "takes_varlen", lambda value: value.device.type == stand_in.NAME)
    kernel = stand_in.waiting(True)(documentation.documented_varlen)
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    with stand_in.stand_in() as device:
        yield device


@pytest.fixture
def without_waiting() -> Callable[[], AbstractContextManager[None]]:
    """``with without_waiting():`` the host may not wait for the device."""

    @contextmanager
    def real() -> Iterator[None]:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return real if REAL else partial(stand_in.waiting, False)
