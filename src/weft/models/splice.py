"""The splice: media embeddings take the places of their placeholder tokens among the text embeddings."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from weft.conversation import WeftError
from weft.dialects import Modality
from weft.models.loss import sent


def among(ids_BL: torch.Tensor, tokens: Iterable[int | None]) -> torch.Tensor:
    """[B, L] True where an id is one of ``tokens``."""
    found_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    for token in tokens:
        if token is not None:
            found_BL |= ids_BL == token
    return found_BL


def splice(
    text_BLW: torch.Tensor, slots_BL: torch.Tensor, media_XW: torch.Tensor | None, modality: Modality
) -> torch.Tensor:
    """``text_BLW`` with the embeddings ``media_XW`` at the positions where ``slots_BL`` is True.

    Embeddings are taken in order, positions in order of appearance over the rows, so any number of items in any row
    works. Placeholders and embeddings must be equally many.
    """
    n_media = 0 if media_XW is None else len(media_XW)
    if not torch.compiler.is_compiling() and (n_slots := int(slots_BL.sum())) != n_media:
        raise WeftError(
            f"the text has {n_slots} {modality} tokens and the media given make {n_media} {modality} embeddings; "
            "give each item with the text that the processor made for it"
        )
    if media_XW is None or n_media == 0:
        return text_BLW
    return text_BLW.masked_scatter(sent(slots_BL[..., None], text_BLW.device), media_XW.to(text_BLW.dtype))


def inside(lengths_N: torch.Tensor, size: int, device: torch.device) -> torch.Tensor:
    """[N, size] on the device, True where a position lies within its item."""
    return sent(torch.arange(size, device=lengths_N.device)[None] < lengths_N[:, None], device)


def full(lengths_N: torch.Tensor, size: int) -> bool:
    """Whether nothing lies beyond an item's length; while a graph is traced, which must hold for any length, no."""
    return not torch.compiler.is_compiling() and int(lengths_N.min()) >= size


def end_to_end(items_NTW: torch.Tensor, lengths_N: torch.Tensor) -> torch.Tensor:
    """[X, W]: what lies within each item, one item after the other; in a traced graph, all else behind that."""
    inside_X = inside(lengths_N, items_NTW.shape[1], lengths_N.device).flatten()
    traced = torch.compiler.is_compiling()  # then the shape must not depend on the lengths
    at_X = (~inside_X).long().argsort(stable=True) if traced else inside_X.nonzero()[:, 0]
    return items_NTW.flatten(0, 1).index_select(0, sent(at_X, items_NTW.device))


def apart(row_XW: torch.Tensor, lengths_N: torch.Tensor, size: int) -> torch.Tensor:
    """[N, size, W]: what `end_to_end` laid in a row, or what became of it, by items again, with zeros beyond each."""
    at_X = inside(lengths_N, size, lengths_N.device).flatten().nonzero()[:, 0]
    items_nW = row_XW.new_zeros(len(lengths_N) * size, row_XW.shape[1])
    return items_nW.index_copy(0, sent(at_X, row_XW.device), row_XW[: len(at_X)]).unflatten(0, (-1, size))


def before_last_run(slots_BL: torch.Tensor, segment_lengths_S: torch.Tensor | None = None) -> torch.Tensor:
    """[B, L] True where ``slots_BL`` is, but for the last stretch of them in each row (or sample of a packed row)."""
    if segment_lengths_S is not None:
        return torch.cat([before_last_run(sample_BL) for sample_BL in slots_BL.split(segment_lengths_S.tolist(), 1)], 1)
    starts_BL = slots_BL & ~torch.nn.functional.pad(slots_BL, (1, -1))
    run_BL = starts_BL.cumsum(-1)
    return slots_BL & (run_BL < run_BL[:, -1:])
