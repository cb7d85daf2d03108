"""ChatML turns with tasks asked in words, which `chatml`, InternVL and Qwen2-Audio share; marks are each one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from weft.conversation import Audio, Box, Conversation, Image, Message, Part, Task, Text, Words
from weft.dialects.base import (
    Dialect,
    Modality,
    Piece,
    Plain,
    Slot,
    Special,
    Switches,
    asked_label,
    cannot,
    join_words,
)

LANGUAGES = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "hi": "Hindi", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ru": "Russian",
    "tr": "Turkish", "uk": "Ukrainian", "zh": "Chinese",
}  # fmt: skip


class TurnSwitches(Switches):
    system: str | None = None  # a system message where a conversation has none
    # The language spoken where a task leaves it out, for a model that learned to "Transcribe the English speech".
    # A task whose language is null leaves it open.
    language: str | None = None


class Turns(Dialect):
    Switches = TurnSwitches
    untimed = True  # a transcript that was asked for without them
    # What a task is called in words: without text, and with it. {text} is where the user's own parts go.
    wordings: ClassVar[Mapping[str, tuple[str, str]]]
    switches: Any

    def stop_tokens(self) -> list[str]:
        return ["<|im_end|>"]

    def special_tokens(self) -> list[str]:
        return ["<|im_start|>", "<|im_end|>"]

    def begin(self) -> list[Piece]:
        """What stands before everything."""
        return []

    def medium(self, slot: Slot) -> list[Piece]:
        """An image or clip as it stands among a user's parts."""
        return [slot]

    def mark(self, part: Part, label: str | None, total: Mapping[Modality, int]) -> list[Piece]:
        """A part that is neither text nor a medium, its label left out where it is ``label``, which was asked for.

        ``total`` counts the images and clips there are so far.
        """
        raise cannot(self, "a box" if isinstance(part, Box) else "word times", mark=type(part))

    def wording(self, task: Task, text: bool) -> tuple[list[Piece], list[Piece]]:
        """The wording of a task before and after the user's own parts; ``text``: whether there are any."""
        written, to, itn = task.get("language"), task.get("to"), task.get("itn")
        spoken = task.get("language", self.switches.language)  # where it names none, the usual one
        filled = self.wordings[task.name][text].format(
            text="\0",
            language=f" in {LANGUAGES.get(written, written)}" if written else "",
            spoken=f" {LANGUAGES.get(spoken, spoken)}" if spoken else "",
            to=f" into {LANGUAGES.get(to, to)}" if to else "",
            times=" with times" if task.get("timestamps") else "",
            itn="" if itn is None else ", numbers in digits" if itn else ", numbers in words",
        )
        filled += f" Style: {task.get('style')}." if task.get("style") else ""
        before, _, after = filled.partition("\0")
        return [Plain(before)], [Plain(after)]

    def write(self, conversation: Conversation, generate: bool) -> Iterator[list[Piece]]:
        pieces, messages = self.begin(), conversation.messages
        if self.switches.system is not None and not (messages and messages[0].role == "system"):
            pieces += turn("system", [Plain(self.switches.system)])
        seen: dict[Modality, int] = {"image": 0, "audio": 0}
        question: Message | None = None
        for message in messages:
            if message.role == "user":
                content, question = self._request(message, seen), message
            else:
                content = self._answer(message, question, seen)
            yield [*pieces, *turn(message.role, content)]
            pieces = []
        if generate:
            yield [Special("<|im_start|>"), Plain("assistant\n")]

    def _request(self, message: Message, seen: dict[Modality, int]) -> list[Piece]:
        """A user's message: its parts in their order, the task's wording around the words and boxes."""
        texts = [i for i, part in enumerate(message.parts) if isinstance(part, Text | Box | Words)]
        before, after = self.wording(message.task, bool(texts)) if message.task else ([], [])
        total: dict[Modality, int] = {
            "image": seen["image"] + sum(isinstance(p, Image) for p in message.parts),
            "audio": seen["audio"] + sum(isinstance(p, Audio) for p in message.parts),
        }
        content: list[Piece] = []
        for i, part in enumerate(message.parts):
            if texts and i == texts[0]:
                content += before
            if isinstance(part, Image | Audio):
                modality: Modality = "image" if isinstance(part, Image) else "audio"
                content += self.medium(Slot(modality, seen[modality]))
                seen[modality] += 1
            elif isinstance(part, Text):
                content.append(Plain(part.text))
            elif not isinstance(part, Task):
                if i and isinstance(part, Box) and isinstance(message.parts[i - 1], Text):
                    content.append(Plain(" "))
                content += self.mark(part, None, total)
        content += after if texts else before
        return [piece for piece in content if piece != Plain("")]

    def _answer(self, message: Message, question: Message | None, seen: Mapping[Modality, int]) -> list[Piece]:
        task, label = question.task if question is not None else None, asked_label(question)
        untimed = without_times(task)
        content: list[Piece] = []
        for part in message.parts:
            if untimed and isinstance(part, Words):
                part = Text(join_words([word.text for word in part.words]))
            content += [Plain(part.text)] if isinstance(part, Text) else self.mark(part, label, seen)
        learn = message.role == "assistant"
        return [replace(piece, loss=learn) for piece in content if not isinstance(piece, Slot)]


def without_times(task: Task | None) -> bool:
    """Whether a transcript was asked for without its times, so that timed words are written as text."""
    return task is not None and task.name == "transcribe" and not task.get("timestamps")


def turn(role: str, content: list[Piece]) -> list[Piece]:
    learn = role == "assistant"
    return [Special("<|im_start|>"), Plain(f"{role}\n"), *content, Special("<|im_end|>", learn), Plain("\n")]
