"""The script that examines the bundled model: how far two answers are the same."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from training_world import speech, write
from weft.conversation import Audio

ROOT = Path(__file__).parent.parent


@pytest.fixture
def exam(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.bundled_exam")


def test_answers_are_alike_to_the_end_or_in_their_first_tokens(exam):
    whole, other, shorter, none = ([1, 2, 3], [1, 2, 3]), ([1, 2, 3], [1, 2, 4]), ([1, 2, 3], [1]), ([1], [2])
    assert exam.alike([whole], 16) == {"same": 1, "first_tokens_same": 16}
    assert exam.alike([whole, other, shorter, none], 16) == {"same": 1 / 4, "first_tokens_same": (16 + 2 + 1 + 0) / 4}
    assert exam.alike([([1, 2, 3], [1, 2, 4])], 2) == {"same": 0, "first_tokens_same": 2}


def test_spoken_prompts_are_compared_with_what_is_said_in_them(exam, tmp_path):
    class Model:
        """Says again what is said, and more of the second clip."""

        processor = SimpleNamespace(renderer=SimpleNamespace(encode_text=str.split))

        def chat(self, asked, options):
            ((part,),) = (message.parts for message in asked.messages)
            return SimpleNamespace(text=said[part.source] if isinstance(part, Audio) else part.text)

    path = write(tmp_path, 2, (plain,))
    samples = exam.read_samples(path)
    said = {sample.audios[0].source: sample.answer.text + " more" * number for number, sample in enumerate(samples)}
    heard = len(samples[1].answer.text.split())
    assert exam.spoken(Model(), path, 2)["metrics"] == {
        "prompt": {"same": 1 / 2, "first_tokens_same": (exam.PROMPT_TOKENS + heard) / 2}
    }


def plain(folder, number, rng):
    return speech(folder, 3 * number, rng)  # every third has no times
