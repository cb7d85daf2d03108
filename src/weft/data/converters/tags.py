"""Text with tags where pictures and recordings stand, as several projects write conversations.

Only the tags a layout defines are read, and only in the messages it defines them for; whatever else looks like a tag is
text and stays text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from weft.data.converters.base import BadEntry, Job, Part, Sample, audio, image, text

ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
}
VIDEO = "video"


class Media:
    """The pictures and recordings of one entry, handed out in the order of their tags.

    ``tags``: what stands for an item, and of which kind. ``lists``: the paths of each kind.
    """

    def __init__(self, job: Job, tags: dict[str, str], lists: dict[str, list[Any]]) -> None:
        self.job, self.tags, self.lists = job, tags, lists
        self.used = dict.fromkeys(lists, 0)
        self.pattern = re.compile("|".join(re.escape(tag) for tag in tags))

    def count(self, kind: str, contents: Sequence[str]) -> int:
        """How many tags of a kind the texts hold."""
        return sum(self.tags[tag] == kind for content in contents for tag in self.pattern.findall(content))

    def take(self, kind: str) -> Part:
        """The next item of a kind."""
        paths = self.lists.get(kind, [])
        number = self.used.get(kind, 0)
        if number >= len(paths):
            raise BadEntry(
                f"has more <{kind}> tags than {kind}s ({len(paths)})",
                reason="tags and media differ in number",
                field=kind,
            )
        self.used[kind] = number + 1
        return self.part(kind, paths[number])

    def part(self, kind: str, path: Any) -> Part:
        if not isinstance(path, str):
            raise BadEntry(f"must be a path, this is {str(path)[:60]}", field=f"{kind}s")
        if path.startswith("data:"):
            return image(path) if kind == "image" else audio(path)
        return image(self.job.find(path, what="image")) if kind == "image" else audio(self.job.find(path, what="audio"))

    def split(self, content: str) -> list[Part]:
        """A user's text as text, image and audio parts."""
        parts: list[Part] = []
        end = 0
        for match in self.pattern.finditer(content):
            if match.start() > end:
                parts.append(text(content[end : match.start()]))
            parts.append(self.take(self.tags[match[0]]))
            end = match.end()
        if end < len(content) or not parts:
            parts.append(text(content[end:]))
        return parts

    def finish(self) -> None:
        """Every item was shown."""
        for kind, paths in self.lists.items():
            if self.used[kind] < len(paths):
                raise BadEntry(
                    f"has {len(paths)} {kind}s and tags for {self.used[kind]} of them",
                    reason="tags and media differ in number",
                    field=kind,
                )


def listed(entry: dict[str, Any], *keys: str) -> list[Any]:
    """What stands under the first of these keys that is there, as a list; a string or null is taken as one or none."""
    for key in keys:
        value = entry.get(key)
        if value is None:
            continue
        if isinstance(value, str | dict):
            return [value]
        if not isinstance(value, list):
            raise BadEntry("must be a list of paths", field=key)
        return value
    return []


def refuse(entry: dict[str, Any], *keys: str) -> None:
    """Entries that would mean something else without what these keys hold."""
    why = {
        "videos": "holds video, which weft does not take",
        "video": "holds video, which weft does not take",
        "tools": "offers tools, which weft conversations have no place for",
        "rejected_response": "is a preference pair, which is not training data for answers",
        "rejected": "is a preference pair, which is not training data for answers",
        "kto_tag": "is marked as a good or bad answer, which is not training data for answers",
        "label": "has a label in place of an answer, or one that judges it",
    }
    reasons = {"videos": "video", "video": "video", "tools": "tools", "label": "label"}
    for key in keys:
        if entry.get(key) not in (None, "", [], "[]"):
            raise BadEntry(why[key], reason=reasons.get(key, "preference data"), field=key)


def turns(raw: Any, field: str, role: str = "role", content: str = "content") -> list[tuple[str, str]]:
    """``(role, text)`` of a list of messages; roles that weft has not (tools, functions) are refused."""
    if not isinstance(raw, list) or not raw:
        raise BadEntry("must be a list of messages", field=field)
    found = []
    for i, message in enumerate(raw):
        where = f"{field}[{i}]"
        if not isinstance(message, dict) or not isinstance(message.get(role), str):
            raise BadEntry(f'a message is an object with "{role}" and "{content}"', field=where)
        if message[role] not in ROLES:
            raise BadEntry(f'weft has no role "{message[role]}"', reason="tools", field=f"{where}.{role}")
        if not isinstance(message.get(content), str):
            raise BadEntry("must be a string", field=f"{where}.{content}")
        found.append((ROLES[message[role]], message[content]))
    return found


def conversation(name: Any, messages: Sequence[tuple[str, str | list[Part]]]) -> Sample:
    made = [{"role": role, "content": content} for role, content in messages]
    return {"messages": made} if name is None else {"id": str(name), "messages": made}
