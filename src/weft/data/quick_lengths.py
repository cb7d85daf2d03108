"""Samples of sound measured sooner: timed words are counted and not written, plain headers read without a decoder.

A piece of text a time is most of what writing a transcript with times costs. What stands around the words is written
once for all samples that ask alike; each word is tokenised by itself.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from weft.conversation import Audio, Conversation, Message, Part, Task, Text, Words
from weft.data.lengths import slot_tokens
from weft.data.source import Source
from weft.media import resampled_length
from weft.media.plain_headers import told
from weft.media.source import MediaError, decoded_bytes, encoded_source
from weft.models.processing import WeftProcessor
from weft.models.rendering import Rendered, Span

FRAMES = 4096  # ways to ask that are remembered


class Heard(str):
    """The path of a clip whose header was read: as any path, and `weft.media.audio_frames` takes its word."""

    facts: tuple[int, int]  # frames and their rate


class QuickSource:
    """The samples of ``source``, whose clips at ``rate`` are `Heard` where their headers are plain."""

    def __init__(self, source: Source, rate: int) -> None:
        self.source, self.rate = source, rate

    def __getitem__(self, index: int) -> Conversation:
        conversation = self.source[index]
        return conversation.changed(self._heard) if conversation.audios else conversation

    def _heard(self, part: Part) -> Part:
        if not isinstance(part, Audio) or type(part.source) is not str or part.source.startswith("data:"):
            return part
        try:
            facts = told(encoded_source(part.source, "audio"))
        except MediaError:
            return part  # it is said where it is read
        if facts is None or 4 * resampled_length(*facts, self.rate) > decoded_bytes(None):
            return part
        path = Heard(part.source)
        path.facts = facts
        return Audio(path)

    def __len__(self) -> int:
        return len(self.source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


@dataclass(frozen=True)
class Counted:
    """What measuring asks of `Rendered`, where nothing was written."""

    ids: range
    spans: list[Span] = field(default_factory=list)


class QuickProcessor:
    """``processor``, but that it counts what it would render where an answer is nothing but timed words of one clip."""

    def __init__(self, processor: WeftProcessor) -> None:
        self.processor = processor
        self.frames: dict[Hashable, int] = {}

    def render(self, conversation: Conversation) -> Rendered | Counted:
        frame, words = _parted(conversation)
        between = self.processor.dialect.marks_between(words, conversation) if words else None
        if words is None or between is None:
            return self.processor.render(conversation)
        windows = self.processor.clip_tokens(conversation.audios[0].source)
        clip = sum(slot_tokens(self.processor, "audio", tokens) for tokens in windows)
        around = self.frames.get(frame)
        if around is None:
            empty = Message("assistant", (Words((), words.audio),))
            if len(self.frames) >= FRAMES:
                self.frames.clear()
            around = self.processor.length(Conversation((*conversation.messages[:-1], empty))) - clip
            self.frames[frame] = around
        encode = self.processor.renderer.encode_text
        count = around + clip + between + sum(len(encode(word.text)) for word in words.words)
        return Counted(range(count), [Span("audio", 0, 0, tokens) for tokens in windows])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)


def sooner(source: Source, processor: WeftProcessor) -> tuple[Any, Any]:
    """What `lengths.measure_some` takes in their place."""
    heard = QuickSource(source, processor.sounds.section.sample_rate) if processor.audio else source
    return heard, QuickProcessor(processor)


def _parted(conversation: Conversation) -> tuple[Hashable, Words | None]:
    """All but the words, to be known by, and the words; none where there is more to it."""
    *before, answer = conversation.messages
    if answer.role != "assistant" or len(answer.parts) != 1 or not isinstance(words := answer.parts[0], Words):
        return None, None
    frame: list[Hashable] = []
    for message in before:
        frame.append(message.role)
        for part in message.parts:
            if isinstance(part, Text):
                frame.append(part.text)
            elif isinstance(part, Task):
                frame.append((part.name, *part.fields.items()))
            elif isinstance(part, Audio):
                frame.append(Audio)
            else:
                return None, None
    return tuple(frame), words if frame.count(Audio) == 1 and words.words else None
