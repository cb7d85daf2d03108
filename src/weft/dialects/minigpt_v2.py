"""MiniGPT-v2's format (Vision-CAIR/MiniGPT-4 at d94738a): Llama-2 turns, a task identifier, boxes as plain text.

    <s><s>[INST] <Img><ImageHere></Img> [refer] the red cup [/INST]{<12><30><18><36>}</s>

Everything but ``<s>``, ``</s>`` and the image's place is ordinary text, `<Img>`, `[refer]` and boxes included. A prompt
is tokenised in segments, split at the images, at ``<s>`` and before each answer; with Llama's SentencePiece tokenizer
each segment begins with its dummy prefix. Box coordinates are whole percents, cut off and not rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from weft.conversation import Box, Conversation, Image, Message, Part, Task, Text
from weft.dialects.base import DialectError, LlamaDialect, Piece, Plain, Slot, Special, Switches, asked, asked_label

# Identifiers are plain text of three to five tokens.
IDENTIFIERS = {
    "vqa": "[vqa]",
    "caption": "[caption]",
    "grounded_caption": "[grounding]",
    "refer": "[refer]",
    "identify": "[identify]",
    "detection": "[detection]",
}
# One of the instructions that each task was trained with, for requests that bring no words of their own.
INSTRUCTIONS = {
    "caption": "Briefly describe this image.",
    "grounded_caption": "please describe this image in details",
}


class MiniGPTv2Switches(Switches):
    # The released inference writes <s> and lets the tokenizer add another one; training has one.
    doubled_bos: bool = True
    # The released training sets append a space to every instruction, so that training prompts end in two spaces and
    # those of the evaluation in one; off, a fine-tuned model is asked as it was trained.
    training_space: bool = False
    # What ends an answer in training; a text other than </s> is tokenised together with the answer.
    end_symbol: str = "</s>"
    # The released demo overwrites every stored answer with </s>: later turns never see what was answered.
    forget_answers: bool = False
    # Give a task without words one of its published instructions; off, the identifier stands alone.
    instructions: bool = False


class MiniGPTv2(LlamaDialect):
    name = "minigpt_v2"
    Switches = MiniGPTv2Switches
    tasks: ClassVar = frozenset(IDENTIFIERS)
    slots: ClassVar = {"image": ("<ImageHere>", None, None)}
    marks: ClassVar = frozenset((Box,))
    switches: MiniGPTv2Switches

    # Writing.

    def write(self, conversation: Conversation, generate: bool) -> Iterator[list[Piece]]:
        begin: list[Piece] = [Special("<s>")] * (2 if generate and self.switches.doubled_bos else 1)
        question: Message | None = None
        shown = 0
        for message in conversation.messages:
            if message.role == "system":
                # The released templates have an empty system text, put between the two <s>.
                yield [begin[0], Plain(message.text), *begin[1:]]
                begin = []
                continue
            if message.role == "assistant":
                forget = generate and self.switches.forget_answers
                yield [*begin, *self._answer(message, question, shown, forget=forget)]
            else:
                space = " " if self.switches.training_space and not generate else ""
                content = self._request(message, shown)
                yield [*begin, Plain("[INST] "), *content, Plain(f"{space} [/INST]")]
                shown += sum(isinstance(part, Image) for part in message.parts)
                question = message
            begin = [] if message.role == "user" else [Special("<s>")]

    def _request(self, message: Message, shown: int) -> list[Piece]:
        """The parts of a user's message, with the identifier after the images it begins with."""
        task = message.task
        identifier = f"{IDENTIFIERS[task.name]} " if task else ""
        if task and self.switches.instructions and not any(isinstance(p, Text | Box) for p in message.parts):
            identifier += INSTRUCTIONS.get(task.name, "")
        content: list[Piece] = []
        written = ""  # what stands before, to set pieces apart by one space
        for part in message.parts:
            if isinstance(part, Task):
                continue
            if isinstance(part, Image):
                gap = " " if written and not written[-1].isspace() else ""
                content += [Plain(f"{gap}<Img>"), Slot("image", shown), Plain("</Img> ")]
                shown += 1
                written = " "
                continue
            if identifier:
                content.append(Plain(identifier))
                written, identifier = identifier, ""
            if isinstance(part, Box):
                gap = " " if written and not written[-1].isspace() else ""
                text = gap + self._box(part, None, shown)
            else:
                text = part.text if isinstance(part, Text) else ""
            content.append(Plain(text))
            written = text or written
        if identifier:
            content.append(Plain(identifier))
        return content

    def _answer(self, message: Message, question: Message | None, shown: int, *, forget: bool) -> list[Piece]:
        label = asked_label(question)
        parts = () if forget else message.parts
        said = [
            self._box(p, label, shown) if isinstance(p, Box) else p.text for p in parts if isinstance(p, Box | Text)
        ]
        text = "".join(said)
        if self.switches.end_symbol == "</s>":
            return [Plain(text, loss=True, apart=True), Special("</s>", loss=True)]
        return [Plain(text + self.switches.end_symbol, loss=True, apart=True)]

    def _box(self, box: Box, label: str | None, shown: int) -> str:
        if box.image is not None and box.image != shown - 1:
            raise DialectError(
                f"the dialect {self.name} cannot say which of {shown} images a box is in: it means the last one shown, "
                f"not image {box.image}; ask about one image a conversation, or use the dialect chatml"
            )
        boxes = "<delim>".join("{" + "".join(f"<{_percent(value)}>" for value in b) + "}" for b in box.boxes)
        return boxes if box.label is None or box.label == label else f"<p>{box.label}</p> {boxes}"

    # Reading.

    def parse(self, text: str, conversation: Conversation) -> list[Part]:
        label = asked_label(asked(conversation))
        last = len(conversation.images) - 1
        parts: list[Part] = []
        end = 0
        for match in _BOXES.finditer(text):
            boxes = tuple(
                (int(a) / 100, int(b) / 100, int(c) / 100, int(d) / 100) for a, b, c, d in _BOX.findall(match["boxes"])
            )
            if any(b[0] > b[2] or b[1] > b[3] or max(b) > 1 for b in boxes):
                continue  # no box of an image: stays text
            _add_text(parts, text[end : match.start()])
            parts.append(Box(boxes, match["label"] or label, last if last >= 0 else None))
            end = match.end()
        _add_text(parts, text[end:])
        return parts

    def malformed(self, text: str, conversation: Conversation) -> list[str]:
        left = [part.text for part in self.parse(text, conversation) if isinstance(part, Text)]
        return [found[0].strip() for piece in left for found in _ODD.finditer(piece)]


_BOX = re.compile(r"\{<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>\}")
_ONE = r"\{(?:<\d{1,3}>){4}\}"
_ODD = re.compile(r"<p>[^<{]*(?:</p>)?(?:\s*\{<[<>\d\s]*\}?)?|\{<[<>\d\s]*\}?|<delim>|</p>")
_BOXES = re.compile(rf"(?:<p>(?P<label>(?:(?!</?p>).)+)</p>\s*)?(?P<boxes>{_ONE}(?:<delim>{_ONE})*)", re.DOTALL)


def _percent(value: float) -> int:
    # Cut off as the released datasets do. The small amount keeps 0.29, which is 28.999... percent in binary, at 29.
    return int(value * 100 + 1e-9)


def _add_text(parts: list[Part], text: str) -> None:
    text = text if parts else text.lstrip()
    if text.strip():
        parts.append(Text(text))
