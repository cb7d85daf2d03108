"""The splice: media embeddings take the places of their placeholder tokens among the text embeddings."""

from __future__ import annotations

import torch

from weft.conversation import WeftError


def splice(
    text_BLW: torch.Tensor, ids_BL: torch.Tensor, token_id: int | None, media_XW: torch.Tensor | None, modality: str
) -> torch.Tensor:
    """``text_BLW`` with the embeddings ``media_XW`` at the positions whose id is ``token_id``.

    Embeddings are taken in order, positions in order of appearance over the rows, so any number of items in any row
    works. Placeholders and embeddings must be equally many.
    """
    slots_BL = ids_BL == token_id if token_id is not None else torch.zeros_like(ids_BL, dtype=torch.bool)
    n_slots, n_media = int(slots_BL.sum()), 0 if media_XW is None else len(media_XW)
    if n_slots != n_media:
        raise WeftError(
            f"the text has {n_slots} {modality} tokens and the media given make {n_media} {modality} embeddings; "
            "give each item with the text that the processor made for it"
        )
    if media_XW is None or n_media == 0:
        return text_BLW
    return text_BLW.masked_scatter(slots_BL[..., None], media_XW.to(text_BLW.dtype))


def before_last_run(slots_BL: torch.Tensor, segment_lengths_S: torch.Tensor | None = None) -> torch.Tensor:
    """[B, L] True where ``slots_BL`` is, but for the last stretch of them in each row (or sample of a packed row)."""
    if segment_lengths_S is not None:
        return torch.cat([before_last_run(sample_BL) for sample_BL in slots_BL.split(segment_lengths_S.tolist(), 1)], 1)
    starts_BL = slots_BL & ~torch.nn.functional.pad(slots_BL, (1, -1))
    run_BL = starts_BL.cumsum(-1)
    return slots_BL & (run_BL < run_BL[:, -1:])


def splice_boundaries(
    text_BLW: torch.Tensor, ids_BL: torch.Tensor, start_id: int, end_id: int, boundaries_2W: torch.Tensor
) -> torch.Tensor:
    """``text_BLW`` with learned embeddings at the start and end tokens of clips; the tokens' own are not used."""
    start_BL, end_BL = ids_BL == start_id, ids_BL == end_id
    n_start, n_end = int(start_BL.sum()), int(end_BL.sum())
    if n_start != n_end:
        raise WeftError(f"the text has {n_start} start tokens of clips and {n_end} end tokens; each clip needs both")
    boundaries_2W = boundaries_2W.to(text_BLW.dtype)
    text_BLW = torch.where(start_BL[..., None], boundaries_2W[0], text_BLW)
    return torch.where(end_BL[..., None], boundaries_2W[1], text_BLW)
