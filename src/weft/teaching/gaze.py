"""Where a model is to look while it writes: which embeddings of a medium each token of an answer tells of.

Someone who writes down a box looks at what lies in it, and someone who writes a word with its times listens to that
moment. Answers with boxes or word times say where that is; dialects mark it on their pieces (`Spot`). A language model
that starts from nothing finds this by itself only where few places could be meant: with fourteen cells in a picture, it
learned in no run of minutes to attend to the one whose left side it had just written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weft.conversation import Conversation
from weft.dialects import Slot, Spot
from weft.models.encoding import Encoded
from weft.models.places import placed, token_grid
from weft.models.processing import WeftProcessor
from weft.teaching.media import moments_of, places_in


@dataclass(frozen=True)
class Gaze:
    """Of one sample: ``tokens[p]`` is written looking at the media embeddings ``media[inside[spot[p]]]``."""

    tokens: np.ndarray  # int64 [P] places of learned tokens in the sample
    spot: np.ndarray  # int64 [P] which row of `inside`
    media: np.ndarray  # int64 [X] places of all media embeddings in the sample
    inside: np.ndarray  # bool [K, X] which of them show each spot, one at least


def gaze_labels(conversation: Conversation, encoded: Encoded, processor: WeftProcessor) -> Gaze:
    """Where the learned tokens of ``encoded`` are to look.

    The conversation is the one that it was made of, its media decoded. Raises `WeftError` where an image's embeddings
    lie on no grid, or sound's do not follow the sound.
    """
    spots: dict[Spot, int] = {}
    tokens, which = [], []
    for token in np.flatnonzero(encoded.loss_mask):
        piece = encoded.pieces[encoded.source[token]]
        if token and not isinstance(piece, Slot) and piece.about is not None:
            tokens.append(token)
            which.append(spots.setdefault(piece.about, len(spots)))
    inside = np.array([_shown(spot, conversation, encoded, processor) for spot in spots], bool)
    media = [np.arange(span.start, span.start + span.length) for span in encoded.spans]
    return Gaze(
        np.array(tokens, np.int64),
        np.array(which, np.int64),
        np.concatenate(media) if media else np.zeros(0, np.int64),
        inside.reshape(len(spots), sum(map(len, media))),
    )


def _shown(spot: Spot, conversation: Conversation, encoded: Encoded, processor: WeftProcessor) -> np.ndarray:
    """bool [X]: the embeddings of all media that show a spot; the nearest one where a word is shorter than any."""
    shown = [np.zeros(span.length, bool) for span in encoded.spans]
    away = [np.full(span.length, np.inf) for span in encoded.spans]
    for here, far, span in zip(shown, away, encoded.spans, strict=True):
        if (span.modality, span.item) != (spot.modality, spot.index):
            continue
        if spot.modality == "image":
            here[: placed(processor.images)] = places_in(spot.extent, token_grid(processor.images))
        else:
            moments = moments_of(conversation, span, processor)
            start, end = spot.extent
            here[:] = (moments >= start) & (moments < end)
            far[:] = np.abs(moments - (start + end) / 2)
    joined = np.concatenate(shown)
    if not joined.any():
        joined[np.concatenate(away).argmin()] = True
    return joined
