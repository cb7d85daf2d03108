"""What is in sample files, and what training learns of them: one counter behind `validate`, `stats` and `show`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from weft.conversation import Conversation
from weft.data.quick import Sample


@dataclass
class Learnable:
    """Counts over samples. A file may be used as requests and as training data: in a conversation that ends with the
    user the earlier answers are learned, and the last question is only a request."""

    end_with_user: int = 0  # samples that `weft generate` answers
    earlier_answers: int = 0  # learned ones in those
    unlearned_answers: int = 0  # that say "learn": false
    nothing_to_learn: int = 0  # samples that training refuses or leaves out

    def add(self, conversation: Conversation | Sample) -> None:
        messages: Any = conversation.messages
        learn = [message.learn for message in messages if message.role == "assistant"]
        self.count(len(learn), sum(learn), conversation.messages[-1].role != "assistant")

    def count(self, answers: int, learned: int, ends_with_user: bool) -> None:
        """A sample by its answers, and those of them that training learns."""
        self.unlearned_answers += answers - learned
        self.nothing_to_learn += not learned
        if ends_with_user:
            self.end_with_user += 1
            self.earlier_answers += learned

    def rows(self) -> list[tuple[str, int, str]]:
        """What there is to say: a name, a count, a remark."""
        earlier = f"{self.earlier_answers:,} earlier answer{'s are' if self.earlier_answers != 1 else ' is'} learned"
        found = [
            ("end with the user", self.end_with_user, f"their last question is only a request; {earlier}"),
            ("unlearned answers", self.unlearned_answers, 'say "learn": false: written, never learned'),
            ("nothing to learn", self.nothing_to_learn, "no answer, or none that is learned: not training data"),
        ]
        return [row for row in found if row[1]]


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

    def add(self, conversation: Conversation | Sample) -> None:
        answers = learned = 0
        tasks, languages = self.tasks, self.languages
        message: Any
        for message in conversation.messages:
            task, boxes, words = "", -1, -1
            for part in message.parts:
                kind = type(part).__name__  # those of `quick` have other classes of the same names
                if kind == "Text":
                    pass
                elif kind == "Image":
                    self.images += 1
                elif kind == "Audio":
                    self.clips += 1
                elif kind == "Task":
                    task = part.name
                    if part.fields:
                        for key in ("language", "to"):
                            if key in part.fields:
                                languages[part.fields[key] or "to predict"] += 1
                elif kind == "Box":
                    boxes = max(boxes, 0) + len(part.boxes)
                elif kind == "Words":
                    words = max(words, 0) + len(part.words)
            if message.role == "user":
                tasks[task] += 1
            elif message.role == "assistant":
                answers += 1
                learned += message.learn
                if boxes >= 0:
                    self.boxes.append(boxes)
                if words >= 0:
                    self.words.append(words)
        self.samples += 1
        self.messages += len(conversation.messages)
        self.turns.append(answers)
        self.learnable.count(answers, learned, conversation.messages[-1].role != "assistant")
