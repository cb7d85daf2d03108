"""Qwen2-Audio's chat format (`Qwen2AudioProcessor`'s template): ChatML turns, clips numbered over the conversation.

    <|im_start|>system
    You are a helpful assistant.<|im_end|>
    <|im_start|>user
    Audio 1: <|audio_bos|><|AUDIO|>...<|audio_eos|>
    What is that sound?<|im_end|>
    <|im_start|>assistant
    A dog.<|im_end|>

Tasks are asked in words, those of `chatml`: the published ones are not known beyond a few.
"""

from __future__ import annotations

from typing import ClassVar

from weft.dialects.base import Piece, Plain, Slot
from weft.dialects.chatml import WORDINGS
from weft.dialects.turns import Turns, TurnSwitches

ASKED = ("transcribe", "translate", "caption", "question", "emotion", "vocal_sound", "scene", "event", "note", "music")


class Qwen2AudioSwitches(TurnSwitches):
    system: str | None = "You are a helpful assistant."


class Qwen2Audio(Turns):
    name = "qwen2_audio"
    Switches = Qwen2AudioSwitches
    wordings: ClassVar = {task: WORDINGS[task] for task in (*ASKED, "speaker", "entities")}
    tasks: ClassVar = frozenset(wordings)
    slots: ClassVar = {"audio": ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")}

    def medium(self, slot: Slot) -> list[Piece]:
        return [Plain(f"Audio {slot.index + 1}: "), slot, Plain("\n")]
