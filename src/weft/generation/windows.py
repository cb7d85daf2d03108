"""Transcribing or translating a clip longer than the encoder's window: one prompt per window, the answers merged with
times offset.

Other tasks hear all windows in one prompt (the processor splits the clip); what is said is local in time, and models
are trained on clips of one window, so each window is asked on its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from weft.conversation import Audio, Conversation, Part, Text, Word, Words
from weft.dialects.base import join_words
from weft.generation.reply import Reply
from weft.media import audio_samples, load_audio

SPOKEN = ("transcribe", "translate")  # tasks whose answer to a clip is the answers to its windows
SEARCH = 0.1  # share of a window, at its end, in which the quietest moment is looked for
SMOOTH_SECONDS = 0.1  # loudness is averaged over this long


@dataclass(frozen=True, slots=True)
class WindowPrompt:
    """One prompt of a split conversation: a stretch of the clip, from ``offset`` seconds on."""

    conversation: Conversation
    offset: float
    seconds: float

    def words(self, reply: Reply) -> list[Word]:
        """Those of its reply, at their times in the clip."""
        words = (word for part in reply.words for word in part.words)
        return [Word(w.text, round(w.start + self.offset, 3), round(w.end + self.offset, 3)) for w in words]


def split_transcription(conversation: Conversation, rate: int, window_seconds: float) -> list[WindowPrompt] | None:
    """The prompts of a transcription or translation whose one clip is longer than the window; None for any other
    conversation.

    It applies where the last user message has such a task and exactly one clip. A window ends at the quietest
    moment of its last tenth, so that words are seldom cut; no sample is left out or heard twice.
    """
    message = conversation.messages[-1]
    clips = [i for i, part in enumerate(message.parts) if isinstance(part, Audio)]
    if message.task is None or message.task.name not in SPOKEN or len(clips) != 1:
        return None
    clip = message.parts[clips[0]]
    assert isinstance(clip, Audio)
    size = round(window_seconds * rate)
    if audio_samples(clip.source, rate) <= size:
        return None
    wave = load_audio(clip.source, rate)
    windows = []
    for start, end in quiet_windows(wave, size, rate):
        parts = list(message.parts)
        parts[clips[0]] = Audio((wave[start:end], rate))
        last = replace(message, parts=tuple(parts))
        windows.append(
            WindowPrompt(
                Conversation((*conversation.messages[:-1], last), conversation.id), start / rate, (end - start) / rate
            )
        )
    return windows


def quiet_windows(wave: np.ndarray, size: int, rate: int) -> list[tuple[int, int]]:
    """``[(start, end)]`` of windows at most ``size`` samples long that together hold all of ``wave`` [S] once."""
    step = max(1, rate // 100)  # cuts fall on hundredths of a second, so that offset times keep that grid
    cuts = [0]
    while len(wave) - cuts[-1] > size:
        start = cuts[-1]
        low = start + round(size * (1 - SEARCH))
        high = max(low + step, min(start + size, len(wave) - size // 20))  # what is left is never a mere splinter
        power = np.square(wave[low:high].astype(np.float64))
        width = max(1, round(SMOOTH_SECONDS * rate))
        if len(power) <= width:
            cuts.append(high)
            continue
        total = np.concatenate([[0.0], np.cumsum(power)])
        loud = total[width:] - total[:-width]
        middle = low + int(np.argmin(loud)) + width // 2
        cuts.append(max(start + step, start + (middle - start) // step * step))
    return list(zip(cuts, [*cuts[1:], len(wave)], strict=True))


def merge(replies: list[Reply], windows: list[WindowPrompt]) -> Reply:
    """One reply for the whole clip: texts joined, word times moved by each window's offset."""
    texts: list[str] = []
    words: list[Word] = []
    audio: int | None = None
    for reply, window in zip(replies, windows, strict=True):
        words += window.words(reply)
        for part in reply.parts:
            if isinstance(part, Words):
                audio = part.audio
            elif isinstance(part, Text) and part.text.strip():
                texts.append(part.text.strip())
    parts: list[Part] = [Words(tuple(words), audio)] if words else []
    if texts:
        parts.append(Text(join_words(texts)))
    return Reply(
        text=join_words([r.text.strip() for r in replies if r.text.strip()]),
        raw="\n".join(r.raw for r in replies),
        parts=tuple(parts),
        tokens=sum(r.tokens for r in replies),
        finished=all(r.finished for r in replies),
        windows=len(windows),
        malformed=tuple(fragment for r in replies for fragment in r.malformed),
    )
