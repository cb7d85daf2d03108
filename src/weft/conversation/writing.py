"""Conversations out: JSON Lines, one a line, and the part lists that programs read.

What is written here is read back by `samples` as it was.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from weft.conversation.errors import WeftError
from weft.conversation.types import Audio, Box, Conversation, Image, MediaSource, Part, Task, Text, Words
from weft.files import whole_file


def dump_parts(parts: Iterable[Part], *, root: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """Parts as JSON-ready data in the sample format. ``root``: paths are written relative to this folder."""
    return [_dump(part, root) for part in parts]


def dump_sample(conversation: Conversation, *, root: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """A conversation as JSON-ready data: what `parse_sample` reads back as an equal conversation."""
    messages = []
    for message in conversation.messages:
        only = message.parts[0] if len(message.parts) == 1 else None
        content = only.text if isinstance(only, Text) else dump_parts(message.parts, root=root)
        written = {"role": message.role, "content": content}
        messages.append(written if message.learn else written | {"learn": False})
    return {"messages": messages} if conversation.id is None else {"id": conversation.id, "messages": messages}


def write_samples(path: str | os.PathLike[str], conversations: Iterable[Conversation]) -> int:
    """Writes a sample file, media paths relative to it, and gives the number of samples.

    The file appears whole or not at all.
    """
    count = 0
    with whole_file(path) as file:
        for conversation in conversations:
            sample = dump_sample(conversation, root=Path(path).parent)
            file.write(json.dumps(sample, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _dump(part: Part, root: str | os.PathLike[str] | None) -> dict[str, Any]:
    out: dict[str, Any]
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(source):
            return {"type": "image", "image": _dump_source(source, "image", root)}
        case Audio(source, said):
            out = {"type": "audio", "audio": _dump_source(source, "audio", root)}
            return out | ({} if said is None else {"transcript": said})
        case Task(name, fields):
            return {"type": "task", "task": name, **fields}
        case Box(boxes, label, image):
            out = {"type": "box", "boxes": [list(b) for b in boxes]}
            return out | ({} if label is None else {"label": label}) | ({} if image is None else {"image": image})
        case Words(words, audio):
            out = {"type": "words", "words": [{"text": w.text, "start": w.start, "end": w.end} for w in words]}
            return out | ({} if audio is None else {"audio": audio})
    raise TypeError(f"not a part: {part!r}")


def _dump_source(source: MediaSource, kind: str, root: str | os.PathLike[str] | None) -> str:
    if isinstance(source, bytes | bytearray):
        return f"data:{kind}/*;base64,{base64.b64encode(source).decode()}"
    if not isinstance(source, str | os.PathLike):
        raise WeftError(
            f"{'an image' if kind == 'image' else 'a clip'} that is only in memory has no place in a sample file: "
            "save it and give its path"
        )
    path = os.fspath(source)
    return path if root is None or path.startswith("data:") else os.path.relpath(path, root)
