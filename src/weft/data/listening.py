"""Labels on the medium itself: what is heard at this moment, what is seen at this place, where answers tell.

A model that starts from nothing must find out at once what sound means and how to write answers, and can sit for long
on writing likely answers without listening. Where word times are known they say what each moment of sound is, so the
encoder can be taught directly: a moment inside a word is to give the word's tokens, spread evenly over its duration; a
moment outside words gives the placeholder token (silence).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.conversation import Box, Conversation, Words
from weft.dialects.base import asked_label
from weft.models.layout import audio_windows, merged_grid

IGNORED = -100


def listening_labels(conversation: Conversation, encoded: Any, processor: Any) -> np.ndarray:
    """A token for each embedding of sound in the sample, in order [X]; -100 where word times are not known.

    The conversation is the one that ``encoded`` was made of, its clips decoded (array, rate).
    """
    spans = [s for s in encoded.spans if s.modality == "audio"]
    words = {p.audio or 0: p.words for p in conversation.parts() if isinstance(p, Words)}
    labels = [np.full(span.length, IGNORED, np.int64) for span in spans]
    for here, span in zip(labels, spans, strict=True):
        if span.item not in words:
            continue
        here[:] = processor.token_ids["audio_token_id"]
        section, (wave, rate) = processor.audio, conversation.audios[span.item].source
        window = audio_windows(section, len(wave))[span.window]
        step = (window.padded if section.pad_to_window else window.end - window.start) / rate / span.length
        moments = window.start / rate + (np.arange(span.length) + 0.5) * step
        for word in words[span.item]:
            tokens = processor.renderer.encode_text(word.text)
            inside = np.flatnonzero((moments >= word.start) & (moments < word.end))
            if tokens and len(inside):
                place = (moments[inside] - word.start) / (word.end - word.start) * len(tokens)
                here[inside] = np.asarray(tokens)[np.minimum(place.astype(int), len(tokens) - 1)]
    return np.concatenate(labels) if labels else np.zeros(0, np.int64)


def looking_labels(conversation: Conversation, encoded: Any, processor: Any) -> np.ndarray:
    """A token for each embedding of a picture in the sample, in order [X]; -100 where no boxes are known.

    The same for boxes: a patch whose middle lies in a box gives a token of the box's label, its tokens spread evenly
    from left to right; one outside of all boxes gives the placeholder token.
    """
    boxes: dict[int, list[tuple[Box, str]]] = {}
    question = None
    for message in conversation.messages:
        question = message if message.role == "user" else question
        for part in message.parts:
            label = (part.label or asked_label(question)) if isinstance(part, Box) else None
            if isinstance(part, Box) and label:
                boxes.setdefault(part.image or 0, []).append((part, label))
    spans = [s for s in encoded.spans if s.modality == "image"]
    labels = [np.full(span.length, IGNORED, np.int64) for span in spans]
    for here, span in zip(labels, spans, strict=True):
        if span.item not in boxes:
            continue
        rows, columns = merged_grid(processor.vision)
        y, x = ((np.indices((rows, columns)) + 0.5) / np.array([rows, columns])[:, None, None]).reshape(2, -1)
        here[:] = processor.token_ids["image_token_id"]
        for part, label in boxes[span.item]:
            tokens = np.asarray(processor.renderer.encode_text(label))
            for left, top, right, bottom in part.boxes:
                inside = np.flatnonzero((x >= left) & (x < right) & (y >= top) & (y < bottom))
                place = (x[inside] - left) / max(right - left, 1e-6) * len(tokens)
                here[inside] = tokens[np.minimum(place.astype(int), len(tokens) - 1)]
    return np.concatenate(labels) if labels else np.zeros(0, np.int64)
