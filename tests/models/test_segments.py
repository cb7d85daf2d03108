"""Attention of packed samples as matrix products gives what SDPA gives of each sample alone."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from weft.models import attention, segments

# Of one token, of as many as a product has, of a block, of one more, and of some blocks.
LENGTHS = (1, segments.STEP, segments.MOST, segments.MOST + 1, 500)


def row(lengths, dtype, query_dtype=None, size=16):
    """Query, key and value of 6 and 2 heads as a layer makes them: [1, L, H, K] seen as [1, H, L, K]."""
    torch.manual_seed(0)
    types = query_dtype or dtype, query_dtype or dtype, dtype
    made = (torch.randn(1, sum(lengths), n, size).to(t) for n, t in zip((6, 2, 2), types, strict=True))
    return [x.transpose(1, 2).requires_grad_() for x in made]


def alone(query, key, value, lengths, scaling, causal=True):
    """Each sample by itself, [1, L, H, K]."""
    key, value = (x.repeat_interleave(3, 1) for x in (key, value))
    parts = zip(*(x.split(lengths, 2) for x in (query, key, value)), strict=True)
    mixed = [F.scaled_dot_product_attention(*part, is_causal=causal, scale=scaling) for part in parts]
    return torch.cat(mixed, 2).transpose(1, 2)


def outcome(mixed, inputs):
    """What came out, and what flows back, in float32."""
    seed = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad(mixed, inputs, seed.to(mixed.dtype))
    return [mixed.detach().float(), *(grad.float() for grad in grads)]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", [LENGTHS, (7,), (segments.STEP, 0, segments.MOST)])
def test_samples_give_what_they_give_alone(monkeypatch, lengths, causal):
    monkeypatch.setattr(segments, "MOST_AROUND", 200)
    inputs = row(lengths, torch.float32)
    wanted = outcome(alone(*inputs, lengths, 0.3, causal), inputs)
    got = outcome(segments.SegmentAttention.apply(*inputs, lengths, 0.3, causal), inputs)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("causal", "window", "longest"), [
    (True, None, 350), (True, 400, 350), (False, None, 350),
    # One that takes the usual way, beside others.
    (True, None, attention.LONGEST + 1), (False, None, attention.LONGEST_AROUND + 1),
])  # fmt: skip
def test_a_cpu_with_fast_products_trains_as_another(monkeypatch, causal, window, longest):
    """Values in bfloat16, queries and keys in float32 as rotary embeddings leave them: errors below a hundredth."""
    lengths = (60, longest, 200, 90)
    inputs = row(lengths, torch.bfloat16, torch.float32, size=64)
    mask, layer = attention.segment_mask(torch.tensor(lengths)), SimpleNamespace(is_causal=causal)

    def trained(fast):
        monkeypatch.setattr(attention, "has_fast_products", lambda: fast)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = attention.weft_attention(layer, *inputs, mask, scaling=0.125, sliding_window=window)
        assert mixed.dtype == torch.bfloat16
        return outcome(mixed, inputs)

    for one, other in zip(trained(True), trained(False), strict=True):
        assert 0 < (one - other).norm() < 0.01 * other.norm()


@pytest.mark.parametrize(("rule", "dtype", "longest"), [
    ({"sliding_window": 5}, torch.bfloat16, 14),
    ({"softcap": 2.0}, torch.bfloat16, 14),
    ({"is_causal": False, "softcap": 2.0}, torch.bfloat16, 14),
    ({}, torch.float32, 14),
    ({}, torch.bfloat16, attention.LONGEST + 1),
])  # fmt: skip
def test_what_the_products_cannot_do_or_only_slowly_takes_the_usual_way(monkeypatch, rule, dtype, longest):
    lengths = (longest, longest)
    inputs = row(lengths, dtype)
    mask, layer = attention.segment_mask(torch.tensor(lengths)), SimpleNamespace(is_causal=True)
    mixed = []
    for fast in (True, False):
        monkeypatch.setattr(attention, "has_fast_products", lambda fast=fast: fast)
        mixed.append(attention.weft_attention(layer, *inputs, mask, scaling=0.3, **rule)[0])
    assert torch.equal(*mixed)


def test_checkpointing_gives_the_same_gradients():

    from torch.utils.checkpoint import checkpoint

    inputs = row((9, 140), torch.float32)
    wanted = outcome(segments.SegmentAttention.apply(*inputs, (9, 140), 0.3), inputs)
    again = checkpoint(segments.SegmentAttention.apply, *inputs, (9, 140), 0.3, use_reentrant=False)
    for one, other in zip(outcome(again, inputs), wanted, strict=True):
        assert torch.equal(one, other)
