"""What a file, a line or an entry that holds no sample is, so that a mistake can name what makes samples of it.

Layouts are told from names and from the beginning and end of a file: no more is read of one than `HEAD` bytes at each.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from weft import kinds
from weft.named import beside

HEAD = 1 << 16
CONVERT = "weft data convert LAYOUT PATH -o samples.jsonl makes samples of what other tools write"
FILES = 100  # of a folder that are looked at
_KEY = re.compile(r'(?<!\\)"(\w+)"\s*:')
_TABLES = beside(__file__)
_HEARD = re.compile(r"\.(wav|flac|mp3|ogg|opus|m4a|aac|amr|caf|aiff?|webm|mp4|3gp)\b", re.IGNORECASE)


def layout_of(path: str | os.PathLike[str]) -> str | None:
    """The layout of ``weft data convert`` that a file or folder has; None where it cannot be told."""
    return layout_at(path)[0]


def layout_at(path: str | os.PathLike[str]) -> tuple[str | None, str]:
    """That layout, and what holds it: ``path``, or the first such file of a folder, where files are read one by one."""
    return next(iter(layouts(path).items()), (None, os.fspath(path)))


def layouts(path: str | os.PathLike[str]) -> dict[str, str]:
    """Every layout that a file or folder has, with what holds it; several where the files of a folder differ."""
    try:
        stat = os.stat(path)
    except OSError:
        return {}
    return _told(os.fspath(path), stat.st_mtime_ns, stat.st_size)


def command(path: str | os.PathLike[str]) -> str | None:
    """In words: what makes samples of ``path``; None where its layout cannot be told."""
    layout, at = layout_at(path)
    if layout is None:
        return None
    if len(found := layouts(path)) > 1:
        each = ", ".join(f"{name} ({file})" for name, file in found.items())
        return f"holds files of several layouts, {each}: make samples of one (weft data convert {layout} ...)"
    said = f"weft data convert {layout} {shlex.quote(at)} -o samples.jsonl"
    if at != os.fspath(path):
        return f"holds files laid out as {layout}: make samples of each by itself ({said})"
    return f"is laid out as {layout}: make samples of it ({said})"


def no_text(line: bytes, error: UnicodeDecodeError) -> str:
    """What is wrong with a line that is not UTF-8."""
    if (kind := kinds.sniff(line[: kinds.HEAD])) not in (None, "a JSON text"):
        return f"is {kind}, not JSON Lines: {kinds.advice(kind) or 'name the .jsonl file'}"
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "is UTF-16: save the file as UTF-8"
    return f"byte {error.start + 1} is not UTF-8: save the file as UTF-8"


def no_json(line: str, error: json.JSONDecodeError) -> str:
    """What is wrong with a line that is no JSON: often the file is something else."""
    if line.strip() == "{" or line.lstrip().startswith("["):
        return f"is one JSON document over many lines: write one sample a line, without a list around, or {CONVERT}"
    kind = kinds.sniff(line[: kinds.HEAD].encode())
    if do := kinds.advice(kind):  # of the others text may begin with the same letters
        return f"is {kind}, not JSON Lines: {do}"
    if not line.lstrip().startswith("{"):
        return f"invalid JSON, for this is a line of text or of a table: {CONVERT}"
    return f"invalid JSON at column {error.colno} ({error.msg}): write one JSON object a line"


def no_sample(entry: Any) -> str | None:
    """What is wrong with a value of JSON that is an entry of another layout; None where it does not seem to be one."""
    entry = entry[0] if isinstance(entry, list) and entry else entry
    keys = entry.keys() if isinstance(entry, dict) else set()
    name = next((name for needed, name in _TABLES["entries"] if keys >= set(needed)), None)
    return None if name is None else f"is in another layout ({name}): {CONVERT}"


def no_file(path: str | os.PathLike[str], error: OSError) -> str:
    """What is wrong with a file that cannot be read."""
    if told := command(path):
        return told
    if isinstance(error, FileNotFoundError):
        return "no such file: check the path"
    if isinstance(error, IsADirectoryError):
        return "is a folder: name the .jsonl file in it"
    return f"cannot be read ({error.strerror or error})"


@lru_cache(maxsize=64)
def _told(path: str, *_: int) -> dict[str, str]:
    folder = Path(path)
    if not folder.is_dir():
        return {layout: path} if (layout := _of_file(folder)) else {}
    found = next((layout for layout, pattern in _TABLES["inside"] if any(folder.glob(pattern))), None)
    if found:
        names = " ".join(p.name for p in folder.rglob("*.*")) if found == "imagefolder" else ""
        return {str(_of_sound(found, names)): path}
    first: dict[str, str] = {}
    for file in islice(sorted(p for p in folder.rglob("*.*") if p.is_file()), FILES):
        if found := _of_file(file):
            first.setdefault(found, str(file))
    whole = len(first) == 1 and not first.keys() & set(_TABLES["one_by_one"])
    return dict.fromkeys(first, path) if whole else first


def _of_file(file: Path) -> str | None:
    try:
        with open(file, "rb") as stream:
            head = stream.read(HEAD)
            stream.seek(max(HEAD, os.path.getsize(file) - HEAD))
            tail = stream.read()
    except OSError:
        return None
    if head[:4] == b"PAR1":
        return "parquet"
    if named := _TABLES["endings"].get(file.suffix.lower()):
        return named
    if head[:2] == b"\x1f\x8b":
        with suppress(OSError, EOFError), gzip.open(file) as stream:
            head, tail = stream.read(HEAD), b""
    return _text(head.decode("utf-8-sig", "replace"), tail.decode("utf-8", "replace"))


def _text(head: str, tail: str) -> str | None:
    head = head.lstrip()
    start, first = head[:1], head.split("\n", 1)[0]
    if first.startswith("<|im_start|>"):
        return "qwen-audio"
    if start in ("{", "["):
        keys = {*_KEY.findall(head), *_KEY.findall(tail)}
        said = [(layout, needed.split()) for layout, needed in _TABLES["keys"]]
        if "messages" in keys:  # these may be samples with a mistake: only what no sample holds tells otherwise
            said = [(layout, needed) for layout, needed in said if {"messages", "custom_id"} & set(needed)]
        return _of_sound(next((layout for layout, needed in said if keys.issuperset(needed)), None), head)
    if start == "<":
        if "<annotations" in head and ("<image " in head or "<track " in head):
            return "cvat"
        return "elan" if "<ANNOTATION_DOCUMENT" in head else "voc" if "<annotation" in head else None
    if head.startswith("WEBVTT"):
        return "subtitles"
    if re.match(r"\d+[.,]\d+\t\d+[.,]\d+(\t|$)", first):
        return "audacity"
    if re.search(r"^names:", head, re.MULTILINE):
        return "yolo"
    cells = {cell.strip(' "\r') for cell in re.split(r"[\t,]", first)}
    if first.count("\t") == 6 and re.search(r"\t[^\t]+\.wav\t", first):
        return "fleurs"
    found = next((layout for layout, needed in _TABLES["columns"] if cells.issuperset(needed.split())), None)
    return found or _of_sound("imagefolder" if {"file_name", "path", "image", "audio"} & cells else None, head)


def _of_sound(layout: str | None, names: str) -> str | None:
    """imagefolder, or audiofolder where the files it names are sound."""
    return "audiofolder" if layout == "imagefolder" and _HEARD.search(names) else layout
