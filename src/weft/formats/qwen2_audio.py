"""A published Qwen2-Audio folder (Qwen/Qwen2-Audio-7B-Instruct), which is one of `transformers`, as a weft folder.

Facts and their source: `transformers`' `Qwen2AudioForConditionalGeneration` and its processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from transformers import Qwen2AudioConfig

from weft.formats.checkpoints import CheckpointError, check_out, read_folder, read_json
from weft.formats.export_qwen2_audio import RULES
from weft.formats.folder import Imported, Writing, write_folder
from weft.formats.mapping import Input, read, wanted_by
from weft.formats.tokenizers import own_tokenizer
from weft.models.config import AudioSection, Connector, DialectSection, WeftConfig
from weft.models.preparation import check_sound, prepared, tower_settings

CLIP, END, PAD = "<|AUDIO|>", "<|im_end|>", "<|endoftext|>"


def import_qwen2_audio(checkpoint: Path, out: Path, dtype: str = "auto", **writing: Unpack[Writing]) -> Imported:
    """Reads the folder and writes ``out``; returns what was read. Raises `WeftError` where it does not fit."""
    check_out(out, writing.get("force", False))
    raw = read_json(checkpoint / "config.json")
    if raw.get("model_type") != "qwen2_audio":
        kind = f"model_type is {raw.get('model_type')!r}, expected 'qwen2_audio'"
        raise CheckpointError(f"{checkpoint / 'config.json'}: {kind}")
    theirs: Any = Qwen2AudioConfig.from_dict(raw)
    tokenizer = own_tokenizer(checkpoint, CLIP, theirs.audio_token_index)
    tower = tower_settings(theirs.audio_config)
    check_sound(prepared(str(checkpoint), "feature_extractor"), tower, str(checkpoint))
    config = WeftConfig(
        text_config=theirs.text_config,
        audio=AudioSection(
            kind="qwen2_audio",
            config=tower,
            window_seconds=theirs.audio_config.max_source_positions / 50,
            connector=Connector(kind="linear"),
        ),
        dialect=DialectSection(name="qwen2_audio"),
        audio_token_id=theirs.audio_token_index,
    )
    weights = read_folder(checkpoint)
    outputs = read(wanted_by(config), [Input(weights, RULES)])
    names = {"eos": END, "pad": PAD}
    return write_folder(
        out, config, outputs, [weights], tokenizer, names, {"max_new_tokens": 512}, dtype=dtype, **writing
    )
