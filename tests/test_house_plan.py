"""The house plan: data flows one way, so a package imports only from those before it."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "weft"
ORDER = (
    "files",
    "frozen",
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


def imported(file: Path) -> set[str]:
    """The packages of weft that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("weft.")}
    return found


@pytest.mark.parametrize("package", [p.name for p in sorted(SOURCE.iterdir()) if (p / "__init__.py").is_file()])
def test_a_package_imports_only_from_those_before_it(package: str) -> None:
    allowed = set(ORDER[: ORDER.index(package) + 1])
    for file in sorted((SOURCE / package).rglob("*.py")):
        assert imported(file) <= allowed, f"{file.relative_to(SOURCE)} imports {imported(file) - allowed}"
