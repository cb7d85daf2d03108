"""What is in sample files, and what training learns of them: one counter behind `validate`, `stats` and `show`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from weft.conversation import Conversation
from weft.conversation.grounding import without_area
from weft.data.quick import Facts


@dataclass
class Learnable:
    """Counts over samples. A file may be used as requests and as training data: in a conversation that ends with the
    user the earlier answers are learned, and the last question is only a request."""

    end_with_user: int = 0  # samples that `weft generate` answers
    earlier_answers: int = 0  # learned ones in those
    unlearned_answers: int = 0  # that say "learn": false
    nothing_to_learn: int = 0  # samples that training refuses or leaves out

    def add(self, sample: Conversation | Facts) -> None:
        facts = facts_of(sample)
        self.count(facts.answers, facts.learned, facts.ends_with_user)

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

    def add(self, sample: Conversation | Facts) -> None:
        facts = facts_of(sample)
        tasks, languages = self.tasks, self.languages
        for task in facts.asked:
            if task is None:
                tasks[""] += 1
                continue
            tasks[task.name] += 1
            if fields := task.fields:
                for key in ("language", "to"):
                    if key in fields:
                        languages[fields[key] or "to predict"] += 1
        self.images += len(facts.images)
        self.clips += len(facts.clips)
        if facts.boxes:
            self.boxes += facts.boxes
        if facts.words:
            self.words += facts.words
        self.samples += 1
        self.messages += len(facts.messages)
        self.turns.append(facts.answers)
        self.learnable.count(facts.answers, facts.learned, facts.ends_with_user)


def facts_of(sample: Conversation | Facts) -> Facts:
    """What is counted of a sample, however it was read."""
    if type(sample) is Facts:
        return sample
    learn = [message.learn for message in sample.messages if message.role == "assistant"]
    facts = Facts(sample.id, sample.messages, len(learn), sum(learn), sample.messages[-1].role != "assistant")
    found: dict[str, list[Any]] = {name: [] for name in ("asked", "images", "clips", "boxes", "words", "ends", "thin")}
    message: Any
    for m, message in enumerate(sample.messages):
        task, boxes, words = None, -1, -1
        for i, part in enumerate(message.parts):
            kind = type(part).__name__
            if kind == "Image":
                found["images"].append((part.source, m, i))
            elif kind == "Audio":
                found["clips"].append((part.source, m, i))
            elif kind == "Task":
                task = part
            elif kind == "Box":
                boxes = max(boxes, 0) + len(part.boxes)
                found["thin"] += [(m, i, thin) for thin in without_area(part.boxes)]
            elif kind == "Words":
                words = max(words, 0) + len(part.words)
                if part.words:
                    found["ends"].append((part.audio or 0, max(word.end for word in part.words), m, i))
        if message.role == "user":
            found["asked"].append(task)
        elif message.role == "assistant":
            found["boxes"] += [boxes] * (boxes >= 0)
            found["words"] += [words] * (words >= 0)
    for name, values in found.items():
        setattr(facts, name, values)
    return facts
