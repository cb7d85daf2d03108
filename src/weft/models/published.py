"""The sizes of published encoders and language models by hub name, so that a recipe can be measured without a network.

Training reads none of this: there the source's own files count. `weft show` of a recipe that names a model which is not
listed in `published.toml` reads that model's configuration from the hub.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weft.models.encoders import SOUNDS
from weft.named import beside

_TABLE = beside(__file__)


def listed(part: str) -> dict[str, dict[str, Any]]:
    """What the table has of a part ("language", "vision", "audio") by hub name, each with its whole ``config``."""
    family = _TABLE["family"]
    entries = [{**e, "config": {**family.get(e.get("family"), {}), **e.get("config", {})}} for e in _TABLE[part]]
    return {name: entry for entry in entries for name in entry["names"]}


def outline(part: str, asked: dict[str, Any], wanted: Iterable[str] = ()) -> dict[str, Any]:
    """What `compose` is asked for of a part, with the shapes of a listed source in its place.

    ``wanted``: the special tokens that the dialect writes. A language model's table has at least a row for each, 64 at
    a time.
    """
    found = listed(part).get(asked.get("source", ""))
    if found is None:
        return asked
    rest, config = {key: value for key, value in asked.items() if key != "source"}, found["config"]
    if part == "language":
        tokens, rows = found["tokens"] + len(set(wanted) - set(found["specials"])), config["vocab_size"]
        return {"config": {**config, "vocab_size": rows if rows >= tokens else -(-tokens // 64) * 64}}
    kind = asked.get("kind") or found["kind"]
    if part == "audio":
        rest["options"] = {**SOUNDS[kind].published(config, {}), **asked.get("options", {})}
    return {**rest, "kind": kind, "config": config}
