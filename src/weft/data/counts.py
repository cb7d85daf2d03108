"""What is in sample files: one counter behind `validate` and `stats`, and where in a conversation each part stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from weft.conversation import Audio, Box, Conversation, Image, Task, Words
from weft.data.learnable import Learnable

LATE = 0.05  # seconds a last word may end after its clip, as annotations round


@dataclass
class Counts:
    """Samples without a mistake. Lists have an entry per sample or per answer, in file order."""

    files: list[str] = field(default_factory=list)
    samples: int = 0
    messages: int = 0
    turns: list[int] = field(default_factory=list)  # answers of each sample
    tasks: Counter[str] = field(default_factory=Counter)  # "" counts questions without a task
    languages: Counter[str] = field(default_factory=Counter)
    images: int = 0  # as the samples mention them
    clips: int = 0
    boxes: list[int] = field(default_factory=list)  # of each answer that has any
    words: list[int] = field(default_factory=list)  # timed words of each answer that has any
    learnable: Learnable = field(default_factory=Learnable)  # what training learns of them

    def add(self, conversation: Conversation) -> None:
        answers = 0
        for message in conversation.messages:
            task, boxes, words = "", [], []
            for part in message.parts:
                if isinstance(part, Image):
                    self.images += 1
                elif isinstance(part, Audio):
                    self.clips += 1
                elif isinstance(part, Task):
                    task = part.name
                    self.languages.update(
                        part.fields[k] or "to predict" for k in ("language", "to") if k in part.fields
                    )
                elif isinstance(part, Box):
                    boxes.append(len(part.boxes))
                elif isinstance(part, Words):
                    words.append(len(part.words))
            if message.role == "user":
                self.tasks[task] += 1
            elif message.role == "assistant":
                answers += 1
                if boxes:
                    self.boxes.append(sum(boxes))
                if words:
                    self.words.append(sum(words))
        self.samples += 1
        self.messages += len(conversation.messages)
        self.turns.append(answers)
        self.learnable.add(conversation)


def placed(conversation: Conversation, *kinds: type) -> Iterator[tuple[str, Any]]:
    """Every part of these kinds with the field that a message names it by."""
    for m, message in enumerate(conversation.messages):
        for i, part in enumerate(message.parts):
            if isinstance(part, kinds):
                yield f"messages[{m}].content[{i}]", part


def last_words(conversation: Conversation) -> Iterator[tuple[str, int, float]]:
    """``(field, number of the clip, seconds)`` where the words of a part end."""
    for where, part in placed(conversation, Words):
        if part.words:
            yield where, part.audio or 0, max(word.end for word in part.words)


def end_problem(last: float, seconds: float) -> str | None:
    """What is wrong where the last word of a clip of ``seconds`` ends at ``last``, or None."""
    return f"a word ends at {last:g} s, its clip at {seconds:.3f} s" if last > seconds + LATE else None
