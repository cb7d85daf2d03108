"""Labels on the medium itself: what is heard at this moment, what is seen at this place, where answers tell.

A model that starts from nothing must find out at once what media mean and how to write answers, and can sit for long on
writing likely answers without listening or looking. Where word times or boxes are known they say what each embedding of
the medium is, so the encoder can be taught directly. A moment inside a word is to give the word's tokens, spread evenly
over its duration, and a moment outside words the placeholder token (silence); a place inside a box gives the box's
label. Each also tells the sides of the word or box it lies in, so that answers need only copy them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.conversation import Box, Conversation, Word, Words
from weft.dialects.base import Modality, asked_label
from weft.models.detector import WORDS
from weft.models.encoding import Encoded
from weft.models.places import placed, token_grid, token_seconds
from weft.models.processing import WeftProcessor
from weft.models.rendering import Span

IGNORED = -100
ARTICLES = ("a", "an", "the")


@dataclass(frozen=True)
class Listening:
    """What is heard when, for each embedding of sound in order."""

    heard: np.ndarray  # int64 [X] a token; -100 where word times are not known
    sides: np.ndarray  # int64 [X, 2, F] tokens of the start and the end of the word there, of F scales; -100 elsewhere

    @property
    def known(self) -> tuple[int, int]:
        """Embeddings of sound that have a name, and sides that are known of them."""
        return _known(self.heard, self.sides)

    @staticmethod
    def join(parts: Sequence[Listening]) -> Listening:
        return Listening(_joined([p.heard for p in parts]), _joined([p.sides for p in parts]))


@dataclass(frozen=True)
class Looking:
    """What is seen where: each embedding of a picture shows one of ``names``, of which name 0 is "none of these"."""

    seen: np.ndarray  # int64 [X] which name; -100 where boxes are not known
    among: np.ndarray  # bool [X, C] the names that its sample speaks of: only between these is there an answer
    names: np.ndarray  # int64 [C, K] the tokens of each name, filled up with -1
    # int64 [C, WORDS] of each name its tokens within a text, without an article, filled up with -1; -100: too long
    words: np.ndarray
    sides: np.ndarray  # int64 [X, 4, F] tokens of left, top, right and bottom of the box there; -100 outside boxes

    @property
    def known(self) -> tuple[int, int]:
        """Embeddings of pictures that have a name, and sides that are known of them."""
        return _known(self.seen, self.sides)

    @staticmethod
    def join(parts: Sequence[Looking]) -> Looking:
        """Those of several samples, equal names made one."""
        index: dict[tuple[int, ...], int] = {}
        maps = [[index.setdefault(tuple(n[n >= 0].tolist()), len(index)) for n in part.names] for part in parts]
        names = np.full((len(index), max(map(len, index), default=0)), -1, np.int64)
        for tokens, i in index.items():
            names[i, : len(tokens)] = tokens
        seen = [
            np.where(p.seen >= 0, np.asarray(m)[np.maximum(p.seen, 0)], IGNORED)
            for p, m in zip(parts, maps, strict=True)
        ]
        among = np.zeros((sum(len(p.seen) for p in parts), len(index)), bool)
        row = 0
        for part, own in zip(parts, maps, strict=True):
            among[row : row + len(part.seen), own] = part.among
            row += len(part.seen)
        words = np.full((len(index), WORDS), IGNORED, np.int64)
        for part, own in zip(parts, maps, strict=True):
            words[own] = part.words
        return Looking(_joined(seen), among, names, words, _joined([p.sides for p in parts]))


def _known(named_X: np.ndarray, sides_XSF: np.ndarray) -> tuple[int, int]:
    return int((named_X >= 0).sum()), int((sides_XSF[..., 0] >= 0).sum()) if sides_XSF.size else 0


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    filled = [p for p in parts if len(p)]
    return np.concatenate(filled) if filled else np.zeros(0, np.int64)


def listening_labels(conversation: Conversation, encoded: Encoded, processor: WeftProcessor) -> Listening:
    """What is heard at each embedding of the sample's clips, in order, where word times tell.

    The conversation is the one that ``encoded`` was made of, its clips decoded (array, rate).
    """
    spans = [s for s in encoded.spans if s.modality == "audio"]
    words: dict[int, list[Word]] = {}
    for part in (part for message in conversation.learned for part in message.parts):
        if isinstance(part, Words):
            words.setdefault(part.audio or 0, []).extend(part.words)
    scales = len(processor.dialect.place_tokens("audio"))
    labels = [np.full(span.length, IGNORED, np.int64) for span in spans]
    sides = [np.full((span.length, 2, scales), IGNORED, np.int64) for span in spans]
    for here, around, span in zip(labels, sides, spans, strict=True):
        if span.item not in words:
            continue
        first, seconds = window_extent(conversation, span, processor)
        moments = moments_of(conversation, span, processor)
        here[np.isfinite(moments)] = processor.token_ids["audio_token_id"]
        for word in words[span.item]:
            tokens = within_text(word.text, processor)
            inside = np.flatnonzero((moments >= word.start) & (moments < word.end))
            if tokens and len(inside):
                place = (moments[inside] - word.start) / (word.end - word.start) * len(tokens)
                here[inside] = np.asarray(tokens)[np.minimum(place.astype(int), len(tokens) - 1)]
                for side, time in enumerate((word.start, word.end)):
                    if first <= time <= first + seconds:  # a side in another window has no name in this one
                        around[inside, side] = _place(processor, "audio", time - first)
    return Listening(_joined(labels), _joined(sides))


def within_text(word: str, processor: WeftProcessor) -> list[int]:
    """Tokens of a word as it stands in a text, behind a blank: most tokenizers have one token for both, and a trained
    language model knows a word best by it. Where the blank is a token of its own, it is no part of the word."""
    tokens, blank = (processor.renderer.encode_text(text) for text in (f" {word}", " "))
    return tokens[len(blank) :] if tokens[: len(blank)] == blank else tokens


def looking_labels(conversation: Conversation, encoded: Encoded, processor: WeftProcessor) -> Looking:
    """What is seen at each embedding of the sample's pictures, in order, where boxes with labels tell.

    A place whose middle lies in a box shows that box's label (the smallest box, where several cover it); so does the
    place in which a small box's own middle lies. A sample tells of its own labels alone: what it does not ask for may
    well be in the picture, so a place is only ever "this" or "none of what was asked for", never "that other thing".
    """
    boxes: dict[int, list[tuple[str, tuple[float, float, float, float] | None]]] = {}
    question = None
    for message in conversation.messages:
        question = message if message.role == "user" else question
        for part in message.parts if message.learn else ():
            label = (part.label or asked_label(question)) if isinstance(part, Box) else None
            if isinstance(part, Box) and label:
                boxes.setdefault(part.image or 0, []).extend((label, box) for box in part.boxes or (None,))
    spans = [s for s in encoded.spans if s.modality == "image"]
    labels = list(dict.fromkeys(label for found in boxes.values() for label, _ in found))
    tokens = [[processor.token_ids["image_token_id"]]] if spans else []
    tokens += [processor.renderer.encode_text(label) for label in labels]
    scales = len(processor.dialect.place_tokens("image"))
    places = [span.length if processor.images.by_size else placed(processor.images) for span in spans]
    seen = [np.full(length, IGNORED, np.int64) for length in places]
    among = [np.zeros((length, len(tokens)), bool) for length in places]
    sides = [np.full((length, 4, scales), IGNORED, np.int64) for length in places]
    for here, asked, around, span in zip(seen, among, sides, spans, strict=True):
        if span.item not in boxes or len(here) != np.prod(grid := token_grid(processor.images)):
            continue
        here[:] = 0
        asked[:, [0, *(1 + labels.index(label) for label, _ in boxes[span.item])]] = True
        known = [(label, box) for label, box in boxes[span.item] if box is not None]
        for label, box in sorted(known, key=lambda b: -(b[1][2] - b[1][0]) * (b[1][3] - b[1][1])):
            inside = places_in(box, grid)
            here[inside] = 1 + labels.index(label)
            around[inside] = [_place(processor, "image", side) for side in box]
    names = np.full((len(tokens), max(map(len, tokens), default=0)), -1, np.int64)
    for row, ids in zip(names, tokens, strict=True):
        row[: len(ids)] = ids
    words = np.full((len(tokens), WORDS), -1, np.int64)
    for row, label in zip(words[1:], labels, strict=True):
        row[:] = _words(label, processor)
    all_among = np.concatenate(among) if among else np.zeros((0, 0), bool)
    return Looking(_joined(seen), all_among, names, words, _joined(sides))


def _words(label: str, processor: WeftProcessor) -> list[int]:
    """The tokens of a label within a text, without an article, filled up; where there are too many, none is known."""
    first, _, rest = label.partition(" ")
    tokens = within_text(rest if rest and first.lower() in ARTICLES else label, processor)
    return [IGNORED] * WORDS if len(tokens) > WORDS else tokens + [-1] * (WORDS - len(tokens))


def window_extent(conversation: Conversation, span: Span, processor: WeftProcessor) -> tuple[float, float]:
    """Where in its clip the window of ``span`` begins, and how long it is as it is fed, in seconds."""
    section, (wave, rate) = processor.sounds.section, conversation.audios[span.item].source
    window = processor.sounds.windows(len(wave))[span.window]
    return window.start / rate, (window.padded if section.pad_to_window else window.end - window.start) / rate


def moments_of(conversation: Conversation, span: Span, processor: WeftProcessor) -> np.ndarray:
    """Seconds into the clip of the middle of each embedding of a window of sound, as the model's places have them;
    infinite for those that do not follow the sound.

    Raises `WeftError` where embeddings do not follow the sound.
    """
    first, _ = window_extent(conversation, span, processor)
    moments = first + (np.arange(span.length) + 0.5) * token_seconds(processor.sounds)
    moments[processor.sounds.timed(span.length) :] = np.inf
    return moments


def places_in(box: Sequence[float], grid: tuple[int, int]) -> np.ndarray:
    """bool [rows * columns]: which places of an image have their middle in a box; and the place of the box's middle."""
    rows, columns = grid
    left, top, right, bottom = box
    y, x = ((np.indices(grid) + 0.5) / np.array(grid)[:, None, None]).reshape(2, -1)
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    row, column = min(int((top + bottom) / 2 * rows), rows - 1), min(int((left + right) / 2 * columns), columns - 1)
    inside[row * columns + column] = True
    return inside


def _place(processor: WeftProcessor, modality: Modality, value: float) -> list[int]:
    return [processor.renderer.token_id(token) for token in processor.dialect.place(modality, value)]
