"""Qwen2-Audio's encoder: Qwen-Audio's, heard a little further."""

from __future__ import annotations

from typing import ClassVar

from transformers import Qwen2AudioEncoder

from weft.media.mel import HOP
from weft.models.encoders.whisper import QwenAudio


class Qwen2Audio(QwenAudio):
    """Qwen2-Audio feeds clips with silence up to the window, and cuts the features off behind its layers: where a clip
    ends, one frame of silence is heard. A frame that a clip has begun counts as its own."""

    sources: ClassVar = {"qwen2_audio": "audio_config", "qwen2_audio_encoder": None}
    source_class, source_prefix = Qwen2AudioEncoder, ""
    renames: ClassVar = {r"^(model\.)?audio_tower\.": ""}
    leaks, silence = False, True

    def own(self, samples: int) -> int:
        return -(-samples // HOP)
