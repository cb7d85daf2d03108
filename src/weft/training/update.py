"""The gradient of one update, summed over micro-steps so that their grouping is immaterial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from weft.data.loader import Batch

Precision = Literal["float32", "bfloat16"]


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from several whole numbers."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batch_loss(model: Any, batch: Batch, precision: Precision, label_smoothing: float = 0.0) -> torch.Tensor:
    """Mean loss over a micro-step's labels."""
    device = next(model.parameters()).device
    inputs = {k: v.to(device) for k, v in batch.inputs.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return model(**inputs, label_smoothing=label_smoothing, use_cache=False).loss


def backward(
    model: Any,
    micro: Sequence[Batch],
    *,
    precision: Precision,
    label_smoothing: float = 0.0,
    seed: Sequence[int] = (0,),
) -> float:
    """Add the gradient of the mean loss over all labels of the micro-steps; returns that loss.

    Each micro-step counts by its labels, so one batch, the same in parts, and the same packed give one gradient.
    Dropout is drawn from ``seed`` and the micro-step's place: nothing of torch's generator need be saved to resume.
    Ends early, gradient unfinished, where the loss is not finite. A micro-step that reaches no trained weight (text
    only, while an encoder trains) adds nothing.
    """
    labels = sum(b.labels for b in micro)
    total = 0.0
    for place, batch in enumerate(micro):
        if not batch.labels:
            continue
        torch.manual_seed(mixed_seed(*seed, place))
        loss = batch_loss(model, batch, precision, label_smoothing) * (batch.labels / labels)
        total += float(loss.detach())
        if not math.isfinite(total):
            break
        if loss.requires_grad:
            loss.backward()
    return total


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> float:
    """Scale the gradients to a norm of at most ``limit``; returns the norm they had."""
    trained = [p for p in parameters if p.grad is not None]
    if not trained:
        return 0.0
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if limit is not None and math.isfinite(float(norm)):
        torch.nn.utils.clip_grads_with_norm_(trained, limit, norm)
    return float(norm)
