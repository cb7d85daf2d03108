"""Prompts to embeddings, where no picture and no window of sound is encoded twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from weft.dialects import Modality
from weft.generation.rows import empty
from weft.models.encoding import Encoded

CACHE_BYTES = 256 << 20
MODALITIES: tuple[Modality, ...] = ("image", "audio")


@dataclass(slots=True)
class _Item:
    """A picture or a window of sound: its mark, how the encoder takes it, and the embeddings it makes of it."""

    mark: bytes
    prepared: np.ndarray
    length: int
    embeds: Any = None  # [length, W]


class Embedder:
    """Embeds prompts one after the other; what encoders made of each item is kept, by its prepared bytes, up to
    ``most`` bytes in all: what was not asked for longest goes first. ``hits`` and ``misses`` count items."""

    def __init__(self, model: Any, processor: Any, most: int = CACHE_BYTES) -> None:
        self._model, self._processor, self._most = model, processor, most
        self._kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self.bytes = self.hits = self.misses = 0

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Encoded]) -> list[torch.Tensor]:
        """The embeddings of each prompt, media among them: [L, W]."""
        shown = [{modality: self._items(prompt, modality) for modality in MODALITIES} for prompt in prompts]
        for modality in MODALITIES:
            self._encode(modality, [item for items in shown for item in items[modality]])
        return [self._woven(prompt, items) for prompt, items in zip(prompts, shown, strict=True)]

    def begin(self, rows: list[Any], embeds_BLW: torch.Tensor) -> tuple[Any, int]:
        """The cache that prompts are read into, and how many of their columns it holds already."""
        return empty(self._model.config.get_text_config()), 0

    def _items(self, prompt: Encoded, modality: Modality) -> list[_Item]:
        prepared = prompt.images if modality == "image" else prompt.features
        ends = 2 if modality == "audio" and prepared and self._processor.audio.boundaries else 0
        lengths = [span.length + ends for span in prompt.spans if span.modality == modality]
        return [_Item(_mark(item), item, length) for item, length in zip(prepared, lengths, strict=True)]

    def _woven(self, prompt: Encoded, items: dict[Modality, list[_Item]]) -> torch.Tensor:
        media = [torch.cat([item.embeds for item in items[m]]) if items[m] else None for m in MODALITIES]
        return self._model.weave(torch.from_numpy(prompt.input_ids)[None], *media)[0]

    def _encode(self, modality: Modality, items: Sequence[_Item]) -> None:
        """Gives each item what the encoder makes of it; those that are new are encoded together."""
        new: dict[bytes, _Item] = {}
        for item in items:
            if item.mark in self._kept:
                self._kept.move_to_end(item.mark)
                item.embeds = self._kept[item.mark]
            else:
                new.setdefault(item.mark, item)
        self.misses += len(new)
        self.hits += len(items) - len(new)
        if not new:
            return
        nothing, prepared = np.empty(0), [item.prepared for item in new.values()]
        shown, heard = (prepared, []) if modality == "image" else ([], prepared)
        together = Encoded(nothing, nothing, shown, heard)
        media = {name: tensor.to(self._model.device) for name, tensor in self._processor.media([together]).items()}
        if modality == "image":
            embeds_XW = self._model.embed_images(media["pixel_values"])
        else:
            embeds_XW = self._model.embed_audio(media["input_features"], media["feature_lengths"], ends=True)
        pieces = embeds_XW.split([item.length for item in new.values()])
        made = dict(zip(new, pieces, strict=True))
        for item in items:
            if item.embeds is None:
                item.embeds = made[item.mark]
        for mark, piece in made.items():
            self._keep(mark, piece)

    def _keep(self, mark: bytes, embeds_XW: torch.Tensor) -> None:
        embeds_XW = embeds_XW.clone()  # else all that was encoded with it would be held
        self.bytes += embeds_XW.nbytes
        self._kept[mark] = embeds_XW
        while self.bytes > self._most:
            self.bytes -= self._kept.popitem(last=False)[1].nbytes


def _mark(prepared: np.ndarray) -> bytes:
    """What tells an item from any other: its shape, and all of its numbers."""
    digest = hashlib.blake2b(f"{prepared.dtype} {prepared.shape} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(prepared).data)
    return digest.digest()
