"""What a running batch brings over one prompt after the other, the reading of prompts and the making of answers apart.

    python -m benchmarks.serving.batching [--size tiny|100m] [--dtype float32] [--requests 16] [--tokens 64]

Every question has a picture, a clip or both that no other has. Seconds are of the processor, which with one thread is
the clock of an idle machine; the best of ``--repeats``.
"""

from __future__ import annotations

import argparse
import time

import torch
from benchmarks.serving.models import build, question

from weft.conversation import parse_messages
from weft.generation import Model, Options
from weft.generation.batch import Row


def seconds(model: Model, prompts: list, tokens: int, together: int) -> tuple[float, float, list[list[int]]]:
    """Seconds in steps that read prompts, and in steps that only make tokens; and what was made."""
    made: list[list[int]] = []
    reading = making = 0.0
    for i in range(0, len(prompts), together):
        batch = model.batch(together, 1 << 20)
        rows = [Row(prompt, Options(), tokens) for prompt in prompts[i : i + together]]
        for row in rows:
            batch.add(row)
        while len(batch):
            reads = bool(batch.waiting)
            begun = time.process_time()
            batch.step()
            if reads:
                reading += time.process_time() - begun
            else:
                making += time.process_time() - begun
        made += [row.ids for row in rows]
    return reading, making, made


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--size", default="tiny")
    ask.add_argument("--dtype", default="float32")
    ask.add_argument("--requests", type=int, default=16)
    ask.add_argument("--tokens", type=int, default=64)
    ask.add_argument("--threads", type=int, default=1)
    ask.add_argument("--repeats", type=int, default=3)
    given = ask.parse_args()
    torch.set_num_threads(given.threads)
    model = build(given.size, getattr(torch, given.dtype))
    model.stop = frozenset()  # all answers are equally long, so that the ways do the same
    prompts = [model.prepare(parse_messages(question(i))) for i in range(given.requests)]
    lengths = [len(p) for p in prompts]
    count = sum(p.numel() for p in model.model.parameters())
    print(f"{count / 1e6:.1f} M parameters, {given.dtype}, {given.threads} thread(s); {given.requests} requests of "
          f"{min(lengths)} to {max(lengths)} tokens, {given.tokens} new ones each")  # fmt: skip
    best: dict[int, tuple[float, float, list]] = {}
    for _ in range(given.repeats):
        for together in (1, given.requests):
            new = seconds(model, prompts, given.tokens, together)
            old = best.get(together, new)
            best[together] = min(old[0], new[0]), min(old[1], new[1]), new[2]
    alone, batched = best[1], best[given.requests]
    first, later = given.requests, given.requests * (given.tokens - 1)
    same = sum(a == b for a, b in zip(alone[2], batched[2], strict=True))
    rows = [
        ("prompts, tokens a second", sum(lengths) / alone[0], sum(lengths) / batched[0]),
        ("answers, tokens a second", later / alone[1], later / batched[1]),
        ("in all, new tokens a second", (first + later) / sum(alone[:2]), (first + later) / sum(batched[:2])),
    ]
    print(f"| | one at a time | {given.requests} together | |\n|---|---|---|---|")
    for name, one, many in rows:
        print(f"| {name} | {one:,.0f} | {many:,.0f} | {many / one:.1f} x |")
    print(f"{same} of {given.requests} answers are the same token by token")


if __name__ == "__main__":
    main()
