"""ms-swift's data: messages with media tags, and boxes beside them.

Source: docs/source_en/Customization/Custom-dataset.md and swift/llm/template/base.py of modelscope/ms-swift (3.x). The
query-response form is verified on real files; the messages and grounding forms are from documentation, not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from weft.data.converters.base import BadEntry, Job, Part, Read, Sample, answer, boxes, get, numbers, text
from weft.data.converters.chats import TAGS, chat, rounds
from weft.data.converters.jsonfile import Entry, entries
from weft.data.converters.tags import Media, Turn, conversation, learned, listed, refuse, untagged

_INLINE = {"image": re.compile(r"<img>(.+?)</img>"), "audio": re.compile(r"<audio>(.+?)</audio>")}
_GROUND = re.compile(r"<ref-object>|<bbox>")


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
        refuse(entry)
        lists = {"image": listed(entry, "images", "image"), "audio": listed(entry, "audios", "audio")}
        said = _inline(_said(job, entry, lists), lists)
        media = Media(job, TAGS, lists)
        objects = _Objects(job, entry.get("objects"), lists["image"])
        made = conversation(media, entry.get("id"), untagged(media, said), objects.split if objects.given else None)
        objects.finish()
        yield made

    yield from job.each(entries(job.path), make)


def _said(job: Job, entry: dict[str, Any], lists: dict[str, list[Any]]) -> list[Turn]:
    said: list[Turn] = []
    if "conversation" in entry:
        for i, turn in enumerate(get(entry, "conversation", list)):
            learn = learned(job, turn, "assistant", f"conversation[{i}]") is not False
            said += [Turn("user", get(turn, "human")), Turn("assistant", answer(turn, "assistant"), learn)]
    elif "query" in entry:
        said = [*rounds(entry), Turn("user", get(entry, "query"))]
        if "response" in entry:
            said.append(Turn("assistant", answer(entry, "response")))
    return chat(job, entry, lists, said)


def _inline(said: list[Turn], lists: dict[str, list[Any]]) -> list[Turn]:
    """Paths written into the user's text (``<img>path</img>``) moved to the lists, where those are empty."""
    for kind, pattern in _INLINE.items():
        if lists[kind]:
            continue
        for i, turn in enumerate(said):
            if turn.role == "user":
                lists[kind] += pattern.findall(turn.words)
                said[i] = turn._replace(words=pattern.sub(f"<{kind}>", turn.words))
    return said


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
            if unit == "real" and max(sides) <= 1:
                said = 'lies within one pixel: boxes in fractions say "bbox_type": "norm1"'
                raise BadEntry(said, reason="box in another unit", field=where)
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
