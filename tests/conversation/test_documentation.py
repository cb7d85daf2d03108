"""What the documentation shows is what the code takes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from weft.conversation import TASKS, parse_sample
from weft.conversation.parts import KEYS, PARTS

ROOT = Path(__file__).resolve().parents[2]
FORMAT = (ROOT / "docs" / "samples.md").read_text()


def samples_in(text: str) -> list[Any]:
    """The JSON objects in indented blocks, also where they run over several lines."""
    found, decoder = [], json.JSONDecoder()
    for block in re.findall(r"(?:^    .*\n|^\n)+", text, re.MULTILINE):
        block = block.strip()
        while block.startswith("{"):
            sample, end = decoder.raw_decode(block)
            found.append(sample)
            block = block[end:].strip()
    return found


@pytest.mark.parametrize("name", ["README.md", "docs/samples.md"])
def test_every_sample_shown_is_one(name: str) -> None:
    shown = samples_in((ROOT / name).read_text())
    assert shown
    for sample in shown:
        parse_sample(sample, exists=lambda path: True)


def test_the_table_of_tasks_is_the_one_in_force() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|([^|]*)\|$", FORMAT.split("## Tasks")[1], re.MULTILINE)
    told = {}
    for names, needs, fields in rows:
        for name in re.findall(r"`(\w+)`", names):
            told[name] = (set(re.findall(r"image|audio|text|box", needs)), set(re.findall(r"`(\w+)`", fields)))
    expected = {
        name: ({*spec.media, *["text"] * spec.text, *["box"] * spec.box}, set(spec.fields))
        for name, spec in TASKS.items()
    }
    assert told == expected


def test_the_table_of_parts_is_the_one_in_force() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*)\|$", FORMAT.split("## Parts")[1].split("\n## ")[0], re.M)
    assert {kind for kind, _, _ in rows} == {"text", "image", "audio", "task", "box", "words"}
    for kind, roles, keys in rows:
        allowed = {role for role, kinds in PARTS.items() if kind in kinds}
        assert allowed == (set(PARTS) if "all" in roles else set(re.findall(r"system|user|assistant", roles)))
        if kind in KEYS:
            assert {*KEYS[kind]} - {"type"} == set(re.findall(r"`(\w+)`", keys))
