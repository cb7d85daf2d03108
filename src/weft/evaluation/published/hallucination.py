"""CHAIR: objects that a caption names and its picture does not hold (Rohrbach et al., arXiv 1809.02156).

The rules of the original (LisaAnne/Hallucination, ``utils/chair.py``): lower case, words made singular, common pairs of
words taken as one ("hot dog" is no dog, a "baby elephant" no person), a synonym stands for its COCO object, and every
mention counts. CHAIR_i is mentions of absent objects over all mentions, CHAIR_s captions with any over all captions.

Different here: words are singular by a few rules of English instead of the package ``pattern``, and the synonyms are a
short list of weft's own unless ``--synonyms`` gives the original's ``data/synonyms.txt`` (one object a line, synonyms
after commas). So figures are near the original's, not equal, and MiniGPT-v2's code holds no CHAIR to be equal to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from weft.conversation import WeftError
from weft.evaluation.pairs import Pair
from weft.evaluation.published.rows import Row
from weft.named import beside

_TABLES = beside(__file__)
PAIRS = {f"{age} {animal}": animal for age in ("baby", "adult") for animal in _TABLES["animals"]} | _TABLES["pairs"]
_SINGULAR: dict[str, str] = _TABLES["singular"]


def singular(word: str) -> str:
    if word in _SINGULAR:
        return _SINGULAR[word]
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    if re.search(r"(?:ch|sh|x|ss)es$", word):
        return word[:-2]
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def synonym_table(text: str) -> dict[str, str]:
    """Every word or pair to its object, from lines of ``object, synonym, ...``."""
    table: dict[str, str] = {}
    for line in text.splitlines():
        names = [name.strip().lower() for name in line.split(",") if name.strip()]
        for name in names:
            table[name] = table[" ".join(map(singular, name.split()))] = names[0]
    return table


def mentioned(caption: str, table: dict[str, str]) -> list[str]:
    """The objects that a caption names, once a mention."""
    tokens = [singular(word) for word in re.findall(r"[\w'-]+", caption.lower())]
    found: list[str] = []
    i = 0
    while i < len(tokens):
        pair = " ".join(tokens[i : i + 2])
        both = pair in PAIRS or (" " in pair and pair in table)
        found.append(PAIRS.get(pair, pair) if both else tokens[i])
        i += 2 if both else 1
    if "toilet" in found:
        found = [word for word in found if word != "seat"]
    return [table[word] for word in found if word in table]


@cache
def object_table(synonyms: str | None = None) -> dict[str, str]:
    """Every word to its object: the 80 of COCO with the words most often used for them, or those of a file."""
    path = Path(__file__).with_name("coco_objects.txt") if synonyms is None else Path(synonyms)
    table = synonym_table(path.read_text("utf-8"))
    if not table:
        raise WeftError(f"{path}: holds no objects; write 'object, synonym, ...' a line")
    return table


class Mentions(NamedTuple):
    """Objects that a caption names: how many times, and how many of them its picture does not hold."""

    absent: int
    all: int


def mentions(pair: Pair) -> Mentions:
    table, held = pair.extra
    named = mentioned(pair.raw, table)
    return Mentions(sum(name not in held for name in named), len(named))


def read_row(row: Row, task: str, synonyms: str | os.PathLike[str] | None = None) -> Pair:
    """References: ``objects``, names of what the picture holds; ``captions``, optional, whose objects are added."""
    line, table = row.reference, object_table(None if synonyms is None else os.fspath(synonyms))
    names = line.strings("objects") if line.fields.get("objects") != [] else []
    unknown = next((name for name in names if name.lower() not in table), None)
    if unknown is not None:
        line.wrong("objects", f"{unknown!r} is no object of the list of synonyms")
    held = {table[name.lower()] for name in names}
    for caption in line.strings("captions") if "captions" in line.fields else ():
        held |= set(mentioned(caption, table))
    return Pair(task, (), (), references=tuple(names), extra=(table, held)).said(row.prediction)


def nothing_named(pairs: Sequence[Pair]) -> str | None:
    return None if any(mentions(p).all for p in pairs) else "no caption names an object: chair_i has nothing to count"
