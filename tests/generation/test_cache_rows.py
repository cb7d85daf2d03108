"""The cache of a running batch holds what transformers' does, and a step does not copy it."""

import pytest
import tiny
import torch
from transformers import DynamicCache

from weft.generation import rows


@pytest.fixture
def config():
    return tiny.model("llama").config.text_config


def step(caches, rows_in_batch, columns):
    """The same further states for each cache; what it then gives."""
    states = torch.randn(2, rows_in_batch, 2, columns, 8)
    return [[cache.update(*states, layer) for layer in range(2)] for cache in caches]


def same(results):
    ours, theirs = results
    assert all(
        torch.equal(a, b) for mine, their in zip(ours, theirs, strict=True) for a, b in zip(mine, their, strict=True)
    )


def test_steps_and_rows_that_come_and_go_leave_what_transformers_keeps(config):
    torch.manual_seed(0)
    pair, other = ([rows.empty(config), DynamicCache(config=config)] for _ in range(2))
    same(step(pair, 3, 5))
    for _ in range(rows.ROOM + 2):
        same(step(pair, 3, 1))
    same(step(other, 2, 7))
    same(step(other, 2, 1))
    for mine, theirs in zip(pair, other, strict=True):
        rows.join(mine, theirs, (3, 2))
    same(step(pair, 5, 1))
    for cache in pair:
        rows.keep(cache, torch.tensor([4, 1]))
    same(step(pair, 2, 1))
    for cache in pair:
        rows.cut(cache, 6)
    same(step(pair, 2, 1))
    for cache in pair:
        rows.keep(cache, torch.tensor([1, 0]))
    same(step(pair, 2, 1))
    assert pair[0].get_seq_length() == pair[1].get_seq_length()


def test_a_step_writes_where_the_others_lie(config):
    cache = rows.empty(config)
    step([cache], 2, 4)
    places = set()
    for _ in range(rows.ROOM):
        step([cache], 2, 1)
        places.add(cache.layers[0].keys.data_ptr())
    assert len(places) == 1


def test_rows_that_come_and_go_leave_the_others_where_they_are(config):
    torch.manual_seed(0)
    cache, other = rows.empty(config), rows.empty(config)
    step([cache], 4, 9)
    ((keys, _), _) = step([cache], 4, 1)[0]
    stays, last, place = keys[0].clone(), keys[3].clone(), keys.data_ptr()
    step([other], 1, 6)
    rows.keep(cache, torch.tensor([0, 3, 2]))
    rows.join(cache, other, (3, 1))
    ((keys, _), _) = step([cache], 4, 1)[0]
    assert keys.data_ptr() == place and keys.shape[:3] == (4, 2, 11)
    assert torch.equal(keys[0, :, :10], stays) and torch.equal(keys[1, :, :10], last)
    assert torch.equal(keys[3, :, 4:10], other.layers[0].keys[0])


def test_sliding_layers_stay_transformers_own():
    cache = rows.empty(tiny.model("mistral").config.text_config)
    assert all(layer.is_sliding for layer in cache.layers)
