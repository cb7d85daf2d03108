"""What an update learns beside its answers, or instead: objectives, as `training.update.Objective` has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from weft.conversation import WeftError
from weft.data.loader import Batch
from weft.models import attention
from weft.models.loss import Head, Loss, loss_at, next_tokens, sent
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.splice import end_to_end
from weft.models.table_rows import table_rows
from weft.teaching.gaze import Gaze
from weft.teaching.media import IGNORED

MOST_NAMES = 8192  # of a larger vocabulary, only some tokens that do not sound compete with those that do

Scales = Sequence[tuple[int, int]]  # first id and number of steps of each scale by which places are named


# -------------------------------------------------------------------------------------------------------------- answers


@dataclass(frozen=True)
class Answers:
    """Cross-entropy of next tokens, answers weighed by `answer_weights` and coordinates as bells.

    ``alone``: a batch whose media say what they are learns that alone.
    """

    label_smoothing: float = 0.0
    near: float = 0.0
    balance: float = 0.0
    alone: bool = False
    name: ClassVar = "loss"
    weight: ClassVar = 1.0

    def counts(self, batch: Batch) -> tuple[float, ...]:
        return (0 if self.alone and _told(batch) else self._weight(_places(batch)[0]),)

    def _weight(self, places_N: torch.Tensor) -> float:
        """What the mean loss of a batch counts for: n labels of an answer as n to the power of 1 - balance."""
        return sum(n ** (1 - self.balance) for n in torch.bincount(_answers(places_N)).tolist() if n)

    def watching(self, model: WeftForConditionalGeneration) -> AbstractContextManager[None]:
        return nullcontext()

    def loss(self, step: Any, watched: None, among: Sequence[float]) -> torch.Tensor:
        places_N, targets_N = _places(step.batch)
        weights_N, config = answer_weights(places_N, self.balance), step.model.config
        scales = [tuple(s[-1]) for s in (config.image_place_ids, config.audio_place_ids) if s is not None]
        loss = with_bells(step.model.logits, self.label_smoothing, scales, self.near)
        hidden_BLD = step.hidden_BLD  # the pass itself, of which the model then tells more
        beside = targets_N, weights_N, *step.model.along(places_N)
        total = loss_at(places_N, hidden_BLD, loss, config.text_config.vocab_size, *beside)
        return total / float(weights_N.sum()) * (self._weight(places_N) / among[0])


def _told(batch: Batch) -> bool:
    return batch.extra is not None and bool(batch.extra.heard.known[0] or batch.extra.seen.known[0])


def _places(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return next_tokens(batch.inputs["labels"], batch.inputs.get("segment_lengths"))


def _answers(places_N: torch.Tensor) -> torch.Tensor:
    """[N]: to which answer each label belongs; an answer is a run of labels without a gap."""
    return (places_N.diff(prepend=places_N[:1] - 2) != 1).cumsum(0)


def answer_weights(places_N: torch.Tensor, power: float) -> torch.Tensor:
    """[N]: what each label counts for, the number of labels of its answer to the power of -``power``.

    0: every label alike; 1: every answer alike; 0.5 lies between (the square averaging of InternVL 2.5, there of
    samples).
    """
    answer_N = _answers(places_N)
    return torch.bincount(answer_N).float().pow(-power)[answer_N]


def with_bells(head: Head, label_smoothing: float, scales: Scales, near: float) -> Loss:
    """The cross-entropy of hidden states [n, D] and targets [n] that count for weights [n].

    A target on one of ``scales`` is a bell ``near`` steps wide around the right one: a step beside it is nearly right,
    which one step of a hundred, seen a few times, does not tell.
    """

    def loss(
        hidden_nD: torch.Tensor, targets_n: torch.Tensor, weights_n: torch.Tensor, *more: torch.Tensor
    ) -> torch.Tensor:
        logits_nV = head(hidden_nD, *more).float()
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


# ---------------------------------------------------------------------------------------------------- media, themselves


@dataclass(frozen=True)
class Heard:
    """Cross-entropy of what the output head makes of the sound's own embeddings, where it is known what sounds."""

    weight: float
    near: float = 0.0
    sharpness: float = 1.0
    sides: float = 0.5
    name: ClassVar = "listen"

    def counts(self, batch: Batch) -> tuple[float, ...]:
        return batch.extra.heard.known

    def watching(self, model: WeftForConditionalGeneration) -> AbstractContextManager[list[torch.Tensor]]:
        return embeddings_given(model, "audio_connector")

    def loss(self, step: Any, watched: list[torch.Tensor], among: Sequence[float]) -> torch.Tensor:
        if not watched:
            step.model.embed_audio(step.inputs["input_features"], step.inputs.get("feature_lengths"))
        sounds_XW, heard = torch.cat(watched), step.batch.extra.heard
        sharp_XW, scales = self.sharpness * sounds_XW, step.model.config.audio_place_ids
        loss = naming_loss(step.model, sharp_XW, heard.heard) / among[0]
        return loss + self.sides * sides_loss(step.model, sharp_XW, heard.sides, scales, self.near, among[1])


