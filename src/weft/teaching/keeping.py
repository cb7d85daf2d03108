"""What a language model says of text alone stays as it was before it learned through LoRA; what is spoken is answered
as if it were typed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from weft.conversation import Audio, Conversation, Message, Part, Text, WeftError
from weft.data.loader import Batch
from weft.models.encoding import Encoded
from weft.models.loss import sent
from weft.models.processing import WeftProcessor


@dataclass(frozen=True)
class Typed:
    """A sample as it is where all of it is typed; and the places before the N tokens that are learned of it."""

    ids_L: np.ndarray
    places_N: np.ndarray  # among these ids
    own_N: np.ndarray  # in the sample as it is
    spoken: bool = True  # not text alone


@dataclass(frozen=True)
class AsBefore:
    """Kullback-Leibler divergence of the next token's probabilities from those that the model without LoRA gives where
    the sample is typed: the mean over the labels of samples that can be. So the model is distilled from itself: of text
    as in learning without forgetting (https://arxiv.org/abs/1606.09282), of speech as in Ultravox. The label alone, one
    of several good tokens, does neither."""

    weight: float
    name: ClassVar = "keep"

    def counts(self, batch: Batch) -> tuple[float, ...]:
        return (sum(len(typed.own_N) for typed in batch.extra.typed if typed is not None),)

    def watching(self, model: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def loss(self, step: Any, watched: None, among: Sequence[float]) -> torch.Tensor:
        model, hidden_BLD, told = step.model, step.hidden_BLD, step.batch.extra
        starts = (row * hidden_BLD.shape[1] + first for row, first in told.starts)
        pairs = zip(told.typed, starts, strict=True)
        taken = [(typed, start) for typed, start in pairs if typed is not None and len(typed.own_N)]
        if model.gate is not None:  # of text alone nothing has changed
            taken = [(typed, start) for typed, start in taken if typed.spoken]
        if not taken:
            return hidden_BLD.float().sum() * 0.0
        lengths = [len(typed.ids_L) for typed, _ in taken]
        firsts = np.cumsum([0, *lengths[:-1]])
        ids_1K = torch.from_numpy(np.concatenate([typed.ids_L for typed, _ in taken]))[None]
        places = (first + typed.places_N for first, (typed, _) in zip(firsts, taken, strict=True))
        own = (start + typed.own_N for typed, start in taken)
        before_N, now_N = (sent(torch.from_numpy(np.concatenate([*each])), hidden_BLD.device) for each in (places, own))
        with torch.no_grad(), without_lora(model):
            before_LD = model.last_hidden(input_ids=ids_1K, segment_lengths=torch.tensor(lengths))[0]
            before_NV = model.logits(before_LD[before_N]).float().log_softmax(-1)
        now_NV = model.logits(hidden_BLD.flatten(0, 1)[now_N], *model.along(now_N)).float().log_softmax(-1)
        return (before_NV.exp() * (before_NV - now_NV)).sum() / among[0]


def as_typed(conversation: Conversation, encoded: Encoded, processor: WeftProcessor) -> Typed | None:
    """A sample without media as it is; one of spoken prompts, with their words in the place of the clips; else None.

    A spoken prompt is a message that is one clip and no more, whose words are known; beside such there is only text.
    """
    typed = encoded
    if conversation.images or conversation.audios:
        if not all(_can_be_typed(message) for message in conversation.messages):
            return None
        typed = processor.encode(conversation.changed(_words))
        if not np.array_equal(typed.input_ids[typed.loss_mask], encoded.input_ids[encoded.loss_mask]):
            raise WeftError(
                "the lesson keep: the answer has other tokens behind a clip than behind its transcript; leave this out"
            )
    places = (np.flatnonzero(each.loss_mask[1:]) for each in (typed, encoded))
    return Typed(typed.input_ids, next(places), next(places), typed is not encoded)


def _can_be_typed(message: Message) -> bool:
    clip = message.parts[0]
    spoken = len(message.parts) == 1 and isinstance(clip, Audio) and bool(clip.transcript)
    return spoken or all(isinstance(part, Text) for part in message.parts)


def _words(part: Part) -> Part:
    return Text(part.transcript or "") if isinstance(part, Audio) else part


@contextmanager
def without_lora(model: Any) -> Iterator[None]:
    """The language model as it is without LoRA and rows that train beside it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.language_model.modules() if isinstance(module, BaseTunerLayer)]
    if not layers:
        raise WeftError("the lesson keep needs a language model that trains through LoRA; leave it out")
    for layer in layers:
        layer.enable_adapters(False)
    try:
        with model.gate.aside() if model.gate is not None else nullcontext():
            yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
