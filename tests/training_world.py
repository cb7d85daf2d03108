"""Samples on disk and a model of a few thousand parameters, for the tests of data, training and recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image

from weft.models.config import Connector, DialectSection
from weft.training.recipe import (
    LanguageSource,
    ModelSpec,
    Optim,
    PartTraining,
    Recipe,
    Source,
    Stage,
    TowerSource,
)

RATE = 16000
WORDS = ("one", "two", "three")


def tone(seconds: float, pitch: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def speech(folder: Path, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """A clip of beeps with silence between, each beep a word."""
    words, waves, at = [], [], 0.0
    for _ in range(int(rng.integers(1, 4))):
        gap, length, which = (
            round(float(rng.uniform(0.05, 0.15)), 3),
            round(float(rng.uniform(0.1, 0.2)), 3),
            rng.integers(3),
        )
        waves += [tone(gap, 0), tone(length, 300 * (1 + which))]
        words.append({"text": WORDS[which], "start": round(at + gap, 3), "end": round(at + gap + length, 3)})
        at += gap + length
    soundfile.write(folder / f"{number}.wav", np.concatenate([*waves, tone(0.1, 0)]), RATE)
    timed = number % 3 > 0
    content: Any = [{"type": "words", "words": words, "audio": 0}] if timed else " ".join(w["text"] for w in words)
    task = {"type": "task", "task": "transcribe", "language": "en", "timestamps": timed}
    return _sample(number, [{"type": "audio", "audio": f"{number}.wav"}, task], content)


def picture(folder: Path, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """A grey picture with one red rectangle, and where it is."""
    pixels = np.full((40, 48, 3), 120, np.uint8)
    x, y, w, h = (int(rng.integers(*span)) for span in ((2, 24), (2, 20), (8, 20), (8, 16)))
    pixels[y : y + h, x : x + w] = (220, 30, 30)
    Image.fromarray(pixels).save(folder / f"{number}.png")
    box = [round(v, 4) for v in (x / 48, y / 40, (x + w) / 48, (y + h) / 40)]
    content = [
        {"type": "image", "image": f"{number}.png"},
        {"type": "task", "task": "refer"},
        {"type": "text", "text": "the red box"},
    ]
    return _sample(number, content, [{"type": "box", "boxes": [box], "label": "the red box", "image": 0}])


def text(folder: Path, number: int, rng: np.random.Generator) -> dict[str, Any]:
    count = int(rng.integers(1, 9))
    return _sample(number, f"count to {count}", " ".join(str(i + 1) for i in range(count)))


def _sample(number: int, question: Any, answer: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": str(number), "messages": messages}


def write(folder: Path, n: int, kinds: Any = (speech, picture, text), name: str = "train.jsonl", seed: int = 0) -> Path:
    """``n`` samples in ``folder/name``; the kinds take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = [json.dumps(kinds[i % len(kinds)](folder, i, rng)) for i in range(n)]
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


def asked_twice(folder: Path, samples: int = 6) -> Path:
    """Pictures with a box question, a count and a colour each."""
    path = write(folder, samples, (picture,))
    lines = []
    for line in map(json.loads, path.read_text().splitlines()):
        lines.append(line)
        for words, answer in (("how many boxes?", "1"), ("which colour?", "red")):
            question = [line["messages"][0]["content"][0], {"type": "text", "text": words}]
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            lines.append({"id": line["id"] + words, "messages": messages})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def tiny_spec(dropout: float = 0.0) -> ModelSpec:
    return ModelSpec(
        vision=TowerSource(
            kind="conv",
            config={"channels": [8, 12, 16], "layers": 1, "heads": 2, "dropout": dropout},
            connector=Connector(merge=4, grid=True),
            options={"size": [32, 32]},
        ),
        audio=TowerSource(
            kind="whisper",
            config={
                "d_model": 16,
                "encoder_layers": 1,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 24,
                "num_mel_bins": 20,
                "max_source_positions": 200,
                "dropout": dropout,
            },
            connector=Connector(merge=4),
        ),
        language=LanguageSource(
            config={
                "model_type": "llama",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
            }
        ),
        dialect=DialectSection(name="chatml", switches={"box_bins": 20, "window_seconds": 4.0}),
    )


ALL = {n: PartTraining(train="full") for n in ("vision", "vision_connector", "audio", "audio_connector", "language")}


def tiny_recipe(data: Path, spec: ModelSpec | None = None, **stage: Any) -> Recipe:
    recipe = stage.pop("recipe", {})
    fields = {
        "steps": 6,
        "optim": Optim(lr=1e-3, warmup_steps=2),
        "parts": ALL,
        "mixture": (Source(path=str(data)),),
        "row_tokens": 256,
    }
    return Recipe(
        name="tiny",
        model=spec or tiny_spec(),
        stages=(Stage(**{**fields, **stage}),),
        **{"precision": "float32", "threads": 1, "checkpoint_every": 2, "features_gb": 0, **recipe},
    )


def run_in_half(model, ids):
    """The last hidden states under autocast to bfloat16, and the gradient of their mean square, in one piece."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.last_hidden(input_ids=ids)
    hidden.float().square().mean().backward()
    return hidden.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
