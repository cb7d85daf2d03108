"""InternVL's format (OpenGVLab/InternVL, `internvl2_5` in conversation.py): ChatML turns, boxes in thousandths.

    <|im_start|>user
    <img><IMG_CONTEXT>...</img>
    Please provide the bounding box coordinates of the region this sentence describes: <ref>the red cup</ref><|im_end|>
    <|im_start|>assistant
    <ref>the red cup</ref><box>[[120, 300, 180, 360]]</box><|im_end|>

All views of a picture stand between one pair of tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from weft.conversation import Box, Conversation, Part, Task, Text
from weft.dialects.base import Modality, Piece, Plain, Slot, Special, asked, asked_label, cannot
from weft.dialects.turns import Turns, TurnSwitches

# What the released code begins with; the conversions for `transformers` begin with no system message.
SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
SHORT_ANSWER = "Answer the question using a single word or phrase."
WORDINGS = {  # the prompts of the published evaluation
    "vqa": (SHORT_ANSWER, f"{{text}}\n{SHORT_ANSWER}"),
    "caption": ("Provide a one-sentence caption for the provided image.", "{text}"),
    "refer": (
        "Please provide the bounding box coordinates of the region this sentence describes.",
        "Please provide the bounding box coordinates of the region this sentence describes: {text}",
    ),
}
TAGS = ("<ref>", "</ref>", "<box>", "</box>")
_BOX = r"\[\s*\d+(?:\s*,\s*\d+){3}\s*\]"
_BOXES = re.compile(
    rf"(?:<ref>(?P<label>[^<]*)</ref>)?\s*<box>\s*\[\s*(?P<boxes>{_BOX}(?:\s*,\s*{_BOX})*)\s*\]\s*</box>"
)


class InternVLSwitches(TurnSwitches):
    system: str | None = SYSTEM


class InternVL(Turns):
    name = "internvl"
    Switches = InternVLSwitches
    wordings: ClassVar = WORDINGS
    tasks: ClassVar = frozenset(WORDINGS)
    slots: ClassVar = {"image": ("<IMG_CONTEXT>", "<img>", "</img>")}
    marks: ClassVar = frozenset((Box,))

    def special_tokens(self) -> list[str]:
        return [*super().special_tokens(), *TAGS]

    def medium(self, slot: Slot) -> list[Piece]:
        return [slot, Plain("\n")]

    def wording(self, task: Task, text: bool) -> tuple[list[Piece], list[Piece]]:
        before, after = super().wording(task, text)
        refers = task.name == "refer" and text
        return ([*before, Special("<ref>")], [Special("</ref>"), *after]) if refers else (before, after)

    def mark(self, part: Part, label: str | None, total: Mapping[Modality, int]) -> list[Piece]:
        if not isinstance(part, Box) or not part.boxes:
            return super().mark(part, label, total) if not isinstance(part, Box) else self._nothing()
        if part.image is not None and part.image != total["image"] - 1:
            raise cannot(self, f"a box in image {part.image} of {total['image']}: it means the last one shown")
        named = part.label or label
        pieces: list[Piece] = [Special("<ref>"), Plain(named), Special("</ref>")] if named else []
        boxes = ", ".join(str([round(1000 * value) for value in box]) for box in part.boxes)
        return [*pieces, Special("<box>"), Plain(f"[{boxes}]"), Special("</box>")]

    def _nothing(self) -> list[Piece]:
        raise cannot(self, "that there is no such thing: its answers hold a box at least")

    def parse(self, text: str, conversation: Conversation) -> list[Part]:
        label, last = asked_label(asked(conversation)), len(conversation.images) - 1
        parts: list[Part] = []
        end = 0
        for match in _BOXES.finditer(text):
            values = [int(n) / 1000 for n in re.findall(r"\d+", match["boxes"])]
            boxes = tuple(zip(values[::4], values[1::4], values[2::4], values[3::4], strict=True))
            if last < 0 or not all(a <= c <= 1 and b <= d <= 1 for a, b, c, d in boxes):
                continue  # no boxes of an image: stays text
            if text[end : match.start()].strip():
                parts.append(Text(text[end : match.start()]))
            parts.append(Box(boxes, match["label"] or label, last))
            end = match.end()
        return [*parts, Text(text[end:])] if text[end:].strip() else parts

    def malformed(self, text: str, conversation: Conversation) -> list[str]:
        left = [part.text for part in self.parse(text, conversation) if isinstance(part, Text)]
        return [found[0] for piece in left for found in re.finditer(r"</?(?:ref|box)>(?:[^<]*</(?:ref|box)>)?", piece)]
