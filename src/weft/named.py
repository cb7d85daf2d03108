"""Tables from names to classes, each of which is imported when it is asked for: who works with one reads one.

A table says where each is, so that ``TABLE["name"]`` is to be read as an import of that module; CONTRIBUTING lists all.
"""

from __future__ import annotations

import pkgutil
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Named(Mapping[str, T]):
    """``places``: of each name the module and what it is called there, as "weft.dialects.llasm:LLaSM"."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self.places = places

    def __getitem__(self, name: str) -> T:
        found: T = pkgutil.resolve_name(self.places[name])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def beside(module: str) -> dict[str, Any]:
    """What the TOML file says that stands beside a module's own (its ``__file__``), under the same name."""
    return tomllib.loads(Path(module).with_suffix(".toml").read_text("utf-8"))
