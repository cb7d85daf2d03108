"""The house plan: data flows one way, so a package imports only from those before it."""

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from weft.dialects import DIALECTS
from weft.models.connectors import CONNECTORS
from weft.models.encoders import IMAGES, SOUNDS
from weft.named import Named
from weft.recipes import load_recipe

SOURCE = Path(__file__).resolve().parents[1] / "src" / "weft"
ORDER = (
    "files",
    "frozen",
    "named",
    "version",
    "kinds",
    "conversation",
    "media",
    "playground",
    "dialects",
    "models",
    "formats",
    "parts",
    "generation",
    "data",
    "teaching",
    "training",
    "recipes",
    "evaluation",
    "runs",
    "serving",
    "cli",
)

KINDS = {"minigpt_v2": "eva", "llasm": "whisper_decoder", "qwen_audio": "qwen_audio"}
# Who imports by a name that is no table's: weft's public names, and Pillow's readers.
BY_NAME = {"named.py", "__init__.py", "media/opening.py"}


@cache
def modules(file: Path) -> frozenset[str]:
    """What of weft a file imports, at the top or inside a function: modules, and names in them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(name for name in found if name.startswith("weft."))


def tables_of(file: Path) -> list[Named[Any]]:
    name = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
    return [value for value in vars(import_module(name)).values() if isinstance(value, Named)]


def imported(file: Path) -> set[str]:
    """The packages of weft that a file imports."""
    return {name.split(".")[1] for name in modules(file)}


def followed(start: str) -> set[str]:
    """The modules that one imports, itself or through others."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        path = SOURCE.parent.joinpath(*(name := todo.pop()).split("."))
        files = [f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()]
        if files and name not in seen:
            seen.add(name)
            todo += modules(files[0])
    return seen


@pytest.mark.parametrize("package", [p.name for p in sorted(SOURCE.iterdir()) if (p / "__init__.py").is_file()])
def test_a_package_imports_only_from_those_before_it(package: str) -> None:
    allowed = set(ORDER[: ORDER.index(package) + 1])
    for file in sorted((SOURCE / package).rglob("*.py")):
        assert imported(file) <= allowed, f"{file.relative_to(SOURCE)} imports {imported(file) - allowed}"


@pytest.mark.parametrize(
    "table", [DIALECTS, IMAGES, SOUNDS, CONNECTORS], ids=["dialects", "images", "sounds", "connectors"]
)
def test_every_name_of_a_table_stands_for_a_class_of_its_own(table: Named[Any]) -> None:
    assert len(set(table.values())) == len(table)


def test_what_a_table_names_is_there_and_belongs_to_a_package_before_it() -> None:
    tables = [(f, t) for f in SOURCE.rglob("*.py") if "Named[" in f.read_text() for t in tables_of(f)]
    assert len(tables) > 10
    for file, table in tables:
        allowed = ORDER[: ORDER.index(file.relative_to(SOURCE).parts[0]) + 1]
        assert {place.split(".")[1] for place in table.places.values()} <= set(allowed), file
        assert all(value is not None for value in table.values())


def test_a_dialect_is_in_the_table_under_its_own_name() -> None:
    assert [dialect.name for dialect in DIALECTS.values()] == list(DIALECTS)


@pytest.mark.parametrize("system", ["minigpt_v2", "llasm", "qwen_audio"])
def test_the_import_of_a_system_names_its_dialect_and_its_encoder_itself(system: str) -> None:
    """So that whoever follows imports from there, a person or a count of lines, meets them."""
    model = load_recipe(system).model
    kind = DIALECTS.places[model.dialect.name], (IMAGES if model.vision else SOUNDS).places[KINDS[system]]
    assert {place.partition(":")[0] for place in kind} <= followed(f"weft.formats.{system}")


def test_what_is_imported_by_its_name_stands_in_a_table() -> None:
    by_name = re.compile(r"resolve_name|import_module\(")
    found = {file.relative_to(SOURCE).as_posix() for file in SOURCE.rglob("*.py") if by_name.search(file.read_text())}
    assert {name for name in found if not name.startswith("cli/")} == BY_NAME
