"""Places in media: what a connector with ``places`` adds to each embedding of a picture or a window of sound.

That is the embedding of the tokens that name its place, so that a time or box in an answer can be looked up in the
medium, and copied from it. For models that start from nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from weft.conversation import WeftError
from weft.models.blocks import merged_grid
from weft.models.encoders import ImageKind, SoundKind
from weft.models.splice import inside


def token_grid(kind: ImageKind) -> tuple[int, int]:
    """Rows and columns of the embeddings of a picture; an error where they lie on no grid."""
    if kind.patches is None or kind.by_size:
        raise WeftError("vision: with a class token or tiles, embeddings have no places; set drop_cls and tiles 1")
    return merged_grid(kind.section.connector, kind.patches)


def placed(kind: ImageKind) -> int:
    """How many embeddings of a view are of its places; what is written of it stands behind them."""
    return kind.view_tokens - kind.section.connector.written


def token_seconds(kind: SoundKind) -> float:
    """Seconds of sound in one embedding; an error where embeddings do not follow the sound."""
    connector = kind.section.connector
    if kind.seconds is None or connector.kind == "queries":
        raise WeftError(
            f"audio: embeddings of kind {kind.section.kind} behind a connector of kind {connector.kind} do not "
            "follow the sound, so none has a moment; take another kind"
        )
    return kind.seconds * connector.group


class Places(ABC):
    modality: Any

    def ids(self, encoding: Any) -> list[tuple[int, int]]:
        """First id and number of the tokens of each scale that names a place."""
        dialect = encoding.dialect
        scales = [[encoding.renderer.token_id(t) for t in scale] for scale in dialect.place_tokens(self.modality)]
        if not scales or any(ids != list(range(ids[0], ids[0] + len(ids))) for ids in scales):
            raise WeftError(
                f"connector.places needs a dialect with tokens for places, one after the other in the vocabulary, and "
                f"{dialect.name} has none for {self.modality}s here; turn places off, or take chatml with tokens"
            )
        return [(ids[0], len(ids)) for ids in scales]

    @abstractmethod
    def embeddings(self, model: Any, tokens: int, tokens_N: torch.Tensor | None = None) -> torch.Tensor:
        """[t, W] for items of ``tokens`` embeddings, or [N, t, W] for such as have ``tokens_N`` of them."""


class ImagePlaces(Places):
    modality = "image"

    def ids(self, encoding: Any) -> list[tuple[int, int]]:
        section = encoding.vision
        if section.fit != "stretch" or section.tiles > 1:
            raise WeftError(
                f"vision.connector.places names places in the whole picture, and fit {section.fit!r} with "
                f"{section.tiles} tiles shifts them; take 'stretch' and 1"
            )
        return super().ids(encoding)

    def embeddings(self, model: Any, tokens: int, tokens_N: torch.Tensor | None = None) -> torch.Tensor:
        """For each embedding of an image, those of the tokens of its column and its row.

        Columns and rows share their tokens, so the row's entries are rolled by half the width: else 20 across and 70
        down would be 70 across and 20 down.
        """
        scales, table = model.config.image_place_ids, model.get_input_embeddings()
        rows, columns = (
            table(_names((torch.arange(n, device=model.device) + 0.5) / n * scales[0][1], scales)).sum(-2)
            for n in token_grid(model.image_kind)
        )
        places_tW = (rows.roll(rows.shape[1] // 2, 1)[:, None] + columns[None]).flatten(0, 1)
        return model.image_kind.section.connector.places * places_tW


class SoundPlaces(Places):
    modality = "audio"

    def ids(self, encoding: Any) -> list[tuple[int, int]]:
        heard, counted = encoding.audio.window_seconds, getattr(encoding.dialect.switches, "window_seconds", None)
        ids = super().ids(encoding)
        if counted is not None and abs(counted - heard) > 1e-6:
            raise WeftError(
                f"audio.connector.places: the encoder hears windows of {heard:g} s and the dialect "
                f"counts times in windows of {counted:g} s; give both one length (audio.window_seconds, or the switch "
                "window_seconds)"
            )
        return ids

    def embeddings(self, model: Any, tokens: int, tokens_N: torch.Tensor | None = None) -> torch.Tensor:
        """For each embedding of a window that follows the sound, those of the tokens of its moment."""
        kind = model.sound_kind
        places_tW = self.at(model, (torch.arange(tokens, device=model.device) + 0.5) * token_seconds(kind))
        if tokens_N is None or kind.timed(tokens) == tokens:
            return places_tW
        return places_tW * inside(kind.timed(tokens_N), tokens, model.device)[..., None]

    def at(self, model: Any, moments_t: torch.Tensor) -> torch.Tensor:
        """[..., W] for moments [...] of a window, in seconds."""
        table = model.get_input_embeddings()
        return model.sound_kind.section.connector.places * table(self.tokens(model, moments_t)).sum(-2)

    def tokens(self, model: Any, moments_t: torch.Tensor) -> torch.Tensor:
        """[..., levels]: ids of the tokens that name moments [...] of a window, in seconds."""
        scales = model.config.audio_place_ids
        return _names(moments_t / model.sound_kind.section.window_seconds * (scales[0][1] - 1), scales)


def _names(steps_t: torch.Tensor, scales: Sequence[Sequence[int]]) -> torch.Tensor:
    """[..., levels]: ids of the tokens that name places, given in steps of the first scale."""
    names = []
    rest_t = steps_t + 1e-3  # a centre such as 0.36 s must not fall short of its own hundredth
    for level, (first, count) in enumerate(scales):
        if level:
            rest_t = (rest_t - rest_t.floor()) * count
        names.append(first + rest_t.long().clamp(max=count - 1))
    return torch.stack(names, -1)
