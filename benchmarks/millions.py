"""What beginning to train on very many samples costs: CPU seconds and memory of a fresh process, first and second time.

    python -m benchmarks.millions FOLDER [--samples 10000000] [--batches 500]

Writes a sample file of text into FOLDER (2 GB for ten million), unless it is there. Memory is what a process holds for
itself (RssAnon of Linux, looked at every hundredth of a second): what it maps of files is the disk's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

WORDS = ["the", "a", "red", "blue", "cup", "table", "dog", "runs", "sleeps", "over", "under", "two", "three", "white"]


def write(path: Path, samples: int) -> None:
    """Lines of 120 to 300 bytes, each with an id of its own."""
    draw = random.Random(0)

    def line() -> str:
        question, answer = (" ".join(draw.choices(WORDS, k=draw.randint(*span))) for span in ((5, 20), (3, 20)))
        messages = [{"role": "user", "content": question + "?"}, {"role": "assistant", "content": answer}]
        return f', "messages": {json.dumps(messages)}}}\n'

    tails = [line() for _ in range(10_000)]
    with open(path, "w") as file:
        for at in range(0, samples, len(tails)):
            file.writelines(f'{{"id": "{at + i}"{tails[i]}' for i in range(min(len(tails), samples - at)))


def megabytes() -> float:
    told = Path("/proc/self/status").read_text()
    return int(told.split("RssAnon:")[1].split()[0]) / 1000


def begin(path: Path, batches: int) -> None:
    """Begins to train on a file, without a model, and tells what it took."""
    from weft.data.kept_lengths import KeptLengths
    from weft.data.loader import SourceSpec, TrainingData
    from weft.recipes import model_spec
    from weft.training.sizes import planned

    processor = planned(model_spec("scratch"))[1]
    top, before, started = [0.0], megabytes(), time.process_time()
    threading.Thread(
        target=lambda: [(top.append(megabytes()), time.sleep(0.01)) for _ in iter(int, 1)], daemon=True
    ).start()
    told: dict[str, Any] = {}

    def tell(name: str) -> None:
        told[name] = round(time.process_time() - started, 2), round(megabytes() - before), round(max(top) - before)

    data = TrainingData([SourceSpec(path)], processor, row_tokens=1024, keep_lengths=KeptLengths)
    tell("begun")
    stream = data.batches()
    next(stream)
    tell("first batch")
    for _ in islice(stream, batches):
        pass
    tell(f"{batches} more")
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--begin", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    path = asked.folder / f"{asked.samples}.jsonl"
    if asked.begin:
        return begin(path, asked.batches)
    asked.folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        write(path, asked.samples)
    print(f"{asked.samples:,} samples, {os.path.getsize(path) / 1e9:.2f} GB")
    for time_ in ("first", "second"):
        found = subprocess.run(
            [sys.executable, "-m", "benchmarks.millions", *sys.argv[1:], "--begin"], capture_output=True, text=True
        )
        if found.returncode:
            raise SystemExit(found.stderr)
        for name, (seconds, held, most) in json.loads(found.stdout.splitlines()[-1]).items():
            print(f"{time_:8}{name:14}{seconds:9.2f} CPU s{held:8,} MB held{most:8,} MB at most")


if __name__ == "__main__":
    main()
