"""Labels on the sound itself: what is heard at this moment, for clips whose word times are known.

A model that starts from nothing must find out at once what sound means and how to write answers, and can sit for long
on writing likely answers without listening. Where word times are known they say what each moment of sound is, so the
encoder can be taught directly: a moment inside a word is to give the word's tokens, spread evenly over its duration; a
moment outside words gives the placeholder token (silence).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.conversation import Conversation, Words
from weft.models.layout import audio_windows

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
