"""Several processes train one model, each on its slices of the plan: who they are, and how they talk.

torchrun starts them and says through the environment who each is; a process that it did not start is alone, and then
nothing here does anything. What is done once (writing, evaluating, telling) the first rank does while the others wait.
What they do together with gradients is in `parallel`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from weft.conversation import WeftError

T = TypeVar("T")
WAIT = timedelta(days=1)  # an evaluation, or measuring a large data set, may keep the others waiting for long
SILENCE = timedelta(minutes=30)  # else a rank that says nothing for so long is taken for lost


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    store: Any = field(default=None, compare=False)  # where the first rank says that it is through with something
    turns: Iterator[int] = field(default_factory=count, compare=False)

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
        rank = int(os.environ["RANK"])
        store, _, _ = next(dist.rendezvous("env://", rank, world, timeout=WAIT))
        if not dist.is_initialized():
            # Numbers of the host go from host to host, and wait for no device.
            backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
            own = dist.PrefixStore("group", store)
            dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=SILENCE)
        return Ranks(rank, world, device, dist.PrefixStore("weft", store))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self) -> dict[str, int]:
        """Of all rows, every ``world``-th from ``rank`` on are this rank's."""
        return {"rank": self.rank, "world": self.world}

    def place(self, micro_step: int) -> int:
        """Where this rank's micro-step lies among those of all ranks: where one rank alone would have it."""
        return micro_step * self.world + self.rank

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks."""
        return self.reduced(values, dist.ReduceOp.SUM)

    def added(self, numbers_n: torch.Tensor) -> torch.Tensor:
        """Sums over the ranks of what lies on the device, where they stay."""
        if self.world > 1:
            with others():
                dist.all_reduce(numbers_n)
        return numbers_n

    def largest(self, value: int) -> int:
        """The largest of the ranks' numbers: a signal that one of them got is all of theirs."""
        return int(self.reduced([value], dist.ReduceOp.MAX)[0])

    def told(self, value: float) -> float:
        """The first rank's number."""
        return self.reduced([value if self.first else 0.0], dist.ReduceOp.SUM)[0]

    def gathered(self, items: list[Any]) -> list[Any]:
        """The items of all ranks, in the order of the ranks."""
        if self.world == 1:
            return items
        found: list[Any] = [None] * self.world
        with others():
            dist.all_gather_object(found, items)
        return [item for each in found for item in each]

    def lead(self, work: Callable[[], T]) -> T | None:
        """What ``work`` gives, done by the first rank while the others wait and get None; if it fails, all end."""
        if self.world == 1:
            return work()
        result, failed, turn = None, None, f"turn {next(self.turns)}"
        if self.first:
            try:
                result = work()
            except Exception as error:  # raised below, once the others know
                failed = error
            self.store.set(turn, "failed" if failed else "done")
        with others():
            self.store.wait([turn], WAIT)
            went_wrong = self.store.get(turn) == b"failed"
        if went_wrong:
            leave()
            raise failed or SystemExit(2)  # the first rank says why
        return result

    def after_first(self, work: Callable[[], T]) -> T:
        """``work`` done by every rank, by the others once the first is through (and has left what they find)."""
        result: Any = self.lead(work)
        return result if self.first else work()

    def reduced(self, values: Sequence[float], how: Any) -> list[float]:
        """Each number as the ranks' numbers make it."""
        if self.world == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        with others():
            dist.all_reduce(numbers, how)
        return numbers.tolist()


ALONE = Ranks()


def leave() -> None:
    """Takes leave of the others, where there are any; for ends that all ranks know of.

    A rank that ended right after an exchange could take the answer with it before another had it. Nobody gets through
    this barrier until all have everything; that it may itself be broken off then is no matter.
    """
    if dist.is_available() and dist.is_initialized():
        with suppress(RuntimeError):
            dist.barrier()
        dist.destroy_process_group()


@contextmanager
def others() -> Iterator[None]:
    """What torch says where another rank is gone, in a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise WeftError(
            f"another rank has stopped, and its own message says why; or it has said nothing for {SILENCE}"
        ) from error
