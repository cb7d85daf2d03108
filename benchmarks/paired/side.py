"""One side of the benchmark, a process of its own: trains without end, and waits between updates until it is asked.

Started by `benchmarks.paired`. A line "N" on standard input asks for N updates; then comes a line of JSON: what they
were and the CPU seconds of this process since it last answered (what threads do meanwhile counts).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.paired import world


class Meter:
    """Adds up what updates were; the first ones warm up."""

    def __init__(self, warm: int = 2) -> None:
        self.warm, self.left, self.sum, self.cpu = warm, 0, Counter[str](), 0.0

    def add(self, **values: float) -> None:
        if self.warm:
            self.warm -= 1
            if self.warm:
                return
            print("ready", flush=True)
        else:
            self.sum.update({"updates": 1, **values})
            self.left -= 1
            if self.left:
                return
            self._answer()
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        self.left = int(line)
        self.cpu = self.cpu or time.process_time()

    def _answer(self) -> None:
        now = time.process_time()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(json.dumps({**self.sum, "cpu": now - self.cpu, "memory_gb": memory}), flush=True)
        self.sum, self.cpu = Counter(), now


def weft_side(folder: Path, kind: str, precision: str) -> None:
    """weft's own training, observed."""
    from weft.training import meters
    from weft.training.run import train

    meter, taken = Meter(), ("samples", "tokens", "labels", "encoder_tflop", "decoder_tflop")

    def observe(record: dict[str, Any]) -> None:
        if record["event"] == "step":
            places = record["tokens"] / (1 - record["padding"])
            meter.add(places=places, **{name: record[name] for name in taken})

    train(world.recipe(folder, kind, precision), Path(tempfile.mkdtemp()) / "run", observe=observe, meter=meters.Meter)


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("side", choices=("weft", "padded", "grouped"))
    ask.add_argument("folder", type=Path)
    ask.add_argument("kind", choices=world.KINDS)
    ask.add_argument("precision", choices=("bfloat16", "float32"))
    given = ask.parse_args()
    import torch

    torch.set_num_threads(1)
    if given.side == "weft":
        weft_side(given.folder, given.kind, given.precision)
    else:
        from benchmarks.paired.peer import peer_side

        peer_side(given.folder, given.kind, given.precision, grouped=given.side == "grouped", meter=Meter())


if __name__ == "__main__":
    main()
