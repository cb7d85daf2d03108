"""Test clips of a neural voice that no training has heard, for `bundled_exam.py`.

    python -m venv VENV && VENV/bin/pip install hibari-tts==0.2.1
    python -m benchmarks.hibari DATA VENV/bin/hibari

The texts are those of DATA/plain/test.jsonl (`bundled_data.py`), as the voice that the package brings says them
(Apache-2.0). Writes DATA/neural/test.jsonl.
"""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import replace
from pathlib import Path

from weft.conversation import Audio, Message, read_samples, write_samples

if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("program", type=Path)
    options.add_argument("--limit", type=int, default=100)
    given = options.parse_args()
    folder = given.data / "neural" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    said = []
    for n, sample in enumerate(read_samples(given.data / "plain" / "test.jsonl")[: given.limit]):
        asked, answer = sample.messages
        path = folder / f"{n:06}.wav"
        words = " ".join(part.text for part in answer.parts)  # type: ignore[union-attr]
        subprocess.run([given.program, words, "-o", path], check=True, capture_output=True)
        parts = tuple(Audio(str(path)) if isinstance(part, Audio) else part for part in asked.parts)
        said.append(replace(sample, messages=(Message("user", parts), answer), id=f"neural-{n}"))
    write_samples(folder.with_suffix(".jsonl"), said)
