"""What 0.1.0 wrote, read as it is written now.

What it taught models from nothing stood among a stage's own fields, and it filled every clip of a published Whisper up.
"""

from __future__ import annotations

import re
from typing import Any

from weft.models import doors

PATH = re.compile(r"^(stages\.\d+(?:\.mixture\.\d+)?)\.(?:augment\.)?(listen|near|balance|ease|converse)\b")


def path_now(path: str) -> str:
    """A path in a recipe, such as ``stages.0.listen.first``, as it is called now."""
    return PATH.sub(r"\1.lessons.\2", path)


def recipe_now(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a run as plain data. Raises `WeftError` where the source of its sound encoder cannot be read."""
    for stage in recipe["stages"]:
        stage.setdefault("even_rows", False)  # another plan would give it samples twice
    audio = recipe["model"]["audio"] or {}
    if "lessons" not in recipe["stages"][0] and (source := audio.get("source")):
        kind = audio["kind"] or doors.read_json(source, "config.json").get("model_type")
        audio["options"] = ({"pad_to_window": True} if kind == "whisper" else {}) | audio["options"]
    return recipe


def stage_now(stage: Any) -> Any:
    """A stage as plain data, with its lessons where they stand now."""
    if not isinstance(stage, dict):
        return stage
    old = {name: stage[name] for name in ("listen", "balance", "near") if name in stage}
    stage = {name: value for name, value in stage.items() if name not in old}
    if moved := _take_out(stage):
        old |= moved
    stage["mixture"] = [dict(source) if isinstance(source, dict) else source for source in stage.get("mixture", ())]
    for source in stage["mixture"]:
        own = _take_out(source) if isinstance(source, dict) else None
        if own is not None and (own or old):
            source["lessons"] = own  # none of the stage's
    asked = {name: value for name, value in old.items() if (any(value.values()) if isinstance(value, dict) else value)}
    return {**stage, "lessons": {**stage.get("lessons", {}), **asked}} if old else stage


def _take_out(place: dict[str, Any]) -> dict[str, Any] | None:
    """The lessons in the augmentation of a stage or source, taken out of it; None where it has no augmentation."""
    augment = place.get("augment")
    if not isinstance(augment, dict):
        return None
    place["augment"] = {name: value for name, value in augment.items() if name not in ("ease", "converse")}
    return {name: value for name, value in augment.items() if name in ("ease", "converse") and value}
