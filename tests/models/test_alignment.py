"""The way through attention on which neither sound nor text goes back, and where each token lies on it."""

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperModel

from weft.models.encoders.alignment import (
    at_pauses,
    attention_watched,
    extents,
    first_states,
    level,
    loudness,
    within_sound,
)


def warped(cost: np.ndarray) -> list[int]:
    """Dynamic time warping as it is defined, cell by cell; the first state of each token."""
    least, came = np.full(cost.shape, np.inf), {}
    for s, t in np.ndindex(cost.shape):
        ways = [(s - 1, t - 1), (s - 1, t), (s, t - 1)]
        ways = [way for way in ways if min(way) >= 0]
        came[s, t] = min(ways, key=lambda way: least[way], default=None)
        least[s, t] = cost[s, t] + (least[came[s, t]] if ways else 0)
    at, first = (cost.shape[0] - 1, cost.shape[1] - 1), {}
    while at is not None:
        first[at[0]] = at[1]
        at = came[at]
    return [first[s] for s in range(len(cost))]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (4, 1), (5, 12), (7, 40), (12, 6)])
def test_the_way_of_least_cost(shape):
    for seed in range(5):
        cost = np.random.default_rng(seed).normal(size=shape)
        assert first_states(cost).tolist() == warped(cost)


def test_what_is_quiet_at_either_end_belongs_to_no_token():
    loud = np.array([-1, -1, 0.9, 1, 0.8, -1, -1, -1, 0.9, 1, -1, -1])
    starts, ends = within_sound(np.array([0, 6, 11]), np.array([6, 11, 12]), loud)
    assert starts.tolist() == [2, 8, 11] and ends.tolist() == [5, 10, 12]  # the last is quiet all through
    same = within_sound(np.array([0, 2]), np.array([2, 4]), np.zeros(4))
    assert [each.tolist() for each in same] == [[0, 2], [2, 4]]


LOUD, STILL, DYING = 1.0, 0.0, 0.2


def test_a_word_begins_and_ends_at_the_pause_that_is_near():
    """Two words of ten states with five of silence between: attention changed within the second one."""
    heard = np.repeat([STILL, LOUD, STILL, LOUD, STILL], [4, 10, 5, 10, 3])
    assert at_pauses([4, 22], [22, 29], heard) == [(4, 14), (19, 29)]
    assert at_pauses([4, 10], [10, 29], heard) == [(4, 14), (19, 29)]  # and before the first one's end
    assert at_pauses([8, 16], [16, 26], heard) == [(4, 14), (19, 29)]
    fading = np.repeat([LOUD, DYING, STILL, DYING, LOUD], [10, 2, 4, 3, 10])
    assert at_pauses([0, 12], [12, 29], fading) == [(0, 12), (16, 29)]  # its end is quieter than most of it


def test_a_pause_parts_two_words_and_reaches_no_farther_than_it_lasts():
    spoken = np.repeat([LOUD, STILL, LOUD, STILL, LOUD], [20, 3, 8, 3, 20])
    assert at_pauses([0, 19, 28], [19, 28, 54], spoken) == [(0, 20), (23, 31), (34, 54)]
    far = [0, 9], [9, 54]
    assert at_pauses(*far, spoken) == [(0, 7), (7, 54)]  # two states sooner than attention has it
    closed = np.repeat([LOUD, STILL, LOUD], [20, 2, 32])  # as within "after": no pause
    assert at_pauses([0, 19], [19, 54], closed) == [(0, 17), (17, 54)]
    assert at_pauses([], [], spoken) == []


def test_the_end_of_a_clip_is_a_pause():
    heard = np.repeat([STILL, LOUD, STILL], [4, 30, 1])
    assert at_pauses([4], [26], heard) == [(4, 34)] and at_pauses([4], [26], heard[:-1]) == [(4, 34)]
    assert at_pauses([4], [12], heard) == [(4, 12)]  # too far away
    assert at_pauses([4, 34], [34, 34], heard[:-1]) == [(4, 34), (34, 34)]


