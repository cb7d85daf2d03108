"""Losses on the media themselves: what the connectors give, against what `data.listening` knows of each embedding; and
where the language model looks while it writes, against `data.gaze`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from weft.conversation import WeftError
from weft.data.gaze import Gaze
from weft.data.loader import Batch
from weft.models import attention
from weft.models.loss import Head, Loss, loss_at, next_tokens

SIDES = 0.5  # what naming the sides of what is heard or seen counts, beside naming it


def listening_loss(
    model: Any, sounds_XW: torch.Tensor, batch: Batch, near: float = 0.0, among: tuple[int, int] | None = None
) -> torch.Tensor:
    """Cross-entropy of what the output head makes of the sound's own embeddings, where it is known what sounds.

    Means over ``among`` names and sides, this batch's (`Batch.listening`) or those of a whole update.
    """
    names, sides = among or batch.listening
    heard_X = batch.heard.to(sounds_XW.device)
    known_X = heard_X >= 0
    loss = F.cross_entropy(model.logits(sounds_XW[known_X]).float(), heard_X[known_X], reduction="sum") / names
    return loss + SIDES * _sides_loss(model, sounds_XW, batch.heard_sides, model.config.audio_place_ids, near, sides)


def looking_loss(
    model: Any, views_XW: torch.Tensor, batch: Batch, near: float = 0.0, among: tuple[int, int] | None = None
) -> torch.Tensor:
    """Cross-entropy between the names that a picture's sample speaks of; a name's logit is the mean of its tokens'.

    Means over ``among`` names and sides, this batch's (`Batch.looking`) or those of a whole update.
    """
    seen, sides = among or batch.looking
    device = views_XW.device
    seen_X, among_XC, names_CK = (t.to(device) for t in (batch.seen, batch.among, batch.names))
    head_VW = model.get_output_embeddings().weight
    used_CK1 = (names_CK >= 0)[..., None].to(head_VW.dtype)
    names_CW = (head_VW[names_CK.clamp(min=0)] * used_CK1).sum(1) / used_CK1.sum(1)
    known_X = seen_X >= 0
    logits_XC = F.linear(views_XW[known_X], names_CW).float()
    logits_XC = logits_XC.masked_fill(~among_XC[known_X], -torch.inf)
    loss = F.cross_entropy(logits_XC, seen_X[known_X], reduction="sum") / seen
    return loss + SIDES * _sides_loss(model, views_XW, batch.seen_sides, model.config.image_place_ids, near, sides)


def _sides_loss(
    model: Any,
    embedded_XW: torch.Tensor,
    sides_XSF: torch.Tensor,
    scales: Sequence[tuple[int, int]] | None,
    near: float,
    among: int,
) -> torch.Tensor:
    """Cross-entropy of the sides (start and end, or left, top, right and bottom) that each embedding lies between.

    The mean over ``among`` sides. Sides share their tokens, so side s is read from the embedding rolled by an odd share
    of its width: apart from the other sides and from the embedding's own place, which models add unrolled and rolled by
    half. ``near`` as in `with_bells`. 0 where no side is known, or the connector carries no places.
    """
    sides_XSF = sides_XSF.to(embedded_XW.device)
    if scales is None or not (sides_XSF >= 0).any():
        return embedded_XW.sum() * 0.0
    sides, width = sides_XSF.shape[1], embedded_XW.shape[1]
    table_VW = model.get_output_embeddings().weight
    losses = []
    for side in range(sides):
        known_X = sides_XSF[:, side, 0] >= 0
        rolled_XW = embedded_XW[known_X].roll(-(2 * side + 1) * width // (2 * sides), 1)
        for scale, (first, steps) in enumerate(scales):
            logits_XS = F.linear(rolled_XW, table_VW[first : first + steps]).float()
            step_X = sides_XSF[known_X, side, scale] - first
            if near and scale == len(scales) - 1:
                losses.append(bell_loss(logits_XS, step_X, near))
            else:
                losses.append(F.cross_entropy(logits_XS, step_X, reduction="sum"))
    return torch.stack(losses).sum() / among


@dataclass(frozen=True, slots=True)
class Watched:
    """What a layer's attention was called with: query [B, H, L, K], key [B, G, L, K]."""

    query: torch.Tensor
    key: torch.Tensor
    scaling: float


