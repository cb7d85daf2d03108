"""The gradient of one update, summed over micro-steps so that their grouping is immaterial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
    with _autocast(model, precision):
        return model(**_inputs(model, batch), label_smoothing=label_smoothing, use_cache=False).loss


def backward(
    model: Any,
    micro: Sequence[Batch],
    *,
    precision: Precision,
    label_smoothing: float = 0.0,
    listen: float = 0.0,
    answer: bool = True,
    seed: Sequence[int] = (0,),
) -> dict[str, float]:
    """Add the gradient of the mean loss over all labels of the micro-steps; returns the loss(es), by name.

    Each micro-step counts by its labels, so one batch, the same in parts, and the same packed give one gradient.
    ``listen`` weighs the losses on the media themselves, each a mean of its own ("listen" of sound, "look" of
    pictures); without ``answer`` a micro-step that has one learns nothing else. Dropout is drawn from ``seed`` and the
    micro-step's place: nothing of torch's generator need be saved to resume. Ends early, gradient unfinished, where a
    loss is not finite. A micro-step that reaches no trained weight (text only, while an encoder trains) adds nothing.
    """
    heard = [int((b.heard >= 0).sum()) if listen else 0 for b in micro]
    seen = [int((b.seen >= 0).sum()) if listen else 0 for b in micro]
    answers = [answer or not (h or s) for h, s in zip(heard, seen, strict=True)]
    labels = sum(b.labels for b, wanted in zip(micro, answers, strict=True) if wanted)
    totals = {"loss": 0.0} | ({"listen": 0.0} if any(heard) else {}) | ({"look": 0.0} if any(seen) else {})
    for place, batch in enumerate(micro):
        torch.manual_seed(mixed_seed(*seed, place))
        parts: dict[str, torch.Tensor] = {}
        with _embeddings(model) as sensed, _autocast(model, precision):
            inputs = _inputs(model, batch)
            if answers[place] and batch.labels:
                loss = model(**inputs, label_smoothing=label_smoothing, use_cache=False).loss
                parts["loss"] = loss * (batch.labels / labels)
            elif not answers[place]:
                if heard[place]:
                    model.embed_audio(inputs["input_features"], inputs.get("feature_lengths"))
                if seen[place]:
                    model.embed_images(inputs["pixel_values"])
            if heard[place]:
                sounds_XW = torch.cat(sensed["audio_connector"])
                parts["listen"] = _listening_loss(model, sounds_XW, batch.heard) * (heard[place] / sum(heard))
            if seen[place]:
                views_XW = torch.cat(sensed["vision_connector"])
                parts["look"] = _looking_loss(model, views_XW, batch) * (seen[place] / sum(seen))
        for name, value in parts.items():
            totals[name] += float(value.detach())
        if not all(map(math.isfinite, totals.values())):
            break
        weighted = [value if name == "loss" else listen * value for name, value in parts.items()]
        total = torch.stack(weighted).sum() if weighted else None
        if total is not None and total.requires_grad:
            total.backward()
    return totals


def _listening_loss(model: Any, sounds_XW: torch.Tensor, heard_X: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of what the output head makes of the sound's own embeddings, where it is known what sounds."""
    heard_X = heard_X.to(sounds_XW.device)
    known_X = heard_X >= 0
    return nn.functional.cross_entropy(model.logits(sounds_XW[known_X]).float(), heard_X[known_X])


def _looking_loss(model: Any, views_XW: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy between the names that a picture's sample speaks of; a name's logit is the mean of its tokens'."""
    device = views_XW.device
    seen_X, among_XC, names_CK = (t.to(device) for t in (batch.seen, batch.among, batch.names))
    head_VW = model.get_output_embeddings().weight
    used_CK1 = (names_CK >= 0)[..., None].to(head_VW.dtype)
    names_CW = (head_VW[names_CK.clamp(min=0)] * used_CK1).sum(1) / used_CK1.sum(1)
    known_X = seen_X >= 0
    logits_XC = nn.functional.linear(views_XW[known_X], names_CW).float()
    logits_XC = logits_XC.masked_fill(~among_XC[known_X], -torch.inf)
    return nn.functional.cross_entropy(logits_XC, seen_X[known_X])


@contextmanager
def _embeddings(model: Any) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Collects the embeddings [X, W] that the connectors give meanwhile."""
    found: dict[str, list[torch.Tensor]] = {"audio_connector": [], "vision_connector": []}

    def keep(name: str, output: tuple[torch.Tensor, torch.Tensor | None]) -> None:
        embedded_NtW, tokens_N = output
        if tokens_N is None:
            found[name].append(embedded_NtW.flatten(0, 1))
        else:
            places = torch.arange(embedded_NtW.shape[1], device=tokens_N.device)
            found[name].append(embedded_NtW[places < tokens_N[:, None]])

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name in found
        for module in model.part(name)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _inputs(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    device = next(model.parameters()).device
    return {k: v.to(device) for k, v in batch.inputs.items()}


def _autocast(model: Any, precision: Precision) -> torch.autocast:
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> float:
    """Scale the gradients to a norm of at most ``limit``; returns the norm they had."""
    trained = [p for p in parameters if p.grad is not None]
    if not trained:
        return 0.0
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if limit is not None and math.isfinite(float(norm)):
        torch.nn.utils.clip_grads_with_norm_(trained, limit, norm)
    return float(norm)
