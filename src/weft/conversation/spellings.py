"""Media parts as other APIs spell them, in weft's own spelling: type and part, which may still be wrong."""

from __future__ import annotations

from typing import Any

from weft.conversation.checks import Mistake, show

Spelt = tuple[str, dict[str, Any]]


def address(raw: dict[str, Any]) -> Spelt:
    """OpenAI's ``image_url``, and ``audio_url``."""
    kind = raw["type"]
    inner = raw.get(kind)
    url = inner.get("url") if isinstance(inner, dict) else inner
    if not isinstance(url, str) or raw.keys() != {"type", kind}:
        raise Mistake(f'must be {{"url": ...}}, this is {show(inner)}', kind)
    own = kind.removesuffix("_url")
    return own, {"type": own, own: url}


def sound(raw: dict[str, Any]) -> Spelt:
    """OpenAI's ``input_audio``."""
    inner = raw.get("input_audio")
    if not isinstance(inner, dict) or not isinstance(inner.get("data"), str) or raw.keys() != {"type", "input_audio"}:
        raise Mistake('must be {"data": base64, "format": ...}, this is ' + show(inner), "input_audio")
    data, form = inner["data"], inner.get("format", "wav")
    url = data if data.startswith("data:") else f"data:audio/{form};base64,{data}"
    return "audio", {"type": "audio", "audio": url}


def medium(raw: dict[str, Any]) -> Spelt:
    """``url``, ``path`` or ``base64`` as in transformers, and a clip as `datasets` gives it."""
    kind = raw["type"]
    if kind in raw:
        clip = raw[kind] if kind == "audio" else None
        if isinstance(clip, dict) and {"array", "sampling_rate"} <= clip.keys():
            return kind, {**raw, "audio": (clip["array"], int(clip["sampling_rate"]))}
        return kind, raw
    given = [k for k in ("url", "path", "base64") if k in raw]
    if len(given) != 1 or raw.keys() != {"type", given[0]}:
        return kind, raw
    value = raw[given[0]]
    if given[0] == "base64" and isinstance(value, str) and not value.startswith("data:"):
        value = f"data:{kind}/*;base64,{value}"
    return kind, {"type": kind, kind: value}
