"""Labels on the sound itself: what is heard at this moment, for clips whose word times are known.

A model that starts from nothing must find out at once what sound means and how to write answers, and can sit for long
on writing likely answers without listening. Where word times are known they say what each moment of sound is, so the
positions of the clip can be taught directly: a moment inside a word is to give the word's tokens, spread evenly over
its duration; a moment outside words gives the placeholder token (silence). These labels are extra; a prompt's text has
none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.conversation import Conversation, Words
from weft.models.layout import audio_windows

IGNORED = -100


def listening_labels(conversation: Conversation, encoded: Any, processor: Any) -> np.ndarray | None:
    """Labels [L] (-100 where nothing is to be learned), or None where the answer has no word times.

    As everywhere, the label at a position is what the position *before* it gives; so the labels of a span stand one to
    the right of it. The clips are those of ``encoded``, whose media are decoded.
    """
    words = {p.audio or 0: p.words for p in conversation.parts() if isinstance(p, Words)}
    if not words or processor.audio is None:
        return None
    labels = np.full(len(encoded.input_ids) + 1, IGNORED, np.int64)
    silence = processor.token_ids["audio_token_id"]
    rate = processor.audio.sample_rate
    for span in encoded.spans:
        if span.modality != "audio" or span.item not in words:
            continue
        wave, _ = conversation.audios[span.item].source
        window = audio_windows(processor.audio, len(wave))[span.window]
        step = (window.padded if processor.audio.pad_to_window else window.end - window.start) / rate / span.length
        moments = window.start / rate + (np.arange(span.length) + 0.5) * step
        here = np.full(span.length, silence, np.int64)
        for word in words[span.item]:
            tokens = processor.renderer.encode_text(word.text)
            inside = np.flatnonzero((moments >= word.start) & (moments < word.end))
            if tokens and len(inside):
                place = (moments[inside] - word.start) / (word.end - word.start) * len(tokens)
                here[inside] = np.asarray(tokens)[np.minimum(place.astype(int), len(tokens) - 1)]
        labels[span.start + 1 : span.start + 1 + span.length] = here
    return labels[: len(encoded.input_ids)]
