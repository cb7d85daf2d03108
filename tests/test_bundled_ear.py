"""What the ear of the bundled model is taught beside whole sentences."""

import importlib
from pathlib import Path


def test_words_that_are_said_alone_are_whole(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    ear = importlib.import_module("benchmarks.bundled_ear")
    text = "Didn't she see, on Wednesday, the non-fake Straße of a café - naïve, wasn’t it, (was) ten?"
    assert ear.whole_words(text) == ["she", "see", "the", "was", "ten"]
