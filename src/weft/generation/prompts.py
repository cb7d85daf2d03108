"""Conversations to prompts, and generated ids to answers: all that asking a model needs but its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from weft.conversation import Conversation, WeftError
from weft.generation.answer import Answer
from weft.generation.windows import WindowPrompt, split_transcription
from weft.models.encoding import Encoded
from weft.models.processing import WeftProcessor
from weft.named import Named

SPOKEN = Named[Any]({"written": "weft.generation.spoken:Written"})  # turns that are written down before they are asked


class Prompts:
    """``config``: a `WeftConfig`. ``ends``: the ids of its generation configuration that end an answer, beside those of
    the dialect and the tokenizer's end of text. ``held``: the most positions that whoever generates has room for, where
    that is not the model's own number."""

    def __init__(
        self, config: Any, processor: WeftProcessor, ends: int | list[int] | None = None, held: int | None = None
    ) -> None:
        self.processor = processor
        self._config, self._held = config, held
        listed = ends if isinstance(ends, list) else [ends]
        sound, spoken = config.audio_section, getattr(processor.dialect.switches, "spoken", "heard")
        self.written: Any = SPOKEN[spoken](sound.sample_rate) if sound is not None and spoken in SPOKEN else None
        self.stop = frozenset([*processor.stop_ids, *(i for i in listed if i is not None)])

    def prepare(self, conversation: Conversation) -> Encoded:
        """The prompt that asks a conversation, or a window of it, its media decoded.

        Raises `WeftError` where nothing is asked, the model lacks a sense, or no token of an answer would fit.
        """
        self.check_asked(conversation)
        return self.fits(self.processor.encode(conversation, generate=True), conversation, 1)

    def windows(self, conversation: Conversation) -> list[WindowPrompt] | None:
        """The windows that a clip is heard in one by one, where it is longer than one and a transcript is asked."""
        section = self._config.audio_section
        if section is None:
            return None
        return split_transcription(conversation, section.sample_rate, section.window_seconds)

    def answer(self, conversation: Conversation, encoded: Any, kind: Callable[..., Answer] = Answer) -> Answer:
        """What makes text and parts of the ids generated for an encoded prompt."""
        return kind(self.processor, self.stop, conversation, _window_count(encoded))

    @property
    def context(self) -> int | None:
        """The most positions the language model was made for; None where its position scheme grows with the prompt."""
        if self._held is not None:
            return self._held
        text = self._config.get_text_config()
        scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
        if getattr(text, "use_dynamic_ntk", False) or "dynamic" in str(scaling.get("rope_type", "")):
            return None
        return getattr(text, "max_position_embeddings", None)

    def room(self, encoded: Any, wanted: int) -> int:
        """How many tokens an answer to this prompt may have, where so many are wanted."""
        return wanted if self.context is None else min(wanted, self.context - len(encoded.input_ids))

    def check_asked(self, conversation: Conversation) -> None:
        """Raises `WeftError` where nothing is asked."""
        if not conversation.messages or conversation.messages[-1].role != "user":
            raise WeftError(f"{_called(conversation)} does not end with a user message, so nothing is asked")

    def fits(self, encoded: Encoded, conversation: Conversation, room: int) -> Encoded:
        """The prompt; raises `WeftError` where the model does not hold it and ``room`` tokens more."""
        length = len(encoded.input_ids)
        if self.context is not None and length + room > self.context:
            raise WeftError(
                f"{_called(conversation)} is {length} tokens long and the model holds {self.context}, "
                f"the answer included; shorten it or give fewer images or less sound"
            )
        return encoded


def _called(conversation: Conversation) -> str:
    return f"the conversation {conversation.id!r}" if conversation.id else "the conversation"


def _window_count(encoded: Any) -> int:
    """Windows of the clip that was split into most; 1 where none was."""
    counts = Counter(span.item for span in encoded.spans if span.modality == "audio")
    return max(counts.values(), default=1)
