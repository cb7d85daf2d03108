"""What the ear of the bundled model is taught beside whole sentences."""

import importlib
from pathlib import Path

import pytest
import torch


@pytest.fixture
def ear(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))
    return importlib.import_module("benchmarks.bundled_ear")


def test_words_that_are_said_alone_are_whole(ear):
    text = "Didn't she see, on Wednesday, the non-fake Straße of a café - naïve, wasn’t it, (was) ten?"
    assert ear.whole_words(text) == ["she", "see", "the", "was", "ten"]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_weights_between_two_are_within_the_rank_of_both(ear, share):
    torch.manual_seed(0)
    a = torch.randn(40, ear.RANK)
    usual = {"w": torch.randn(40, 30), "b": torch.randn(40)}
    before, after = ({"w": usual["w"] + a @ torch.randn(ear.RANK, 30), "b": usual["b"]} for _ in range(2))
    found = ear.between(usual, before, after, share)
    torch.testing.assert_close(found["w"], torch.lerp(before["w"], after["w"], share))  # they share what they span
    torch.testing.assert_close(found["b"], usual["b"])
    apart = {"w": usual["w"] + torch.randn(40, ear.RANK) @ torch.randn(ear.RANK, 30)}
    mean = ear.between({"w": usual["w"]}, before, apart, share)["w"]
    assert torch.linalg.matrix_rank(mean - usual["w"], rtol=1e-4) == ear.RANK