def guided_layers(model: Any) -> list[nn.Module]:
    """What attends in the layers of the language model that `guiding_loss` teaches: the middle one and the last.

    Only there: a tower that has layers with numbers too (Whisper's decoder) is not meant.
    """
    layers = model.config.text_config.num_hidden_layers
    named = [m for m in model.language_model.modules() if getattr(m, "layer_idx", None) in {layers // 2, layers - 1}]
    return [m for m in named if not any(inner in named for inner in m.modules() if inner is not m)]


@contextmanager
def attention_watched(model: Any) -> Iterator[list[Watched]]:
    """Collects what the `guided_layers` attend with meanwhile, in order."""
    if model.language_model.config._attn_implementation != attention.NAME:
        raise WeftError("listen.guide needs weft's attention; load the model without attn_implementation")
    seen: list[Watched] = []

    def watch(query: torch.Tensor, key: torch.Tensor, scaling: float) -> None:
        seen.append(Watched(query, key, scaling))

    def ask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "watch": watch}

    hooks = [layer.register_forward_pre_hook(ask, with_kwargs=True) for layer in guided_layers(model)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def guiding_loss(watched: Sequence[Watched], gazes: Sequence[Gaze], starts: Sequence[tuple[int, int]]) -> torch.Tensor:
    """How much attention to media goes beside the spot that is written about: -log of the share that lands on it.

    Guided attention (Tachibana et al. 2017, https://arxiv.org/abs/1710.08969, for speech), here with known alignments.
    ``starts``: row and first place of each sample in the batch. Half of the heads of the `guided_layers` learn it, the
    others stay free; attention to text is left out. The mean over the tokens that tell of a spot.
    """
    losses = []
    for each in watched:
        query_BHLK, key_BGLK = each.query, each.key
        heads, groups = max(query_BHLK.shape[1] // 2, 1), query_BHLK.shape[1] // key_BGLK.shape[1]
        keys = torch.arange(heads, device=key_BGLK.device) // groups
        for gaze, (row, start) in zip(gazes, starts, strict=True):
            if not len(gaze.tokens):
                continue
            tokens_P, media_X = (torch.from_numpy(start + places) for places in (gaze.tokens - 1, gaze.media))
            inside_PX = torch.from_numpy(gaze.inside[gaze.spot]).to(query_BHLK.device)
            query_HPK, key_HXK = query_BHLK[row, :heads, tokens_P].float(), key_BGLK[row][keys][:, media_X].float()
            score_HPX = query_HPK @ key_HXK.transpose(1, 2) * each.scaling
            later_PX = (media_X > tokens_P[:, None]).to(query_BHLK.device)  # another turn's media: out of sight
            log_HPX = score_HPX.masked_fill(later_PX, -torch.inf).log_softmax(-1)
            losses.append(-log_HPX.masked_fill(~inside_PX, -torch.inf).logsumexp(-1).mean(0))
    return torch.cat(losses).mean()


@contextmanager
def embeddings_given(model: Any) -> Iterator[dict[str, list[torch.Tensor]]]:
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


def answers_loss(
    model: Any, hidden_BLD: torch.Tensor, batch: Batch, label_smoothing: float, near: float, balance: float
) -> torch.Tensor:
    """The mean cross-entropy of next tokens, answers weighed by `answer_weights` and coordinates as bells."""
    places_N, targets_N = next_tokens(batch.inputs["labels"], batch.inputs.get("segment_lengths"))
    weights_N = answer_weights(places_N, balance)
    config = model.config
    scales = [tuple(s[-1]) for s in (config.image_place_ids, config.audio_place_ids) if s is not None]
    loss = with_bells(model.logits, label_smoothing, scales, near)
    vocabulary = config.text_config.vocab_size
    return loss_at(places_N, hidden_BLD, loss, vocabulary, targets_N, weights_N) / float(weights_N.sum())


def answer_weights(places_N: torch.Tensor, power: float) -> torch.Tensor:
    """[N]: what each label counts for, the number of labels of its answer to the power of -``power``.

    An answer is a run of labels without a gap. 0: every label alike; 1: every answer alike; 0.5 lies between (the
    square averaging of InternVL 2.5, there of samples).
    """
    answer_N = (places_N.diff(prepend=places_N[:1] - 2) != 1).cumsum(0)
    return torch.bincount(answer_N).float().pow(-power)[answer_N]


def with_bells(head: Head, label_smoothing: float, scales: list[tuple[int, int]], near: float) -> Loss:
    """The cross-entropy of hidden states [n, D] and targets [n] that count for weights [n].

    A target on one of ``scales`` (first id, number of steps) is a bell ``near`` steps wide around the right one: a step
    beside it is nearly right, which one step of a hundred, seen a few times, does not tell.
    """

    def loss(hidden_nD: torch.Tensor, targets_n: torch.Tensor, weights_n: torch.Tensor) -> torch.Tensor:
        logits_nV = head(hidden_nD).float()
        loss_n = F.cross_entropy(logits_nV, targets_n, reduction="none", label_smoothing=label_smoothing)
        for first, steps in scales if near else ():
            step_n = targets_n - first
            extra_n = bell_extra(logits_nV[:, first : first + steps], step_n.clamp(0, steps - 1), near)
            loss_n = loss_n + extra_n.where((step_n >= 0) & (step_n < steps), 0.0)
        return (loss_n * weights_n).sum()

    return loss


def bell_loss(logits_nS: torch.Tensor, step_n: torch.Tensor, near: float) -> torch.Tensor:
    """Summed cross-entropies between bells of width ``near`` around the right steps and the softmax; 0 at best."""
    log_nS = logits_nS.log_softmax(1)
    hard_n = F.nll_loss(log_nS, step_n, reduction="none")
    return (hard_n + bell_extra(log_nS, step_n, near)).sum()


def bell_extra(logits_nS: torch.Tensor, step_n: torch.Tensor, near: float) -> torch.Tensor:
    """[n]: what a bell of width ``near`` (in steps) around the right step adds to the cross-entropy of that step.

    The bell's entropy is taken off, so that the best loss stays 0. Log p of the whole vocabulary cancels, for both
    targets sum to 1: ``logits_nS`` of the scale's steps are enough.
    """
    away_nS = torch.arange(logits_nS.shape[1], device=logits_nS.device) - step_n[:, None]
    wanted_nS = torch.softmax(-0.5 * (away_nS / near) ** 2, 1)
    entropy_n = -torch.special.xlogy(wanted_nS, wanted_nS).sum(1)
    return logits_nS.gather(1, step_n[:, None])[:, 0] - (wanted_nS * logits_nS).sum(1) - entropy_n
