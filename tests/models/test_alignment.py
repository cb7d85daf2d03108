"""The way through attention on which neither sound nor text goes back, and where each token lies on it."""

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperModel

from weft.models.encoders.alignment import attention_watched, extents, first_states, loudness, within_sound


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
        starts, ends = extents(watched, heard, torch.tensor([32, 25]), torch.tensor([3, 2]), loudness(wide))
    assert [each.tolist() for each in (starts[0], ends[0])] == [[0, 10, 20], [10, 20, 28]]
    assert [each[:2].tolist() for each in (starts[1], ends[1])] == [[0, 5], [5, 25]]
    assert starts[1, 2] == ends[1, 2] == 0  # behind what was written


def test_loudness_is_of_both_frames_of_a_state():
    mel = torch.arange(10.0).reshape(1, 5, 2)
    assert loudness(mel).tolist() == [[1.5, 5.5, 8.5]]
