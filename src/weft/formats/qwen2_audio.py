"""A published Qwen2-Audio folder (Qwen/Qwen2-Audio-7B-Instruct), which is one of `transformers`, as a weft folder.

Facts and their source: `transformers`' `Qwen2AudioForConditionalGeneration` and its processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from transformers import Qwen2AudioConfig

from weft.formats.folder import Imported, Writing
from weft.formats.transformers_folder import LANGUAGE, import_converted, part, tower_settings
from weft.models.config import AudioSection, Connector, DialectSection, WeftConfig
from weft.models.preparation import check_sound, prepared

RULES = (
    *LANGUAGE,
    *part("audio_tower", "audio.tower"),
    *part("multi_modal_projector.linear", "audio_connector.proj"),
)


def import_qwen2_audio(checkpoint: Path, out: Path, dtype: str = "auto", **writing: Unpack[Writing]) -> Imported:
    return import_converted(checkpoint, out, dtype, Qwen2AudioConfig, _config, "<|AUDIO|>", RULES, **writing)


def _config(theirs: Any, folder: Path) -> WeftConfig:
    tower = tower_settings(theirs.audio_config)
    check_sound(prepared(str(folder), "feature_extractor"), tower, str(folder))
    section = AudioSection(
        kind="qwen2_audio",
        config=tower,
        window_seconds=theirs.audio_config.max_source_positions / 50,
        connector=Connector(kind="linear", merge=1),
    )
    dialect = DialectSection(name="qwen2_audio")
    return WeftConfig(
        text_config=theirs.text_config, audio=section, dialect=dialect, audio_token_id=theirs.audio_token_index
    )