@dataclass(frozen=True)
class Seen:
    """Cross-entropy between the names that a picture's sample speaks of; a name's logit is the mean of its tokens'."""

    weight: float
    near: float = 0.0
    sharpness: float = 1.0
    sides: float = 0.5
    name: ClassVar = "look"

    def counts(self, batch: Batch) -> tuple[float, ...]:
        return batch.extra.seen.known

    def watching(self, model: WeftForConditionalGeneration) -> AbstractContextManager[list[torch.Tensor]]:
        return embeddings_given(model, "vision_connector")

    def loss(self, step: Any, watched: list[torch.Tensor], among: Sequence[float]) -> torch.Tensor:
        if not watched:
            step.model.image_features(step.inputs["pixel_values"], written=False)
        views_XW, seen = self.sharpness * torch.cat(watched), step.batch.extra.seen
        at_N, seen_N = _known(seen.seen, views_XW.device)
        names_CK, among_XC = (sent(torch.from_numpy(a), views_XW.device) for a in (seen.names, seen.among))
        named_CKW = table_rows(step.model.get_output_embeddings(), names_CK.clamp(min=0))
        used_CK1 = (names_CK >= 0)[..., None].to(named_CKW.dtype)
        names_CW = (named_CKW * used_CK1).sum(1) / used_CK1.sum(1)
        logits_NC = F.linear(views_XW[at_N], names_CW).float().masked_fill(~among_XC[at_N], -torch.inf)
        loss = F.cross_entropy(logits_NC, seen_N, reduction="sum") / among[0]
        scales = step.model.config.image_place_ids
        return loss + self.sides * sides_loss(step.model, views_XW, seen.sides, scales, self.near, among[1])


def naming_loss(model: WeftForConditionalGeneration, sounds_XW: torch.Tensor, heard_X: np.ndarray) -> torch.Tensor:
    """Summed cross-entropies of the tokens that sound, where that is known.

    Of a large vocabulary the tokens of the batch and an even share of the others take part, other ones each time: the
    whole of it costs a small connector five times what all the rest does.
    """
    at_N, _ = _known(heard_X, sounds_XW.device)
    return words_loss(model, sounds_XW[at_N], heard_X[heard_X >= 0])


