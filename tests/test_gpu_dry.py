"""What `benchmarks/gpu_speed.py` would run on a GPU goes through as shapes, and its layers through torch.compile."""

import importlib

import pytest
import torch

from weft.models.attention import _boundaries, _ends, segment_mask


@pytest.fixture
def dry():
    return importlib.import_module("benchmarks.gpu_dry").dry


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "train"), [("images", "lora"), ("text", "full"), ("speech", "lora"), ("images", "full")]
)
def test_a_step_goes_through_as_shapes(data, train, dry):
    found = dry(data, train, tiny=True, tokens=1024, compiled=False)
    assert found["counted"] == pytest.approx(found["formula"], rel=0.2)  # LoRA's own products are in no formula
    assert 512 < found["tokens"] <= 1024 and found["samples"] > 1 and 0 < found["trained"] <= found["parameters"]
    assert not found["without_gradient"]


@pytest.mark.slow
def test_a_layer_on_a_packed_row_is_one_graph(dry):
    """The lengths of its samples are not read, which would end the graph, and with it what is computed again."""
    found = dry("text", "full", tiny=True, tokens=1024, compiled=True)
    assert found["with"] == (1, 0, set()) and found["without"] == (1, 0, set())


def test_where_samples_end_is_the_same_without_reading_their_lengths():
    lengths = (9, 1, 14, 3)
    ends = _ends(segment_mask(torch.tensor(lengths)), torch.device("cpu"))
    known = _boundaries(lengths, torch.device("cpu"))
    assert torch.equal(ends, known) and ends.dtype == known.dtype
