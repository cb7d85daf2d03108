"""Qwen2-Audio (arXiv 2407.10759): Qwen-Audio's parts, with tasks asked in words, and the language model learning too.

[P]: the paper. It gives no sets, rates or steps: those of `qwen_audio` stand here, less what its dialect cannot write
(times). Its third stage, preference tuning, is not weft's.
"""

from __future__ import annotations

from typing import Literal

import weft.recipes.qwen_audio as first
from weft.models.config import DialectSection
from weft.recipes.datasets import play
from weft.recipes.tiny import rehearsal
from weft.training.recipe import FULL, ModelSpec, Recipe, TowerSource

# Whisper-large-v3, its output averaged in pairs, and Qwen-7B [P].
MODEL = ModelSpec(
    audio=TowerSource(source="openai/whisper-large-v3", kind="qwen2_audio", connector=first.PROJECTION),
    language=first.MODEL.language,
    dialect=DialectSection(name="qwen2_audio"),
)
TINY_TOWER = TowerSource(
    kind="qwen2_audio", config=first.TINY.audio.config if first.TINY.audio else None, connector=first.PROJECTION
)
TINY = first.TINY.model_copy(update={"audio": TINY_TOWER, "dialect": MODEL.dialect})
TIMES = {"word_times_en", "word_times_zh", "sound_location"}
TASKS = ("transcribe", "translate", "sound_caption", "event", "question", "emotion", "speaker", "scene", "music")


def qwen2_audio(size: Literal["full", "tiny"] = "full") -> Recipe:
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
    recipe = base.model_copy(update={"name": "qwen2_audio", "model": MODEL, "stages": tuple(stages)})
    if size == "full":
        return recipe
    return rehearsal(recipe, TINY, (tuple(map(play, TASKS)), (play("sound_conversation"), play("text"))))
