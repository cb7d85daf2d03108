"""A step of rows of other lengths attends to the same as one call for all of them, whatever a mask leaves out."""

import pytest
import torch
from torch import nn

from weft.models import padded
from weft.models.attention import weft_attention


@pytest.fixture
def calls(monkeypatch):
    plain, keys = padded.sdpa_attention_forward, []

    def noted(module, query, key, *args, **kwargs):
        keys.append(key.shape[2])
        return plain(module, query, key, *args, **kwargs)

    monkeypatch.setattr(padded, "sdpa_attention_forward", noted)
    return keys


def attended(lengths, hole=None, heads=(4, 2), size=64):
    """What the step gives, and what attention written out does. ``hole``: a row and column that nobody sees."""
    torch.manual_seed(0)
    width, module = max(lengths), nn.Module()
    module.num_key_value_groups = heads[0] // heads[1]
    query = torch.randn(len(lengths), heads[0], 1, size)
    key, value = torch.randn(2, len(lengths), heads[1], width, size)
    mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None])[:, None, None]
    if hole is not None:
        mask[hole[0], ..., hole[1]] = False
    with torch.inference_mode():
        got, _ = weft_attention(module, query, key, value, mask)
    many_key, many_value = (x.repeat_interleave(heads[0] // heads[1], 1) for x in (key, value))
    scores = (query @ many_key.transpose(2, 3) / size**0.5).masked_fill(~mask, -torch.inf)
    return got, (scores.softmax(-1) @ many_value).transpose(1, 2)


@pytest.mark.parametrize("hole", [None, (1, 995), (0, 0)])
def test_each_row_reads_its_own_keys_where_the_others_are_long(hole, calls):
    got, expected = attended([1000, 20, 300], hole)
    torch.testing.assert_close(got, expected)
    assert calls == [999 if hole == (0, 0) else 1000, 20, 300]


def test_little_padding_is_read_in_one_call(calls):
    got, expected = attended([60, 50, 58])
    torch.testing.assert_close(got, expected)
    assert calls == [60]
