"""What a language model says of text alone stays as it was before it learned through LoRA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from weft.conversation import WeftError
from weft.data.loader import Batch
from weft.models.loss import next_tokens


@dataclass(frozen=True)
class AsBefore:
    """Kullback-Leibler divergence of the next token's probabilities from those without LoRA, in answers of samples that
    have no media: the mean over their labels. Distillation of the model from itself (as in learning without forgetting,
    https://arxiv.org/abs/1606.09282), which the label alone, one of several good tokens, does not do."""

    weight: float
    of_media: frozenset[int]  # ids of placeholders
    name: ClassVar = "keep"

    def counts(self, batch: Batch) -> tuple[float, ...]:
        return (len(self._text(batch)[1]),)

    def watching(self, model: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def loss(self, step: Any, watched: None, among: Sequence[float]) -> torch.Tensor:
        model, hidden_BLD, device = step.model, step.hidden_BLD, step.hidden_BLD.device
        (within_K, lengths_S), places_N, sub_N = self._text(step.batch)
        ids = step.batch.inputs["input_ids"].flatten()[within_K][None]
        with torch.no_grad(), without_lora(model):
            before_LD = model.last_hidden(input_ids=ids, segment_lengths=lengths_S)[0]
            before_NV = model.logits(before_LD[sub_N.to(device)]).float().log_softmax(-1)
        now_NV = model.logits(hidden_BLD.flatten(0, 1)[places_N.to(device)]).float().log_softmax(-1)
        return (before_NV.exp() * (before_NV - now_NV)).sum() / among[0]

    def _text(self, batch: Batch) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Samples of text alone: places of their tokens in the batch laid end to end, and their lengths; and places
        before their labels, in the batch and among those tokens."""
        if "labels" not in batch.inputs:
            none = torch.zeros(0, dtype=torch.long)
            return (none, none), none, none
        ids_L = batch.inputs["input_ids"].flatten().numpy()
        segments, (rows, width) = batch.inputs.get("segment_lengths"), batch.inputs["input_ids"].shape
        lengths_S = np.full(rows, width) if segments is None else segments.flatten().numpy()
        sample_L = np.repeat(np.arange(len(lengths_S)), lengths_S)
        with_media_S = np.bincount(sample_L, np.isin(ids_L, list(self.of_media)), len(lengths_S)) > 0
        places_N, _ = next_tokens(batch.inputs["labels"], segments)
        labelled_S = np.bincount(sample_L[places_N.cpu().numpy()], minlength=len(lengths_S)) > 0
        taken_S = labelled_S & ~with_media_S
        taken_L = taken_S[sample_L]
        place_L = np.cumsum(taken_L) - 1
        own_N = places_N[torch.from_numpy(taken_L[places_N.cpu().numpy()])]
        within_K = torch.from_numpy(np.flatnonzero(taken_L))
        return (within_K, torch.from_numpy(lengths_S[taken_S])), own_N, torch.from_numpy(place_L)[own_N]


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
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
