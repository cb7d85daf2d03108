"""Samples of several tasks."""

import json

import numpy as np
import pytest
import soundfile
from evaluation_samples import NASTY
from PIL import Image


@pytest.fixture
def data(tmp_path):
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "a.png")
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(16000) / 20) * 0.3, 16000)
    image, clip = {"type": "image", "image": "a.png"}, {"type": "audio", "audio": "a.wav"}

    def sample(name, expected, *parts):
        return {
            "id": name,
            "messages": [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": expected}],
        }

    text, box = (
        {"type": "text", "text": "the cup"},
        {"type": "box", "boxes": [[0.1, 0.1, 0.5, 0.5]], "label": "the cup"},
    )
    two = {"type": "box", "boxes": [[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]]}
    words = {
        "type": "words",
        "words": [{"text": "one", "start": 0.1, "end": 0.4}, {"text": "two", "start": 0.5, "end": 0.9}],
    }
    transcribe = {"type": "task", "task": "transcribe", "language": "en", "timestamps": True}
    plain = transcribe | {"timestamps": False}
    samples = [
        sample("r", [box], image, {"type": "task", "task": "refer"}, text),
        sample("d", [two], image, {"type": "task", "task": "detection"}, text),
        sample("w", [words], clip, transcribe),
        sample("p", "one two three", clip, plain),
        sample("q", "13", image, {"type": "task", "task": "vqa"}, text),
        sample("n", NASTY, {"type": "text", "text": NASTY}),
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(s) + "\n" for s in samples))
    return path
