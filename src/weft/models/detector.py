"""The connector of a picture whose things are also written down, as text with boxes.

What Whisper writes of a clip a language model reads at once, and what its encoder's states say hardly ever
(`encoders.transcript`). So it is with pictures: each place of the grid names the thing that it lies in, in the language
model's own words, and its box, in the dialect's own tokens; behind the places the surest things are written, from left
to right. A detector without anchors (every place of a box tells of it, as in FCOS, https://arxiv.org/abs/1904.01355)
whose classes are the language model's words. The lesson `detect` teaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from weft.models import config
from weft.models.connectors import Grid, Lengths
from weft.models.more_connectors import Transformer
from weft.models.photographs import Photographs
from weft.models.tally import Tally

WORDS, SIDES = 4, 4  # tokens of a name, and of a box: left, top, right, bottom
NARROW = 96  # numbers that each of them is made of
SAME = 0.3  # two boxes that overlap so far (IoU) are of one thing: with 0.5 one picture in five held a thing twice


class Detector(Transformer):
    """As kind "transformer", and what `read` writes."""

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid) -> None:
        super().__init__(section, width, language_width, grid)
        inner = self.last_norm.normalized_shape[0]
        self.written = section.written
        self.slots = nn.Linear(inner, (WORDS + SIDES) * NARROW)
        self.told = nn.Linear(NARROW, language_width)
        self.watched = nn.Identity()  # what lessons look at: what places know
        self.tally = Tally() if section.tally else None
        self.photographs = Photographs(section, width) if section.classes else None

    def introduce(self, processor: Any) -> None:
        """Tells a new connector what it has to know of the language model."""
        if self.tally is not None:
            self.tally.learn(processor.tokenizer, processor.renderer.encode_text)

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        x_NtC, lengths_N = self.inner(features_NTD, lengths_N)
        return self.scale * self.down(self.watched(x_NtC)), lengths_N

    def tell(self, x_NtC: torch.Tensor) -> torch.Tensor:
        """[N, t, WORDS + SIDES, W]: what is multiplied by rows of the language model's table for logits."""
        slots_NtSC = self.slots(x_NtC).unflatten(-1, (WORDS + SIDES, NARROW))
        return self.told(F.gelu(slots_NtSC))  # type: ignore[no-any-return]

    @torch.no_grad()
    def read(self, features_NTD: torch.Tensor, model: Any) -> torch.Tensor:
        """[N, written, W]: the language model's embeddings of what is written of each picture."""
        told_NtSW = self.tell(self.inner(features_NTD)[0])
        words_VW = word_table(model).to(told_NtSW.dtype)  # once for all pictures: it is large
        seen_N: list[Any] = [()] * len(told_NtSW)
        if self.photographs is not None:
            features_NtD = self.neighbours.groups(features_NTD).mean(2)
            seen_N = self.photographs.find(features_NtD, self.places or (1, 1), model.vision.classes)
        told_seen = zip(told_NtSW, seen_N, strict=True)
        ids_NT = torch.stack([self.text(told_tSW, words_VW, model, seen) for told_tSW, seen in told_seen])
        return model.get_input_embeddings()(ids_NT)  # type: ignore[no-any-return]

    def text(
        self, told_tSW: torch.Tensor, words_VW: torch.Tensor, model: Any, seen: Sequence[Any] = ()
    ) -> torch.Tensor:
        """Ids [written]: of each thing its name, box and name again (either may be what is asked by), how many there
        are where they are counted, then nothing. What is ``seen`` of photographs comes before what is drawn there."""
        nothing = model.config.image_token_id
        ((first, steps),) = model.config.image_place_ids
        logits_tV = F.linear(told_tSW[:, 0], words_VW).float()
        sure_t = logits_tV.max(1).values - logits_tV[:, nothing]
        ends_SW = model.get_input_embeddings()(torch.arange(first, first + steps, device=told_tSW.device))
        chances_t4S = F.linear(told_tSW[:, WORDS:], ends_SW.to(told_tSW.dtype)).float().softmax(-1)
        # The mean of a side, not its likeliest step: neighbours are nearly as likely.
        sides_t4 = (chances_t4S @ torch.arange(steps, device=told_tSW.device).float()).round().long().cpu().numpy()
        photographs = [(np.rint(np.multiply(box, steps - 1)).astype(int), name) for box, name in seen]
        found_M = apart(sure_t.cpu().numpy(), sides_t4)
        if self.photographs is not None and not self.photographs.beside:
            found_M = [m for m in found_M if all(inside(sides_t4[m], box_4) < SAME for box_4, _ in photographs)]
        # A placeholder's row may be that of another token, which then means nothing too.
        logits_MPV = F.linear(told_tSW[found_M, :WORDS], words_VW)
        best_MP = logits_MPV.max(-1)
        names_MP = best_MP.indices.where(best_MP.values > logits_MPV[..., nothing], nothing)
        names = [[word for word in name_P if word != nothing] for name_P in names_MP.tolist()]
        boxes_M4 = (first + sides_t4[found_M]).tolist()
        known = [*(((first + box_4).tolist(), name) for box_4, name in photographs), *zip(boxes_M4, names, strict=True)]
        things = [(box_4, [*name, *box_4, *name]) for box_4, name in known]
        counted = self.tally.write(names, self.written // 3) if self.tally is not None else []
        ids = [token for _, text in sorted(fitting(things, self.written - len(counted))) for token in text] + counted
        return torch.tensor(ids + [nothing] * (self.written - len(ids)), device=told_tSW.device)


def fitting(things: list[tuple[list[int], list[int]]], room: int) -> list[tuple[list[int], list[int]]]:
    """Those of (place, text) that fit, the first ones first, into so many tokens."""
    kept = []
    for place, text in things:
        if len(text) <= room:
            kept.append((place, text))
            room -= len(text)
    return kept


def word_table(model: Any) -> torch.Tensor:
    """[V, W]: the language model's embeddings of all tokens, without rows that train beside LoRA."""
    table: Any = model.get_input_embeddings()
    if hasattr(table, "token_adapter"):
        table = table.token_adapter.base_layer
    if hasattr(table, "weight"):
        return table.weight  # type: ignore[no-any-return]
    ids_V = torch.arange(model.config.text_config.vocab_size, device=model.device)
    return table(ids_V)  # type: ignore[no-any-return]  # vLLM's, of which each rank may hold a share


def apart(sure_M: np.ndarray, sides_M4: np.ndarray) -> list[int]:
    """Which of M places tell of things, the surest first; of those whose boxes overlap, the surer one."""
    kept: list[int] = []
    for m in np.argsort(-sure_M, kind="stable").tolist():
        if sure_M[m] > 0 and all(overlap(sides_M4[m], sides_M4[k]) < SAME for k in kept):
            kept.append(m)
    return kept


def inside(a: np.ndarray, b: np.ndarray) -> float:
    """How much of box ``a`` lies in ``b``, in steps, each of which counts as a whole one."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    return float(np.prod(np.maximum(high - low + 1, 0)) / np.prod(np.maximum(a[2:] - a[:2] + 1, 1)))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes in steps, each of which counts as a whole one."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inter = float(np.prod(np.maximum(high - low + 1, 0)))
    areas = [float(np.prod(np.maximum(box[2:] - box[:2] + 1, 1))) for box in (a, b)]
    return inter / (sum(areas) - inter)
