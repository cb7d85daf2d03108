"""An hour of sound through `/v1/audio/transcriptions` of a running server: no word lost, none twice, none late.

    python -m benchmarks.serving.hour [--seconds 3600] [--rounds 3]        (docs/serving.md)

The recording has clicks at random moments, each with its number in it. The model is small, of random weights, and
encodes and generates as any; in place of its words the server is told what the clicks of its window say, at their time
within it. So what is measured is all around the model: cutting into windows, batches, offsets, and the three formats.
Exit status 1 where a word is missing, comes twice, or is off by more than a hundredth of a second.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import socket
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import soundfile
from benchmarks.serving.models import build

from weft.conversation import Conversation, Word, Words
from weft.dialects.chatml import ChatML

RATE, BITS, STEP = 16000, 12, 40  # STEP: samples from one pulse of a click to the next
LENGTH = (BITS + 1) * STEP / RATE  # seconds of a click


def recording(seconds: float, seed: int = 0) -> tuple[bytes, list[float]]:
    """FLAC with faint noise, and where its clicks begin: pulse 0 is the highest, and of the rest the high ones are bits
    of the click's number."""
    rng = np.random.default_rng(seed)
    wave = rng.integers(-2, 3, round(seconds * RATE)).astype(np.int16)
    starts, at = [], 0.5
    while at < seconds - 0.5 and len(starts) < 1 << BITS:
        first, number = round(at * RATE), len(starts)
        wave[first] = 30000
        for bit in range(BITS):
            wave[first + (bit + 1) * STEP] = 20000 if number >> bit & 1 else 8000
        starts.append(first / RATE)
        at += rng.uniform(0.3, 6.0)
    out = BytesIO()
    soundfile.write(out, wave, RATE, format="FLAC")
    return out.getvalue(), starts


def told(dialect: Any, text: str, conversation: Conversation) -> list[Words]:
    """In place of `ChatML.parse`: the clicks of the window."""
    wave, rate = conversation.audios[0].source
    words = []
    for first in np.flatnonzero(wave > 0.8):
        pulses = wave[first + STEP : first + (BITS + 1) * STEP : STEP]
        number = sum(1 << bit for bit, height in enumerate(pulses) if height > 0.4)
        words.append(Word(f"w{number}", first / rate, first / rate + LENGTH))
    return [Words(tuple(words), 0)] if words else []


def check(form: str, answer: httpx.Response, starts: list[float]) -> list[str]:
    """What is wrong with a transcript."""
    if form == "verbose_json":
        spoken = answer.json()
        found = {w["word"]: w["start"] for w in spoken["words"]}
        names = [w["word"] for w in spoken["words"]]
        late = [abs(found.get(f"w{i}", np.inf) - start) for i, start in enumerate(starts)]
        wrong = [f"{len(names)} words of {len(starts)}"] * (names != [f"w{i}" for i in range(len(starts))])
        wrong += [f"a word is off by {max(late):.3f} s"] * (max(late) > 0.01)
        text = " ".join(s["text"] for s in spoken["segments"])
    else:
        clock = r"(\d+):(\d\d):(\d\d)[.,](\d{3}) -->.*\n(.*)"
        cues = [
            (int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000, said)
            for h, m, s, ms, said in re.findall(clock, answer.text)
        ]
        text = " ".join(said for _, said in cues)
        due = {f"w{i}": start for i, start in enumerate(starts)}
        off = [abs(start - due.get(said.split()[0], np.inf)) for start, said in cues]
        wrong = [f"a cue is off by {max(off):.3f} s"] * (max(off) > 0.01)
    if text.split() != [f"w{i}" for i in range(len(starts))]:
        wrong.append("the text is not all words in their order")
    return wrong


def ask(http: httpx.Client, data: bytes, model: str, form: str) -> httpx.Response:
    more = {"timestamp_granularities[]": "word"} if form == "verbose_json" else {}
    fields = {"model": model, "response_format": form, "language": "en", **more}
    answer = http.post("/v1/audio/transcriptions", data=fields, files={"file": ("a.flac", data)})
    answer.raise_for_status()
    return answer


def serve(port: int) -> None:
    from weft.serving.app import build_app
    from weft.serving.engine import LocalEngine
    from weft.serving.limits import Limits
    from weft.serving.run import listen

    ChatML.parse = told  # type: ignore[assignment, method-assign]
    limits = Limits(tokens=8)
    sys.stderr = open("/dev/null", "w")  # noqa: SIM115
    listen(
        build_app(LocalEngine(build("tiny"), limits.batch, limits.batch_tokens), "tiny", limits),
        "tiny",
        "127.0.0.1",
        port,
    )


def status(pid: int) -> tuple[float, float]:
    """Seconds of a processor, and megabytes now."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    held = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]
    return (int(ticks[11]) + int(ticks[12])) / 100, int(held) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(port,))
    server.start()
    assert server.pid is not None
    failed = 0
    try:
        data, starts = recording(asked.seconds)
        print(f"{asked.seconds:.0f} s, {len(data) / 1e6:.0f} MB of FLAC, {len(starts)} words")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=None) as http:
            for _ in range(600):
                try:
                    http.get("/ready").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            for number in range(asked.rounds):
                for form in ("verbose_json", "srt", "vtt"):
                    before = status(server.pid)[0]
                    answer = ask(http, data, "tiny", form)
                    spent, held = status(server.pid)
                    wrong = check(form, answer, starts)
                    failed += bool(wrong)
                    windows = answer.headers["weft-windows"]
                    said = "; ".join(wrong) or "every word once, in its place"
                    print(
                        f"{number + 1} {form}: {windows} windows, {spent - before:.1f} s of a processor, "
                        f"{held:.0f} MB: {said}"
                    )
    finally:
        server.terminate()
        server.join(20)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
