"""LLaVA-1.5's format (haotian-liu/LLaVA, `conv_vicuna_v1` in conversation.py): turns in plain words.

    <s>A chat between ... questions. USER: <image>
    What is this? ASSISTANT: A cup.</s>USER: And its colour? ASSISTANT:

A message's images come first, each with a line end, then its words. The text between images and special tokens is
tokenised apart, so with Llama's SentencePiece tokenizer each stretch begins with its dummy prefix; the space before
an answer is that prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from weft.conversation import Conversation, Image, Message, Text
from weft.dialects.base import LlamaDialect, Piece, Plain, Slot, Special, Switches

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ROLES = {"user": "USER:", "assistant": "ASSISTANT:"}
# The response-format prompts that it was trained with (arXiv 2310.03744, table 7).
SHORT_ANSWER = "Answer the question using a single word or phrase."
CAPTION = "Provide a one-sentence caption for the provided image."


class LLaVASwitches(Switches):
    # "vicuna_v1" is what the released code writes. "hf" is the chat template of the `transformers` conversions
    # (llava-hf): no system text unless one is given, and earlier answers end with a space instead of </s>.
    template: Literal["vicuna_v1", "hf"] = "vicuna_v1"


class LLaVA(LlamaDialect):
    name = "llava"
    Switches = LLaVASwitches
    tasks: ClassVar = frozenset(("vqa", "caption"))
    slots: ClassVar = {"image": ("<image>", None, None)}
    switches: LLaVASwitches

    # Writing.

    def write(self, conversation: Conversation, generate: bool) -> Iterator[list[Piece]]:
        pieces: list[Piece] = [Special("<s>")]
        messages = conversation.messages
        if self.switches.template == "vicuna_v1" and not any(m.role == "system" for m in messages):
            pieces.append(Plain(f"{SYSTEM} "))
        shown = 0
        for number, message in enumerate(messages, start=1):
            if message.role == "system":
                pieces.append(Plain(f"{message.text} "))
            elif message.role == "user":
                pieces += self._request(message, shown)
                shown += sum(isinstance(part, Image) for part in message.parts)
            else:
                pieces += [Plain(ROLES["assistant"]), Plain(message.text, loss=True, apart=True)]
                if self.switches.template == "vicuna_v1" or number == len(messages):
                    pieces.append(Special("</s>", loss=True))
            yield pieces
            pieces = []
        if generate:
            yield [Plain(ROLES["assistant"])]

    def _request(self, message: Message, shown: int) -> list[Piece]:
        pieces: list[Piece] = [Plain(f"{ROLES['user']} ")]
        texts: list[str] = []
        for part in message.parts:
            if isinstance(part, Image):
                pieces += [Slot("image", shown), Plain("\n")]
                shown += 1
            elif isinstance(part, Text):
                texts.append(part.text)
        task = message.task
        if task is not None and task.name == "vqa":
            texts = [*texts[:-1], "\n".join([*texts[-1:], SHORT_ANSWER])]
        elif task is not None and not any(text.strip() for text in texts):
            texts = [CAPTION]
        return [*pieces, *(Plain(f"{text} ") for text in texts)]
