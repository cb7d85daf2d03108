"""ms-swift's data: messages with media tags, and boxes beside them.

Source: docs/source_en/Customization/Custom-dataset.md and swift/llm/template/base.py of modelscope/ms-swift (3.x). The
query-response form is verified on real files; the messages and grounding forms are from documentation, not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from weft.data.converters.base import BadEntry, Job, Part, Read, Sample, boxes, each, get, numbers, text
from weft.data.converters.chats import alpaca, rounds
from weft.data.converters.jsonfile import Entry, entries
from weft.data.converters.tags import Media, conversation, listed, refuse, turns

TAGS = {"<image>": "image", "<audio>": "audio"}
_INLINE = {"image": re.compile(r"<img>(.+?)</img>"), "audio": re.compile(r"<audio>(.+?)</audio>")}
_GROUND = re.compile(r"<ref-object>|<bbox>")
_KEYS = (
    *(
        "id",
        "messages",
        "conversation",
        "conversations",
        "system",
        "query",
        "response",
        "history",
        "instruction",
        "input",
    ),
    *(
        "output",
        "images",
        "image",
        "audios",
        "audio",
        "videos",
        "video",
        "objects",
        "tools",
        "rejected_response",
        "label",
    ),
)


def ms_swift(job: Job) -> Read:
    """ms-swift's JSON Lines; query-response verified on real files, the rest from documentation.

    ``messages``, sharegpt (``conversation`` with ``human`` and ``assistant``), alpaca or
    ``query``/``response``/``history``; ``images`` and ``audios`` where ``<image>`` and ``<audio>`` stand, those without
    a tag in front of the first question (ms-swift's rule); ``<img>path</img>`` in the text. ``objects``: ``ref`` and
    ``bbox`` where ``<ref-object>`` and ``<bbox>`` stand, ``bbox_type`` ``real`` (pixels) or ``norm1`` (fractions),
    ``image_id`` the picture of each box. Boxes side by side are one answer; ``<ref-object>`` before them is their
    label.
    """

    def make(e: Entry) -> Iterator[Sample]:
        entry = e.value
        if not isinstance(entry, dict):
            raise BadEntry("an entry is an object")
        refuse(entry, "videos", "video", "tools", "rejected_response", "label")
        said = _said(entry)
        if any("<video>" in words for role, words in said if role == "user"):
            raise BadEntry("holds video, which weft does not take", reason="video")
        job.ignored(entry, _KEYS)
        lists = {"image": listed(entry, "images", "image"), "audio": listed(entry, "audios", "audio")}
        said = _inline(said, lists)
        media = Media(job, TAGS, lists)
        said = _untagged(media, said)
        objects = _Objects(job, entry.get("objects"), lists["image"])
        made: list[tuple[str, str | list[Part]]] = []
        for role, words in said:
            if role == "assistant" and any(lists[kind] and tag in words for tag, kind in TAGS.items()):
                raise BadEntry("an answer holds a media tag, and weft's answers are text", reason="media in an answer")
            parts: list[Part] = media.split(words) if role == "user" else [text(words)]
            if objects.given and role != "system":
                parts = [
                    p for part in parts for p in (objects.split(part["text"]) if part["type"] == "text" else [part])
                ]
            made.append((role, parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts))
        media.finish()
        objects.finish()
        yield conversation(entry.get("id"), made)

    yield from each(entries(job.path), make)


def _said(entry: dict[str, Any]) -> list[tuple[str, str]]:
    system = entry.get("system")
    head = [("system", system)] if isinstance(system, str) and system else []
    if "messages" in entry:
        said = turns(entry["messages"], "messages")
        return said if said[0][0] == "system" else head + said  # the system turn of the data comes first
    if "conversations" in entry:
        return head + turns(entry["conversations"], "conversations", "from", "value")
    if "conversation" in entry:
        said = []
        for turn in get(entry, "conversation", list):
            said += [("user", get(turn, "human")), ("assistant", get(turn, "assistant"))]
        return head + said
    if "instruction" in entry:
        return head + alpaca(entry)
    if "query" in entry:
        said = [*rounds(entry), ("user", get(entry, "query"))]
        response = entry.get("response")
        return head + said + ([("assistant", response)] if isinstance(response, str) else [])
    raise BadEntry("has none of messages, conversation, instruction and query")


def _inline(said: list[tuple[str, str]], lists: dict[str, list[Any]]) -> list[tuple[str, str]]:
    """Paths written into the user's text (``<img>path</img>``) moved to the lists, where those are empty."""
    for kind, pattern in _INLINE.items():
        if lists[kind]:
            continue
        for i, (role, words) in enumerate(said):
            if role == "user":
                lists[kind] += pattern.findall(words)
                said[i] = role, pattern.sub(f"<{kind}>", words)
    return said


def _untagged(media: Media, said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What has no tag is shown before the first question: ``_add_default_tags`` of ms-swift's template."""
    first = next((i for i, (role, _) in enumerate(said) if role == "user"), None)
    if first is None:
        return said
    front = ""
    for kind in ("image", "audio"):
        front += f"<{kind}>" * (len(media.lists[kind]) - media.count(kind, [words for _, words in said]))
    if front:
        media.job.notes["entries with media that have no tag, shown before the first question"] += 1
    return [*said[:first], ("user", front + said[first][1]), *said[first + 1 :]]


class _Objects:
    """``objects``: phrases and boxes, handed out in the order of their tags."""

    def __init__(self, job: Job, objects: Any, pictures: list[Any]) -> None:
        self.given = bool(objects)
        self.refs: list[str] = []
        self.found: list[Part] = []
        self.said = self.boxed = 0
        if not self.given:
            return
        if not isinstance(objects, dict):
            raise BadEntry("must be an object with ref and bbox", field="objects")
        self.refs = [str(ref) for ref in objects.get("ref") or []]
        raw, unit = objects.get("bbox") or [], objects.get("bbox_type") or "real"
        which = objects.get("image_id") or [0] * len(raw)
        if unit not in ("real", "norm1"):
            raise BadEntry(f"must be real or norm1, this is {unit!r}", field="objects.bbox_type")
        if not isinstance(raw, list) or not isinstance(which, list) or len(which) != len(raw):
            raise BadEntry("must be lists of the same length", field="objects.image_id")
        if raw and not pictures:
            raise BadEntry("has boxes and no picture", field="objects.bbox")
        for i, (box, number) in enumerate(zip(raw, which, strict=True)):
            where = f"objects.bbox[{i}]"
            if isinstance(box, list) and len(box) == 2:
                raise BadEntry("is a point, and weft has boxes", reason="points", field=where)
            if not isinstance(number, int) or not 0 <= number < len(pictures):
                raise BadEntry(f"there is no picture {number}", field=f"objects.image_id[{i}]")
            sides = numbers(box, 4, where)
            if unit == "real":
                path = pictures[number]
                path = path if str(path).startswith("data:") else job.find(path, what="image")
                width, height = job.size(path)
                sides = [sides[0] / width, sides[1] / height, sides[2] / width, sides[3] / height]
                sides = job.clipped(sides, (width, height))
            self.found.append(boxes([sides]) | ({} if len(pictures) == 1 else {"image": number}))

    def split(self, words: str) -> list[Part]:
        parts: list[Part] = []
        end, label, joined = 0, None, False  # a phrase waits to be the label of the boxes that follow it at once
        for match in _GROUND.finditer(words):
            between = words[end : match.start()]
            if label is not None and (between or match[0] == "<ref-object>"):
                between, label = label + between, None
            if between:
                _say(parts, between)
                joined = False
            end = match.end()
            if match[0] == "<ref-object>":
                if self.said >= len(self.refs):
                    raise BadEntry(f"holds more <ref-object> than phrases ({len(self.refs)})", field="objects.ref")
                label, joined = self.refs[self.said], False
                self.said += 1
                continue
            if self.boxed >= len(self.found):
                raise BadEntry(f"holds more <bbox> than boxes ({len(self.found)})", field="objects.bbox")
            box = self.found[self.boxed]
            self.boxed += 1
            if joined and parts[-1].get("image") == box.get("image"):
                parts[-1]["boxes"] += box["boxes"]
            else:
                parts.append(box if label is None else {**box, "label": label})
            label, joined = None, True
        _say(parts, (label or "") + words[end:])
        return parts or [text("")]

    def finish(self) -> None:
        if self.boxed < len(self.found):
            raise BadEntry(f"has {len(self.found)} boxes and tags for {self.boxed}", field="objects.bbox")


def _say(parts: list[Part], words: str) -> None:
    """Text after text is one text."""
    if not words:
        return
    if parts and parts[-1]["type"] == "text":
        parts[-1] = text(parts[-1]["text"] + words)
    else:
        parts.append(text(words))