@pytest.mark.parametrize("seed", range(40))
def test_words_keep_their_order_and_some_length_whatever_is_heard(seed):
    """Short words and such of no length among them, edges some way off, and a pause behind every second word."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 12, 12)
    heard = np.concatenate([np.repeat([LOUD, STILL], [n, rng.choice([0, rng.integers(1, 25)])]) for n in lengths])
    heard = level(np.append(heard, LOUD) + rng.normal(size=len(heard) + 1) / 30)
    edges = np.append(0, lengths.cumsum()) * len(heard) // lengths.sum() + rng.integers(-8, 9, 13)
    edges = np.maximum.accumulate(edges.clip(0, len(heard)))
    starts, ends = edges[:-1].tolist(), edges[1:].tolist()
    found = at_pauses(starts, ends, heard)
    assert len(found) == 12
    in_order = [0, *(edge for extent in found for edge in extent), len(heard)]
    assert in_order == sorted(in_order)
    assert all(a < z for (a, z), x, y in zip(found, starts, ends, strict=True) if x < y)


def test_a_word_without_length_does_not_come_behind_the_next_one():
    """As the ear wrote a real recording: two words at one state, and no pause near."""
    heard = np.repeat([STILL, LOUD], [5, 55])
    assert at_pauses([5, 46, 46, 49], [46, 46, 49, 60], heard) == [(5, 44), (44, 46), (46, 47), (47, 60)]


def test_tokens_lie_where_heads_attend_while_they_are_written():
    """A decoder whose upper layers look at one state for each token, whatever else they do."""
    torch.manual_seed(0)
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "vocab_size": 20, "max_source_positions": 32}
    sizes |= {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "decoder_ffn_dim": 16}
    config = WhisperConfig(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3)
    decoder = WhisperModel(config).decoder.eval()
    heard = torch.randn(2, 32, 32)
    with torch.no_grad(), attention_watched(decoder) as watched:
        for token in range(3):
            decoder(input_ids=torch.full((2, 1), 4 + token), encoder_hidden_states=heard)
    (layer,) = watched
    assert len(layer.queries) == 3
    states = [[range(10), range(10, 20), range(20, 32)], [range(5), range(5, 25), range(32)]]  # of each token
    answers = torch.linalg.inv(layer.attention.k_proj(heard).detach())  # [2, 32, 32]: what one state alone answers to
    layer.queries[:] = [
        1e3 * torch.stack([answers[n][:, list(states[n][s])].sum(1) for n in range(2)])[:, None] for s in range(3)
    ]
    wide = torch.ones(2, 64, 8) - 2 * (torch.arange(64) >= 56)[:, None]  # quiet from state 28 on
    with torch.no_grad():
        loud = loudness(wide, torch.tensor([64, 64]))
        starts, ends = extents(watched, heard, torch.tensor([32, 25]), torch.tensor([3, 2]), loud)
    assert [each.tolist() for each in (starts[0], ends[0])] == [[0, 10, 20], [10, 20, 28]]
    assert [each[:2].tolist() for each in (starts[1], ends[1])] == [[0, 5], [5, 25]]
    assert starts[1, 2] == ends[1, 2] == 0  # behind what was written


def test_loudness_is_of_both_frames_of_a_state():
    mel = torch.arange(10.0).reshape(1, 5, 2)
    assert loudness(mel, torch.tensor([5])).tolist() == [[1.5, 5.5, 8.5]]
    filled = torch.nn.functional.pad(mel, (0, 0, 0, 4)).expand(2, -1, -1)
    assert loudness(filled, torch.tensor([5, 3])).tolist() == [[1.5, 5.5, 8.5, 8.5, 8.5], [1.5, 4.5, 4.5, 4.5, 4.5]]
