"""Several processes train one model: each takes its slices of the plan, and gradients are summed over all.

torchrun starts them and says through the environment who each is; a process that it did not start is alone, and then
nothing here does anything. Every rank holds the whole model and its optimizer, and makes the same update from the same
sums, so nothing is sent but gradients and a few numbers. What is done once (writing, evaluating, telling) the first
rank does while the others wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from weft.conversation import WeftError

T = TypeVar("T")
BUCKET = 1 << 24  # gradient entries sent at once: 64 MiB
WAIT = timedelta(days=1)  # an evaluation, or measuring a large data set, may keep the others waiting for long


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @staticmethod
    def start() -> Ranks:
        """Joins the others where torchrun started this process; alone otherwise. On a GPU where there is one."""
        world = int(os.environ.get("WORLD_SIZE", 1))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if world == 1 or "RANK" not in os.environ:
            return Ranks(device=device)
        if device == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=WAIT)
        return Ranks(int(os.environ["RANK"]), world, device)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def place(self, micro_step: int) -> int:
        """Where this rank's micro-step lies among those of all ranks: where one rank alone would have it."""
        return micro_step * self.world + self.rank

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, value: int) -> int:
        """The largest of the ranks' numbers: a signal that one of them got is all of theirs."""
        return int(self._reduced([value], dist.ReduceOp.MAX)[0])

    def told(self, value: float) -> float:
        """The first rank's number."""
        return self._reduced([value if self.first else 0.0], dist.ReduceOp.SUM)[0]

    def gathered(self, items: list[Any]) -> list[Any]:
        """The items of all ranks, in the order of the ranks."""
        if self.world == 1:
            return items
        found: list[Any] = [None] * self.world
        with _others():
            dist.all_gather_object(found, items)
        return [item for each in found for item in each]

    def lead(self, work: Callable[[], T]) -> T | None:
        """What ``work`` gives, done by the first rank while the others wait and get None; if it fails, all end."""
        if self.world == 1:
            return work()
        result, failed = None, None
        if self.first:
            try:
                result = work()
            except Exception as error:  # raised below, once the others know
                failed = error
        if self.told(failed is not None):
            leave()
            raise failed or SystemExit(2)  # the first rank says why
        return result

    def after_first(self, work: Callable[[], T]) -> T:
        """``work`` done by every rank, by the others once the first is through (and has left what they find)."""
        result: Any = self.lead(work)
        return result if self.first else work()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every gradient becomes the sum over the ranks. One that no rank has stays None."""
        if self.world == 1:
            return
        trained = list(parameters)
        present = self._reduced([p.grad is not None for p in trained], dist.ReduceOp.MAX)
        there = [p for p, some in zip(trained, present, strict=True) if some]
        for p in there:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in _buckets(there):
            flat = torch.cat([p.grad.flatten() for p in bucket if p.grad is not None])
            with _others():
                dist.all_reduce(flat)
            for p, summed in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = summed.view_as(p)

    def _reduced(self, values: Sequence[float], how: Any) -> list[float]:
        if self.world == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        with _others():
            dist.all_reduce(numbers, how)
        return numbers.tolist()


ALONE = Ranks()


def talks() -> bool:
    """Whether this process tells what all have done: alone, or the first rank."""
    return os.environ.get("RANK", "0") == "0"


def leave() -> None:
    """Takes leave of the others, where there are any; for ends that all ranks know of.

    A rank that ended right after an exchange could take the answer with it before another had it. Nobody gets through
    this barrier until all have everything; that it may itself be broken off then is no matter.
    """
    if dist.is_available() and dist.is_initialized():
        with suppress(RuntimeError):
            dist.barrier()
        dist.destroy_process_group()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and sum(b.numel() for b in bucket) + p.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


@contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise WeftError("another rank has stopped, and its own message says why") from error
