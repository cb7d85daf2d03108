"""What measuring many clips costs before training begins: their words, the words' times, their headers.

    python -m benchmarks.measuring FOLDER [--clips 10000] [--rounds 3]

Writes clips of 2 to 4 s into FOLDER unless they are there, WAV and FLAC in turns, each with four to seven words and
their times, and measures them with the tokenizer of `scratch`: CPU seconds, without and with what edits of clips must
know, the least of the rounds. What a round keeps is deleted before the next.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import soundfile

from weft.data.kept_lengths import KeptLengths
from weft.data.lengths import measure
from weft.data.source import open_source
from weft.media import sound
from weft.recipes import model_spec
from weft.training.sizes import planned

WORDS = Path(__file__).with_name("words.txt").read_text().split()[:5000]


def write(folder: Path, clips: int) -> Path:
    """The samples' file."""
    draw = np.random.default_rng(0)
    noise = (0.01 * draw.standard_normal(4 * 16000)).astype(np.float32)
    (folder / "clips").mkdir(parents=True)
    lines = []
    for i in range(clips):
        rate, name, words = (16000, 8000)[i % 4 > 1], f"clips/{i}.{('wav', 'flac')[i % 2]}", int(draw.integers(4, 8))
        seconds = float(draw.uniform(2, 4))
        soundfile.write(folder / name, noise[: int(seconds * rate)], rate)
        times = np.sort(draw.uniform(0, seconds, 2 * words)).round(3).tolist()
        named = zip(draw.choice(WORDS, words), times[::2], times[1::2], strict=True)
        timed = [{"text": str(word), "start": start, "end": end} for word, start, end in named]
        task = {"type": "task", "task": "transcribe", "language": "en", "timestamps": True}
        messages = [
            {"role": "user", "content": [{"type": "audio", "audio": name}, task]},
            {"role": "assistant", "content": [{"type": "words", "words": timed, "audio": 0}]},
        ]
        lines.append(json.dumps({"id": str(i), "messages": messages}) + "\n")
    path = folder / f"{clips}.jsonl"
    path.write_text("".join(lines))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    path = asked.folder / f"{asked.clips}.jsonl"
    source = open_source(path if path.exists() else write(asked.folder, asked.clips))
    processor = planned(model_spec("scratch"))[1]
    for edited in (False, True):
        took = []
        for _ in range(asked.rounds):
            sound._remembered_frames.cache_clear()
            shutil.rmtree(asked.folder / ".weft", ignore_errors=True)
            begun = time.process_time()
            tokens = measure(source, processor, row_tokens=4096, edited=edited, keep=KeptLengths).total
            took.append(time.process_time() - begun)
        print(f"{'with edits' if edited else 'without'}: {min(took):.2f} CPU s, {tokens:,} tokens", flush=True)


if __name__ == "__main__":
    main()
