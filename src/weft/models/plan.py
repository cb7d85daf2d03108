"""What `compose` would make, without its weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig

from weft.models import doors
from weft.models.compose import config_of, language_of, parts_of
from weft.models.config import WeftConfig
from weft.models.processing import WeftProcessor


def plan(
    vision: Any = None, audio: Any = None, language: Any = None, tokenizer: str | None = None, dialect: Any = "chatml"
) -> tuple[WeftConfig, WeftProcessor]:
    """The configuration and processor of what `compose` makes of the same arguments; reads and makes no weights."""
    words, processor, _ = parts_of(vision, audio, language, tokenizer, dialect)
    if words.get("source"):
        text_config = doors.load(AutoConfig, words["source"], "no language model could be read")
        if text_config.vocab_size < len(processor.tokenizer):
            text_config.vocab_size = -(-len(processor.tokenizer) // 64) * 64
    else:
        text_config = language_of(words, processor, torch.float32)[1]
    return config_of(text_config, processor), processor
