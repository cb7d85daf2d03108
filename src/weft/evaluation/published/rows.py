"""Predictions beside references: two JSON Lines files, joined by ``id``.

A line of predictions is ``{"id", "prediction"}`` and whatever else its program wrote (``field`` names another key, such
as ``raw`` of ``weft generate``). A line of references is ``{"id", ...}`` with the fields that its metric names. Every
mistake is a `SampleError` that names file, line and field.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, NoReturn

from weft.conversation import SampleError
from weft.conversation.samples import iter_lines


@dataclass(frozen=True)
class Line:
    """One object of a file, and where it stands."""

    fields: dict[str, Any]
    file: str
    line: int

    def wrong(self, field: str, problem: str) -> NoReturn:
        raise SampleError(problem, file=self.file, line=self.line, field=field)

    def identifier(self) -> str:
        name = self.fields.get("id")
        if not isinstance(name, str | int) or isinstance(name, bool):
            self.wrong("id", "missing" if name is None else f"must be a string or a whole number, not {_kind(name)}")
        return str(name)

    def need(self, *names: str) -> tuple[str, Any]:
        """The first of several spellings of a field that is there."""
        for name in names:
            if name in self.fields:
                return name, self.fields[name]
        near = ((key, match) for key in self.fields for match in get_close_matches(key, names, 1))
        hint = next((f" (did you mean {match!r} where it says {key!r}?)" for key, match in near), "")
        self.wrong(names[0], f"missing: a reference of this metric needs {' or '.join(map(repr, names))}{hint}")

    def string(self, *names: str) -> str:
        name, value = self.need(*names)
        if not isinstance(value, str):
            self.wrong(name, f"must be a string, not {_kind(value)}")
        return value

    def strings(self, *names: str) -> list[str]:
        """A list of strings, or one string as a list of one; never empty."""
        name, value = self.need(*names)
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not value:
            self.wrong(name, f"must be a string or a list of at least one, not {_kind(value)}")
        for i, item in enumerate(value):
            if not isinstance(item, str):
                self.wrong(f"{name}[{i}]", f"must be a string, not {_kind(item)}")
        return value

    def numbers(self, name: str, count: int) -> list[float]:
        _, value = self.need(name)
        if not isinstance(value, list) or len(value) != count or not all(map(_is_number, value)):
            self.wrong(name, f"must be a list of {count} finite numbers, not {_kind(value)}")
        return value

    def number(self, name: str) -> float:
        _, value = self.need(name)
        if not _is_number(value) or value <= 0:
            self.wrong(name, f"must be a number above 0, not {_kind(value)}")
        return value


@dataclass(frozen=True)
class Row:
    """A prediction beside its reference. ``prediction`` is the text as it was generated."""

    id: str
    prediction: str
    reference: Line

    def language(self, default: str | None = None) -> str | None:
        """The reference's ``language``, else the one given for all."""
        value = self.reference.fields.get("language", default)
        if value is not None and not isinstance(value, str):
            self.reference.wrong("language", f'must be a language code such as "en", not {_kind(value)}')
        return value


def read_rows(
    predictions: str | os.PathLike[str],
    references: str | os.PathLike[str],
    *,
    field: str = "prediction",
    missing: Literal["fail", "wrong"] = "fail",
) -> tuple[list[Row], int]:
    """Rows in the order of the references, and how many had no prediction.

    A reference without a prediction is an error, or with ``missing="wrong"`` an empty answer. A prediction without a
    reference is an error always: it is the sign of two files that do not belong together.
    """
    wanted = _by_id(references)
    given = _by_id(predictions)
    for name, line in given.items():
        if name not in wanted:
            line.wrong("id", f"there is no reference {name!r} in {os.fspath(references)}; give files of one test set")
    rows, absent = [], 0
    for name, reference in wanted.items():
        if name in given:
            rows.append(Row(name, _prediction(given[name], field), reference))
            continue
        if missing == "fail":
            problem = f"no prediction for {name!r} in {os.fspath(predictions)}; add it, or use --missing wrong"
            reference.wrong("id", problem)
        absent += 1
        rows.append(Row(name, "", reference))
    return rows, absent


def _prediction(line: Line, field: str) -> str:
    if field in line.fields:
        if not isinstance(line.fields[field], str):
            line.wrong(field, f"must be a string, not {_kind(line.fields[field])}")
        return line.fields[field]
    if "error" in line.fields:
        return ""  # weft generate's record of a request that could not be asked: an answer that is wrong
    texts = [key for key, value in line.fields.items() if key != "id" and isinstance(value, str)]
    line.wrong(field, "missing" + (f"; --field {texts[0]} takes that one" if texts else ": each line needs an answer"))


def _by_id(path: str | os.PathLike[str]) -> dict[str, Line]:
    found: dict[str, Line] = {}
    for line in read_lines(path):
        name = line.identifier()
        if (first := found.setdefault(name, line)) is not line:
            line.wrong("id", f"{name!r} stands in line {first.line} already; give each its own")
    return found


def read_lines(path: str | os.PathLike[str]) -> Iterator[Line]:
    """The objects of a file, of which there is at least one."""
    file, none = os.fspath(path), True
    for number, raw in iter_lines(path):
        none = False
        try:
            fields = json.loads(raw)
        except UnicodeDecodeError as e:
            raise SampleError(
                f"byte {e.start + 1} is not UTF-8: save the file as UTF-8", file=file, line=number
            ) from None
        except (ValueError, RecursionError) as e:
            raise SampleError(f"not JSON ({e}); write one object a line", file=file, line=number) from None
        if not isinstance(fields, dict):
            raise SampleError(f"must be an object, not {_kind(fields)}", file=file, line=number)
        yield Line(fields, file, number)
    if none:
        raise SampleError("nothing in it: write one JSON object a line", file=file)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _kind(value: Any) -> str:
    """A value for a message: itself where that is short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
