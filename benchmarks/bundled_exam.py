"""Held-out figures of the bundled model, beside the best constant answer and a cascade, as a table in Markdown.

    python benchmarks/bundled_exam.py MODEL DATA -o FOLDER [--digits real/digits/test.jsonl] [--limit 60]

DATA is what bundled_data.py made: the test splits hold sentences, voices and speeds that no training has heard. The
cascade is the parts alone: Whisper tiny.en transcribes (greedily, clips filled up to 30 s as it was taught), and
SmolLM2 answers what it wrote. FOLDER gets a report a row, and exam.json, which a second call goes on from.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

import weft
from weft.conversation import Conversation, Message, Text, Words, read_samples, write_samples
from weft.evaluation.metrics import chosen, measure
from weft.evaluation.pairs import Pair
from weft.evaluation.run import evaluate
from weft.files import whole_file
from weft.generation import Options
from weft.media import load_audio
from weft.parts import sources
from weft.playground import world

WORLD = ("vqa", "refer", "identify", "detection", "locate", "locate_word", "speech_question", "question")


def rows(model: Any, options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is examined, and what examines it."""

    def scored(name: str, data: Path, tokens: int = 80) -> tuple[str, Callable[[], dict[str, Any]]]:
        limits = Options(max_new_tokens=tokens)
        return name, lambda: evaluate(model, data, options.out / name, limit=options.limit, options=limits)

    speech = {"unseen speech": options.data / "plain" / "test.jsonl"}
    if options.digits:
        for name, timed in (("digits", False), ("digits with times", True)):
            speech[name] = options.out / f"{name}.jsonl"
            write_samples(speech[name], [c for c in read_samples(options.digits) if has_times(c) == timed])
    for name, data in speech.items():
        yield scored(name, data)
        if "times" not in name:
            yield f"{name}, Whisper alone", partial(heard, data, options.limit)
    yield scored("unseen speech with times", options.data / "speech" / "test.jsonl", 200)
    for task in WORLD:
        yield scored(task, world.write(options.out / "world" / task, "test", options.limit, seed=1, tasks=[task]))
    yield "spoken as typed", lambda: spoken(model, options.data / "plain" / "test.jsonl", options.limit)


def heard(data: Path, limit: int) -> dict[str, Any]:
    """What Whisper alone makes of the clips."""
    folder = sources()["audio"]
    processor, model = WhisperProcessor.from_pretrained(folder), WhisperForConditionalGeneration.from_pretrained(folder)
    pairs = []
    for asked in read_samples(data)[:limit]:
        wave = load_audio(asked.audios[0].source)
        mel = processor(wave, sampling_rate=16000, return_tensors="pt").input_features
        ids = model.float().generate(mel, max_new_tokens=80)
        pairs.append(Pair.of(asked, (Text(processor.batch_decode(ids, skip_special_tokens=True)[0].strip()),)))
    return {"metrics": measure(pairs, chosen(["wer"])).metrics, "baseline": {}}


def has_times(asked: Conversation) -> bool:
    return asked.answer is not None and any(isinstance(part, Words) for part in asked.answer.parts)


def spoken(model: Any, data: Path, limit: int) -> dict[str, Any]:
    """How often a spoken prompt is answered as the same prompt typed, greedily, in the first 16 tokens."""
    same, limits = [], Options(max_new_tokens=16)
    for said in read_samples(data)[:limit]:
        answers = []
        for part in (said.audios[0], Text(said.answer.text if said.answer else "")):
            answers.append(model.chat(Conversation((Message("user", (part,)),)), limits).text)
        same.append(answers[0] == answers[1])
    return {"metrics": {"prompt": {"same": sum(same) / len(same)}}, "baseline": {}}


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| what | metric | weft | best constant answer |", "|---|---|---|---|"]
    for name, report in found.items():
        for task, figures in report["metrics"].items():
            for metric, value in figures.items():
                constant = report["baseline"].get(task, {}).get(metric)
                beside = "" if constant is None else f"{constant:.3g}"
                lines.append(f"| {name} | {task}.{metric} | {value:.3g} | {beside} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--digits", type=Path)
    parser.add_argument("--limit", type=int, default=60)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "exam.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    torch.set_num_threads(1)
    model = weft.load(options.model)
    for name, examine in rows(model, options):
        if name not in found:
            report = examine()
            found[name] = {key: report[key] for key in ("metrics", "baseline")}
            with whole_file(path) as file:
                json.dump(found, file, indent=1)
            print(name, json.dumps(found[name]["metrics"]), flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
