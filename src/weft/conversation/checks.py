"""What the readers of samples check with: a mistake that knows where it was, and values of JSON by their kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from numbers import Real
from typing import Any

from weft.conversation.tasks import guess


class Mistake(Exception):
    """A mistake on its way out of the nested parsers; each level adds where it was."""

    def __init__(self, problem: str, field: str = ""):
        self.problem, self.field = problem, field

    def inside(self, where: str) -> Mistake:
        joint = "" if not self.field or self.field.startswith("[") else "."
        self.field = f"{where}{joint}{self.field}"
        return self


def unknown_key(raw: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in raw:
        if key not in known:
            raise Mistake(f"unknown key: {guess(str(key), known)}{what} has {listed(known)}", key_name(key))


def string(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise Mistake(f"must be a string, this is {kind_of(value)}", field)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as e:
            raise Mistake(
                f"holds half a character (U+{ord(value[e.start]):04X}) at {e.start}: repair it", field
            ) from None
    return value


def number(value: Any, field: str) -> float:
    if type(value) is float and isfinite(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Real):
        raise Mistake(f"must be a number, this is {kind_of(value)}", field)
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not isfinite(number):
        raise Mistake(f"must be a finite number, this is {value:g}" if isinstance(value, float) else "too large", field)
    return number


def counted(value: Any, field: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Mistake(f"must be a number counted from 0, this is {show(value)}", field)
    return value


def kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def show(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


def key_name(key: Any) -> str:
    """A key on one line, whatever it holds."""
    return show(key)[1:-1] if isinstance(key, str) else show(key)


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
