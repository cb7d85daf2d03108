"""Attention of packed samples written out as matrix products, for training in bfloat16 on a CPU that has AMX.

There products in bfloat16 run at six times float32's rate, and SDPA, which cuts small pieces of its own, gets little
of it. Here a block of a sample's queries at a time meets the keys before it, or all keys where it is not causal. Query
heads that share a group of keys lie below each other, so that keys are not repeated.

A CPU makes a kernel for each shape of a product, which takes longer than the product: samples are filled up with zeros
to a multiple of `STEP`, so that shapes are few and come again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.amp import custom_bwd, custom_fwd

STEP = 32
# Queries of a block at most, of a causal sample and of others: the fastest of 128 to 320, and of 128 to whole ones.
MOST, MOST_AROUND = 192, 640


class SegmentAttention(torch.autograd.Function):
    """`apply(query, key, value, lengths, scaling, causal)`: attention of samples that stand in one row.

    query [1, H, L, K], key and value [1, G, L, K] -> [1, L, H, K]. All is computed in the type of the values.
    """

    @staticmethod
    @custom_fwd(device_type="cpu")
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: Sequence[int],
        scaling: float,
        causal: bool = True,
    ) -> torch.Tensor:
        (_, heads, length, size), groups = query.shape, key.shape[1]
        query_GLRK = query[0].view(groups, -1, length, size).transpose(1, 2)
        whole, kept = sum(map(_filled, lengths)), list[torch.Tensor]()
        queries_GFRK = value.new_zeros(groups, whole, heads // groups, size)
        keys_GFK, values_GFK = value.new_zeros(2, groups, whole, size)
        for own, filled in _samples(lengths):
            queries_GFRK[:, filled][:, : own.stop - own.start] = query_GLRK[:, own]
            keys_GFK[:, filled][:, : own.stop - own.start] = key[0, :, own] * scaling
            values_GFK[:, filled][:, : own.stop - own.start] = value[0, :, own]
        out_LGRK = value.new_empty(length, groups, heads // groups, size)
        for own, filled in _samples(lengths):
            queries_GnRK, keys_GnK, values_GnK = queries_GFRK[:, filled], keys_GFK[:, filled], values_GFK[:, filled]
            for start, end, ends in _blocks(own.stop - own.start, causal):
                scores = torch.bmm(queries_GnRK[:, start:end].flatten(1, 2), keys_GnK[:, :ends].transpose(1, 2))
                if causal:
                    later = scores.new_full((end - start, end - start), float("-inf")).triu_(1)
                    scores.view(groups, end - start, heads // groups, -1)[..., start:].add_(later[:, None])
                else:
                    scores[..., own.stop - own.start :] = float("-inf")
                kept.append(torch.softmax(scores, -1))
                mixed = torch.bmm(kept[-1], values_GnK[:, :ends]).unflatten(1, (end - start, -1)).transpose(0, 1)
                there = out_LGRK[own][start:end]
                there.copy_(mixed[: len(there)])
        ctx.save_for_backward(queries_GFRK, keys_GFK, values_GFK, *kept)
        ctx.lengths, ctx.scaling, ctx.causal, ctx.types = lengths, scaling, causal, (query.dtype, key.dtype)
        return out_LGRK.view(1, length, heads, size)

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries_GFRK, keys_GFK, values_GFK, *kept = ctx.saved_tensors
        (groups, _, ratio, size), length = queries_GFRK.shape, sum(ctx.lengths)
        grad_LGRK, weights_left = grads[0].view(length, groups, ratio, size), iter(kept)
        of_query = queries_GFRK.new_empty(groups, length, ratio, size, dtype=ctx.types[0])
        of_key = keys_GFK.new_empty(groups, length, size, dtype=ctx.types[1])
        of_value = values_GFK.new_empty(groups, length, size)
        for own, filled in _samples(ctx.lengths):
            queries_GnRK, keys_GnK, values_GnK = queries_GFRK[:, filled], keys_GFK[:, filled], values_GFK[:, filled]
            grad_GnRK = torch.zeros_like(queries_GnRK)
            grad_GnRK[:, : own.stop - own.start] = grad_LGRK[own].transpose(0, 1)
            sums: Sequence[torch.Tensor] = ()  # of keys and values, in float32 where there are several blocks
            for start, end, ends in _blocks(own.stop - own.start, ctx.causal):
                weights, grad = next(weights_left), grad_GnRK[:, start:end].flatten(1, 2)
                of_weights = torch.bmm(grad, values_GnK[:, :ends].transpose(1, 2))
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                there = of_query[:, own][:, start:end]
                there.copy_(torch.bmm(of_scores, keys_GnK[:, :ends]).unflatten(1, (-1, ratio))[:, : there.shape[1]])
                queries = queries_GnRK[:, start:end].flatten(1, 2)
                found = torch.bmm(of_scores.transpose(1, 2), queries), torch.bmm(weights.transpose(1, 2), grad)
                if not start and end == keys_GnK.shape[1]:
                    sums = found
                    break
                sums = sums or keys_GnK.new_zeros(2, *keys_GnK.shape, dtype=torch.float32).unbind()
                for each, more in zip(sums, found, strict=True):
                    each[:, :ends] += more
            of_key[:, own], of_value[:, own] = (each[:, : own.stop - own.start] for each in sums)
        of_query = of_query.view(1, groups, length, ratio, size).transpose(2, 3).flatten(1, 2)
        return of_query, of_key.mul_(ctx.scaling)[None], of_value[None], None, None, None


def _filled(length: int) -> int:
    return -(-length // STEP) * STEP


def _samples(lengths: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Where each sample stands in the row, and where with the zeros that fill it up."""
    own = filled = 0
    for length in filter(None, lengths):
        yield slice(own, own + length), slice(filled, filled + _filled(length))
        own, filled = own + length, filled + _filled(length)


def _blocks(length: int, causal: bool) -> Iterator[tuple[int, int, int]]:
    """Of a sample that is filled up, where blocks of about one size begin and end, and the keys that each meets."""
    count = -(-length // (MOST if causal else MOST_AROUND))
    size, whole = _filled(-(-length // count)), _filled(length)
    for start in range(0, whole, size):
        end = min(start + size, whole)
        yield start, end, end if causal else whole
