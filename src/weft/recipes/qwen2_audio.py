"""Qwen2-Audio (arXiv 2407.10759): Qwen-Audio's parts, with tasks asked in words, and the language model learning too.

[P]: the paper. It gives no sets, rates or steps: those of `qwen_audio` stand here, less what its dialect cannot write
(times). Its third stage, preference tuning, is not weft's.
"""

from __future__ import annotations

import weft.recipes.qwen_audio as first
from weft.models.sections import DialectSection
from weft.training.recipe import FULL, ModelSpec, Recipe, TowerSource

# Whisper-large-v3, its output averaged in pairs, and Qwen-7B [P].
MODEL = ModelSpec(
    audio=TowerSource(source="openai/whisper-large-v3", kind="qwen2_audio", connector=first.PROJECTION),
    language=first.MODEL.language,
    dialect=DialectSection(name="qwen2_audio"),
)
TIMES = {"word_times_en", "word_times_zh", "sound_location"}


def qwen2_audio() -> Recipe:
    """Two stages, of tasks and of dialogues, in both of which encoder and language model learn (equation 1 [P])."""
    base = first.qwen_audio()
    learned = dict.fromkeys(("audio", "audio_connector", "language"), FULL)
    stages = [
        stage.model_copy(
            update={
                "name": name,
                "parts": learned,
                "mixture": tuple(source for source in stage.mixture if source.name not in TIMES),
            }
        )
        for name, stage in zip(("pretrain", "instructions"), base.stages, strict=True)
    ]
    return base.model_copy(update={"name": "qwen2_audio", "model": MODEL, "stages": tuple(stages)})
