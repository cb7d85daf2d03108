"""LLaSM's format (LinkSoul-AI/LLaSM at 3443b79, infer_tokenize.py): Llama-2 turns with the system block twice.

    SYSTEM<s>[INST] SYSTEM<au_start>...<au_end> [/INST] ANSWER </s>

where SYSTEM is ``<<SYS>>\\n...\\n<</SYS>>\\n\\n``. Its first copy, before ``<s>``, is what the published
Chinese-Llama-2 weights were used with; the paper describes one block (`template="plain"`). The Baichuan weights have a
form of their own: system text, ``USER:``, content, ``ASSISTANT:``, each tokenised apart. A clip alone is a question
that is spoken: it needs no words beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from weft.conversation import Audio, Conversation, Message, Task, Text, Words
from weft.dialects.base import LlamaDialect, Piece, Plain, Slot, Special, Switches, cannot, join_words

SYSTEM = (
    "You are a helpful language and speech assistant. You are able to understand the speech content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
# The paper's simple instructions for its first stage (arXiv 2308.15930); it put one before or after the clip.
INSTRUCTIONS = (
    "Transcribe the following speech into text.",
    "Convert the spoken words into written text.",
    "Transform the speech into a written transcript.",
    "Record the oral communication as written text.",
)


class LLaSMSwitches(Switches):
    # Which language model was tuned: they have different prompts.
    family: Literal["chinese_llama2", "baichuan"] = "chinese_llama2"
    # The released code writes the system block before <s> and again after it; "plain" is the paper's single block.
    template: Literal["released", "plain"] = "released"
    # transformers' slow Llama tokenizer swallows the blanks around a clip, its fast one keeps them; infer.py takes the
    # fast one where there is one.
    strip_around_clips: bool = False
    # Which of the published instructions stands for the task "transcribe" where a message has no words.
    instruction: int = Field(0, ge=0, lt=len(INSTRUCTIONS))


class LLaSM(LlamaDialect):
    name = "llasm"
    Switches = LLaSMSwitches
    tasks: ClassVar = frozenset(("transcribe", "question"))
    slots: ClassVar = {"audio": ("<au_patch>", "<au_start>", "<au_end>")}
    untimed = True
    switches: LLaSMSwitches

    # Writing.

    def write(self, conversation: Conversation, generate: bool) -> Iterator[list[Piece]]:
        messages = conversation.messages
        system = messages[0].text if messages and messages[0].role == "system" else SYSTEM
        baichuan, plain = self.switches.family == "baichuan", self.switches.template == "plain"
        block = "" if baichuan else f"<<SYS>>\n{system}\n<</SYS>>\n\n"  # in the first turn only
        begin: list[Piece] = [Special("<s>"), Plain(system)] if baichuan else [] if plain else [Plain(block)]
        clips = 0
        for message in messages:
            pieces, begin = begin, []
            if message.role == "assistant":
                answer = self._answer(message) + ("" if baichuan else " ")
                pieces += [Plain(answer, loss=True, apart=True), Special("</s>", loss=True)]
            elif message.role == "user":
                content = self._content(message, clips, "\n" if plain and not baichuan else " ")
                pieces += self._asked(content, block)
                clips += sum(isinstance(part, Audio) for part in message.parts)
                block = ""
            yield _stripped(pieces) if self.switches.strip_around_clips else pieces

    def _asked(self, content: list[Piece], block: str) -> list[Piece]:
        """A question's turn around its content, the system block in the first one."""
        if self.switches.family == "baichuan":
            if content and isinstance(content[0], Plain):
                content[0] = replace(content[0], apart=True)
            return [Plain("USER:", apart=True), *content, Plain("ASSISTANT:", apart=True)]
        plain = self.switches.template == "plain"
        opening = "[INST]" + block if plain and block else "[INST] " + block
        return [Special("<s>"), Plain(opening), *content, Plain("\n[/INST]\n" if plain else " [/INST] ")]

    def _content(self, message: Message, clips: int, gap: str) -> list[Piece]:
        """Clips and words in their order; ``gap`` sets an instruction of ours apart from the clip."""
        content: list[Piece] = []
        worded = any(isinstance(part, Text) and part.text.strip() for part in message.parts)
        for part in message.parts:
            if isinstance(part, Audio):
                content.append(Slot("audio", clips))
                clips += 1
            elif isinstance(part, Text):
                content.append(Plain(part.text))
        task = message.task
        if task is not None and task.get("timestamps"):
            raise cannot(self, "word times", mark=Words)
        if task is not None and not worded:
            instruction = INSTRUCTIONS[self.switches.instruction]
            if isinstance(message.parts[0], Task):
                return [Plain(instruction + gap), *content]
            return [*content, Plain(gap + instruction)]
        return content

    def _answer(self, message: Message) -> str:
        parts = [p for p in message.parts if isinstance(p, Text | Words)]
        return "".join(p.text if isinstance(p, Text) else join_words([w.text for w in p.words]) for p in parts)


def _stripped(pieces: list[Piece]) -> list[Piece]:
    """Without the blanks at the ends of the texts beside a clip."""
    out = list(pieces)
    for i, piece in enumerate(pieces):
        if not isinstance(piece, Slot):
            continue
        for j, strip in ((i - 1, str.rstrip), (i + 1, str.lstrip)):
            near = out[j] if 0 <= j < len(out) else None
            if isinstance(near, Plain):
                out[j] = replace(near, text=strip(near.text))
    return out
