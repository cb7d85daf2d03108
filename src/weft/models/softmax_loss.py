"""Cross-entropy that makes its gradient with itself, a few rows at a time, for logits in half precision on a CPU.

Written out by autograd it is seven passes over float32 of all logits. Here what is float32 stays in the processor's
cache, and what is left of it is the gradient, in the type of the logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

AT_ONCE = 1 << 18  # logits in float32: 1 MiB


class SoftmaxLoss(torch.autograd.Function):
    """`apply(logits_nV, targets_n, label_smoothing)`: the sum of the rows' losses, float32, each at least 0."""

    @staticmethod
    def forward(ctx: Any, logits_nV: torch.Tensor, targets_n: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        vocabulary = logits_nV.shape[1]
        slopes_nV = torch.empty_like(logits_nV) if ctx.needs_input_grad[0] else None
        total, rows = logits_nV.new_zeros((), dtype=torch.float32), max(1, AT_ONCE // vocabulary)
        for start in range(0, len(logits_nV), rows):
            some_mV, targets_m1 = logits_nV[start : start + rows].float(), targets_n[start : start + rows, None]
            some_mV -= some_mV.amax(1, keepdim=True)
            wanted_m1 = some_mV.gather(1, targets_m1)
            if label_smoothing:
                wanted_m1 = wanted_m1.lerp(some_mV.mean(1, keepdim=True), label_smoothing)
            sums_m1 = some_mV.exp_().sum(1, keepdim=True)
            total += (sums_m1.log() - wanted_m1).sum()
            if slopes_nV is not None:
                some_mV.div_(sums_m1).sub_(label_smoothing / vocabulary)
                some_mV.scatter_add_(1, targets_m1, torch.full_like(sums_m1, label_smoothing - 1))
                slopes_nV[start : start + rows] = some_mV
        ctx.slopes_nV = slopes_nV
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        slopes_nV, ctx.slopes_nV = ctx.slopes_nV, None
        if slopes_nV is None:
            raise RuntimeError("this loss gives its gradient once; compute it again for another backward pass")
        return slopes_nV if slope == 1 else slopes_nV.mul_(slope), None, None