def words_loss(model: Any, told_NW: torch.Tensor, words_N: np.ndarray) -> torch.Tensor:
    """Summed cross-entropies of tokens, as in `naming_loss`."""
    vocabulary = model.config.text_config.vocab_size
    stride = -(-vocabulary // MOST_NAMES)
    rivals = np.union1d(words_N, np.arange(int(words_N.sum()) % stride, vocabulary, stride))
    rivals_C, which_N = (sent(torch.from_numpy(a), told_NW.device) for a in (rivals, np.searchsorted(rivals, words_N)))
    rivals_CW = table_rows(model.get_output_embeddings(), rivals_C)
    return F.cross_entropy(F.linear(told_NW, rivals_CW).float(), which_N, reduction="sum")


def sides_loss(
    model: Any, embedded_XW: torch.Tensor, sides_XSF: np.ndarray, scales: Scales | None, near: float, among: float
) -> torch.Tensor:
    """Cross-entropy of the sides (start and end, or left, top, right and bottom) that each embedding lies between.

    The mean over ``among`` sides. Sides share their tokens, so side s is read from the embedding rolled by an odd share
    of its width: apart from the other sides and from the embedding's own place, which models add unrolled and rolled by
    half. ``near`` as in `with_bells`. 0 where no side is known, or the connector carries no places.
    """
    if scales is None or not (sides_XSF >= 0).any():
        return embedded_XW.sum() * 0.0
    sides, width = sides_XSF.shape[1], embedded_XW.shape[1]
    head, losses = model.get_output_embeddings(), []
    for side in range(sides):
        at_N, _ = _known(sides_XSF[:, side, 0], embedded_XW.device)
        rolled_NW = embedded_XW[at_N].roll(-(2 * side + 1) * width // (2 * sides), 1)
        for scale, (first, steps) in enumerate(scales):
            ids_S = torch.arange(first, first + steps, device=embedded_XW.device)
            logits_NS = F.linear(rolled_NW, table_rows(head, ids_S)).float()
            ids_X = sides_XSF[:, side, scale]
            step_N = sent(torch.from_numpy(ids_X[sides_XSF[:, side, 0] >= 0] - first), embedded_XW.device)
            if near and scale == len(scales) - 1:
                losses.append(bell_loss(logits_NS, step_N, near))
            else:
                losses.append(F.cross_entropy(logits_NS, step_N, reduction="sum"))
    return torch.stack(losses).sum() / among


def _known(ids_X: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Where there is an id, and which; on the device."""
    at_N = np.flatnonzero(ids_X >= 0)
    return sent(torch.from_numpy(at_N), device), sent(torch.from_numpy(ids_X[at_N]), device)


@dataclass(frozen=True)
class Detected:
    """Cross-entropies of what a detector's places write: the words of the thing that they lie in, or that they lie in
    none of those that the sample speaks of, and the sides of its box.

    Of a large vocabulary as many words compete as in `naming_loss`.
    """

    weight: float
    near: float = 0.0
    name: ClassVar = "detect"

    def counts(self, batch: Batch) -> tuple[float, ...]:
        return batch.extra.seen.known

    def watching(self, model: Any) -> AbstractContextManager[list[torch.Tensor]]:
        return places_given(model)

    def loss(self, step: Any, watched: list[torch.Tensor], among: Sequence[float]) -> torch.Tensor:
        if not watched:
            step.model.image_features(step.inputs["pixel_values"], written=False)
        model, seen, nothing = step.model, step.batch.extra.seen, step.model.config.image_token_id
        (connector,), head = model.part("vision_connector"), model.get_output_embeddings()
        told_XSW = connector.tell(torch.cat(watched).flatten(0, 1))
        if connector.photographs is not None and told_XSW.requires_grad:
            connector.photographs.beside.fill_(1)  # else what it learns would not be written of what looks like one
        words_XP = np.where(seen.seen[:, None] > 0, seen.words[np.maximum(seen.seen, 0)], IGNORED)
        words_XP = np.where(words_XP == -1, nothing, words_XP)
        at_N, slot_N = np.nonzero(words_XP >= 0)
        loss = words_loss(model, told_XSW[at_N, slot_N], words_XP[at_N, slot_N])
        firsts_C, outside_M = np.where(seen.words[:, 0] >= 0, seen.words[:, 0], nothing), np.flatnonzero(seen.seen == 0)
        rivals_MC = seen.among[outside_M] & ((firsts_C != nothing) | (np.arange(len(firsts_C)) == 0))
        firsts_C, rivals_MC = (sent(torch.from_numpy(a), told_XSW.device) for a in (firsts_C, rivals_MC))
        logits_MC = F.linear(told_XSW[outside_M, 0], table_rows(head, firsts_C)).float()
        loss = loss - logits_MC.masked_fill(~rivals_MC, -torch.inf).log_softmax(1)[:, 0].sum()
        ((first, steps),) = model.config.image_place_ids
        inside_N = np.flatnonzero(seen.sides[:, 0, 0] >= 0)
        ends_S = torch.arange(first, first + steps, device=told_XSW.device)
        logits_NKS = F.linear(told_XSW[inside_N, words_XP.shape[1] :], table_rows(head, ends_S)).float()
        steps_NK = sent(torch.from_numpy(seen.sides[inside_N, :, 0] - first), told_XSW.device)
        sides = bell_loss(logits_NKS.flatten(0, 1), steps_NK.flatten(), self.near or 1.0)
        return loss / among[0] + sides / max(among[1], 1)  # pictures may all lack what they are asked for


@contextmanager
def places_given(model: Any) -> Iterator[list[torch.Tensor]]:
    """Collects what a detector's places know [N, t, C] meanwhile."""
    found: list[torch.Tensor] = []
    (connector,) = model.part("vision_connector")
    if not hasattr(connector, "watched"):
        raise WeftError("the lesson listen.detect needs a vision connector of kind detector; leave it out")
    hook = connector.watched.register_forward_hook(lambda _, __, x_NtC: found.append(x_NtC))
    try:
        yield found
    finally:
        hook.remove()


@contextmanager
def embeddings_given(model: WeftForConditionalGeneration, connector: str) -> Iterator[list[torch.Tensor]]:
    """Collects the embeddings [X, W] that a connector gives meanwhile."""
    found: list[torch.Tensor] = []

    def keep(_: nn.Module, __: Any, output: tuple[torch.Tensor, torch.Tensor | None]) -> None:
        embedded_NtW, tokens_N = output
        found.append(embedded_NtW.flatten(0, 1) if tokens_N is None else end_to_end(embedded_NtW, tokens_N))

    (part,) = model.part(connector)
    hook = part.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


# ------------------------------------------------------------------------------------------------------------ attention


@dataclass(frozen=True)
class Watched:
    """What a layer's attention was called with: query [B, H, L, K], key [B, G, L, K]."""

    query: torch.Tensor
    key: torch.Tensor
    scaling: float


@dataclass(frozen=True)
class Gazing:
    """How much attention to media goes beside the spot that is written about. ``alone`` as in `Answers`."""

    weight: float
    alone: bool = False
    name: ClassVar = "guide"

    def counts(self, batch: Batch) -> tuple[float, ...]:
        return (0 if self.alone and _told(batch) else sum(len(gaze.tokens) for gaze in batch.extra.gazes),)

    def watching(self, model: WeftForConditionalGeneration) -> AbstractContextManager[list[Watched]]:
        return attention_watched(model)

    def loss(self, step: Any, watched: list[Watched], among: Sequence[float]) -> torch.Tensor:
        _ = step.hidden_BLD  # which is when the layers attend
        extra = step.batch.extra
        return guiding_loss(watched, extra.gazes, extra.starts) * (self.counts(step.batch)[0] / among[0])


def guided_layers(model: WeftForConditionalGeneration) -> list[nn.Module]:
    """What attends in the layers of the language model that `guiding_loss` teaches: the middle one and the last.

    Only there: a tower that has layers with numbers too (Whisper's decoder) is not meant.
    """
    layers = model.config.text_config.num_hidden_layers
    named = [m for m in model.language_model.modules() if getattr(m, "layer_idx", None) in {layers // 2, layers - 1}]
    return [m for m in named if not any(inner in named for inner in m.modules() if inner is not m)]


@contextmanager
def attention_watched(model: WeftForConditionalGeneration) -> Iterator[list[Watched]]:
    """Collects what the `guided_layers` attend with meanwhile, in order."""
    if model.language_model.config._attn_implementation != attention.NAME:
        raise WeftError("the lesson listen.guide needs weft's attention; load the model without attn_implementation")
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
        query_BHLK, key_BGLK, device = each.query, each.key, each.query.device
        heads, groups = max(query_BHLK.shape[1] // 2, 1), query_BHLK.shape[1] // key_BGLK.shape[1]
        for gaze, (row, start) in zip(gazes, starts, strict=True):
            if not len(gaze.tokens):
                continue
            tokens, media = start + gaze.tokens - 1, start + gaze.media
            later = media > tokens[:, None]  # another turn's media: out of sight
            tokens_P, media_X, later_PX, inside_PX, keys = (
                sent(torch.from_numpy(a), device)
                for a in (tokens, media, later, gaze.inside[gaze.spot], np.arange(heads) // groups)
            )
            query_HPK, key_HXK = query_BHLK[row, :heads, tokens_P].float(), key_BGLK[row][keys][:, media_X].float()
            score_HPX = query_HPK @ key_HXK.transpose(1, 2) * each.scaling
            log_HPX = score_HPX.masked_fill(later_PX, -torch.inf).log_softmax(-1)
            losses.append(-log_HPX.masked_fill(~inside_PX, -torch.inf).logsumexp(-1).mean(0))
    return torch.cat(losses).mean()
