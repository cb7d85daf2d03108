"""Prompt formats, one file each. A dialect knows text only: no tokenizer, no model, no files."""

from typing import Any

from weft.dialects.base import Dialect, DialectError, Modality, Piece, Plain, Slot, Special, Spot, Switches, plain_text
from weft.named import Named

DIALECTS = Named[type[Dialect]](
    {
        "chatml": "weft.dialects.chatml:ChatML",
        "minigpt_v2": "weft.dialects.minigpt_v2:MiniGPTv2",
        "llasm": "weft.dialects.llasm:LLaSM",
        "qwen_audio": "weft.dialects.qwen_audio:QwenAudio",
        "llava": "weft.dialects.llava:LLaVA",
        "internvl": "weft.dialects.internvl:InternVL",
        "qwen2_audio": "weft.dialects.qwen2_audio:Qwen2Audio",
    }
)


def get_dialect(name: str, switches: dict[str, Any] | None = None) -> Dialect:
    """The dialect called ``name`` with its switches set; unknown names and switches are a `DialectError`."""
    if name not in DIALECTS:
        raise DialectError(f"there is no dialect {name!r}; there are {', '.join(DIALECTS)}")
    kind = DIALECTS[name]
    unknown = sorted(set(switches or {}) - set(kind.Switches.model_fields))
    if unknown:
        known = ", ".join(kind.Switches.model_fields)
        raise DialectError(f"the dialect {name} has no switch {unknown[0]!r}; it has {known}")
    try:
        return kind(kind.Switches.model_validate(switches or {}))
    except ValueError as error:
        first = str(error).replace("\n", " ")
        raise DialectError(f"a switch of the dialect {name} has a value it cannot take: {first}") from error
