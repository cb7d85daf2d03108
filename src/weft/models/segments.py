"""Attention of packed samples written out as matrix products, for training in bfloat16 on a CPU that has AMX.

There products in bfloat16 run at six times float32's rate, and SDPA, which cuts small pieces of its own, gets little
of it. Here a block of a sample's queries at a time meets the keys before it. Query heads that share a group of keys
lie below each other, so that keys are not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.amp import custom_bwd, custom_fwd

# Queries at a time, the fastest of 64, 128, 192 and 256 for samples of 60 to 350 tokens.
BLOCK = 128


class SegmentAttention(torch.autograd.Function):
    """`apply(query, key, value, lengths, scaling)`: causal attention of samples that stand in one row.

    query [1, H, L, K], key and value [1, G, L, K] -> [1, L, H, K]. All is computed in the type of the values.
    """

    @staticmethod
    @custom_fwd(device_type="cpu")
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scaling: float
    ) -> torch.Tensor:
        (_, heads, length, size), groups = query.shape, key.shape[1]
        query_GLRK = value.new_empty(groups, length, heads // groups, size)
        query_GLRK.copy_(query[0].view(groups, -1, length, size).transpose(1, 2))
        key_GLK = (key[0] * scaling).to(value.dtype, memory_format=torch.contiguous_format)
        value_GLK, out_LGRK = value[0].contiguous(), value.new_empty(length, groups, heads // groups, size)
        ctx.lengths, ctx.scaling, ctx.types, kept = lengths, scaling, (query.dtype, key.dtype), []
        for first, start, end in _blocks(lengths):
            queries = query_GLRK[:, start:end].reshape(groups, -1, size)
            scores = torch.bmm(queries, key_GLK[:, first:end].transpose(1, 2))
            later = scores.new_full((end - start, end - start), float("-inf")).triu_(1)
            scores.view(groups, end - start, heads // groups, -1)[..., start - first :].add_(later[:, None])
            kept.append(torch.softmax(scores, -1))
            mixed = torch.bmm(kept[-1], value_GLK[:, first:end])
            out_LGRK[start:end] = mixed.view(groups, end - start, -1, size).transpose(0, 1)
        ctx.save_for_backward(query_GLRK, key_GLK, value_GLK, *kept)
        return out_LGRK.view(1, length, heads, size)

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_GLRK, key_GLK, value_GLK, *kept = ctx.saved_tensors
        groups, length, ratio, size = query_GLRK.shape
        grad_GLRK = grads[0].view(length, groups, ratio, size).transpose(0, 1)
        of_query = query_GLRK.new_empty(length, groups, ratio, size, dtype=ctx.types[0])
        of_key, of_value = torch.zeros(2, groups, length, size, device=value_GLK.device)  # sums, in float32
        for (first, start, end), weights in zip(_blocks(ctx.lengths), kept, strict=True):
            queries, grad = (x[:, start:end].reshape(groups, -1, size) for x in (query_GLRK, grad_GLRK))
            of_weights = torch.bmm(grad, value_GLK[:, first:end].transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            mixed = torch.bmm(of_scores, key_GLK[:, first:end])
            of_query[start:end] = mixed.view(groups, -1, ratio, size).transpose(0, 1)
            of_key[:, first:end] += torch.bmm(of_scores.transpose(1, 2), queries)
            of_value[:, first:end] += torch.bmm(weights.transpose(1, 2), grad)
        of_query = of_query.view(1, length, -1, size).transpose(1, 2)
        of_key = of_key.mul_(ctx.scaling).to(ctx.types[1])
        return of_query, of_key[None], of_value.to(value_GLK.dtype)[None], None, None


def _blocks(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Where a block's sample begins in the row, where the block itself begins, and where it ends."""
    first = 0
    for length in lengths:
        for start in range(first, first + length, BLOCK):
            yield first, start, min(start + BLOCK, first + length)
        first += length
