"""The gradient of one update, summed over micro-steps so that their grouping is immaterial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch

from weft.data.loader import Batch
from weft.models.loss import sent
from weft.training.ranks import ALONE, Ranks
from weft.training.sensing import (
    answers_loss,
    attention_watched,
    embeddings_given,
    guiding_loss,
    listening_loss,
    looking_loss,
)

Precision = Literal["float32", "bfloat16"]


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from several whole numbers."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batch_loss(model: Any, batch: Batch, precision: Precision) -> torch.Tensor:
    """Mean loss over a micro-step's labels."""
    with _autocast(model, precision):
        return model(**_inputs(model, batch), use_cache=False).loss


def backward(
    model: Any,
    micro: Sequence[Batch],
    *,
    precision: Precision,
    label_smoothing: float = 0.0,
    balance: float = 0.0,
    near: float = 0.0,
    listen: float = 0.0,
    guide: float = 0.0,
    answer: bool = True,
    seed: Sequence[int] = (0,),
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Add the gradient of the mean loss over all labels of the micro-steps; returns the loss(es), by name.

    Each micro-step counts by its labels, so one batch, the same in parts, and the same packed give one gradient.
    ``balance`` and ``near`` are of the loss, see `sensing.answers_loss`.
    ``listen`` weighs the losses on the media themselves, each a mean of its own ("listen" of sound, "look" of
    pictures); without ``answer`` a micro-step that has one learns nothing else. ``guide`` weighs the loss on where
    answers look ("guide"). Dropout is drawn from ``seed`` and the
    micro-step's place: nothing of torch's generator need be saved to resume. Ends early, gradient unfinished, where a
    loss is not finite. Losses are sums over the ``ranks``; gradients are this rank's share. A micro-step that reaches
    no trained weight (text only, while an encoder trains) adds nothing.
    """
    heard = [b.listening if listen else (0, 0) for b in micro]
    seen = [b.looking if listen else (0, 0) for b in micro]
    answers = [answer or not (h[0] or s[0]) for h, s in zip(heard, seen, strict=True)]
    own = sum(b.weight(balance) for b, wanted in zip(micro, answers, strict=True) if wanted)
    guided = [
        sum(len(gaze.tokens) for gaze in b.gazes) if guide and wanted else 0
        for b, wanted in zip(micro, answers, strict=True)
    ]
    known = [sum(column) for pairs in (heard, seen) for column in zip(*pairs, strict=True)]
    whole, all_guided, *known = ranks.total([own, sum(guided), *known])
    all_heard, all_seen = (int(known[0]), int(known[1])), (int(known[2]), int(known[3]))
    named = zip(("listen", "look", "guide"), (all_heard[0], all_seen[0], all_guided), strict=True)
    totals = {"loss": 0.0} | {name: 0.0 for name, count in named if count}
    weights = {"loss": 1.0, "listen": listen, "look": listen, "guide": guide}
    for place, batch in enumerate(micro):
        torch.manual_seed(mixed_seed(*seed, ranks.place(place)))
        parts: dict[str, torch.Tensor] = {}
        watching: Any = attention_watched(model) if guided[place] else nullcontext([])
        with embeddings_given(model) as sensed, watching as watched, _autocast(model, precision):
            inputs = _inputs(model, batch)
            if answers[place] and batch.labels:
                hidden_BLD = model.last_hidden(**{k: v for k, v in inputs.items() if k != "labels"})
                loss = answers_loss(model, hidden_BLD, batch, label_smoothing, near, balance)
                parts["loss"] = loss * (batch.weight(balance) / whole)
            elif not answers[place]:
                if heard[place][0]:
                    model.embed_audio(inputs["input_features"], inputs.get("feature_lengths"))
                if seen[place][0]:
                    model.embed_images(inputs["pixel_values"])
            if guided[place]:
                parts["guide"] = guiding_loss(watched, batch.gazes, batch.starts) * (guided[place] / all_guided)
            if heard[place][0]:
                sounds_XW = torch.cat(sensed["audio_connector"])
                parts["listen"] = listening_loss(model, sounds_XW, batch, near, all_heard)
            if seen[place][0]:
                views_XW = torch.cat(sensed["vision_connector"])
                parts["look"] = looking_loss(model, views_XW, batch, near, all_seen)
        for name, value in parts.items():
            totals[name] += float(value.detach())
        if not all(map(math.isfinite, totals.values())):
            break
        weighted = [weights[name] * value for name, value in parts.items()]
        total = torch.stack(weighted).sum() if weighted else None
        if total is not None and total.requires_grad:
            total.backward()
    return dict(zip(totals, ranks.total(list(totals.values())), strict=True))


def _inputs(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """On the model's device, but for the lengths of packed samples, which are read on the CPU."""
    device = next(model.parameters()).device
    return {k: v if k == "segment_lengths" else sent(v, device) for k, v in batch.inputs.items()}


def _autocast(model: Any, precision: Precision) -> torch.autocast:
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
