"""The plugin of vLLM where vLLM is not installed: what names it, and what names its class."""

import ast
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import weft

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(weft.__file__).parents[1]


def defined(module):
    """What a module of weft defines at its top, by its text: to import it may need vLLM."""
    file = PACKAGES / Path(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_entry_point_names_what_registers_and_that_names_the_class():
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    module, name = points["vllm.general_plugins"]["weft"].split(":")
    assert name in defined(module)
    text = (PACKAGES / Path(*module.split(".")) / "__init__.py").read_text()
    assert "WeftForConditionalGeneration" in defined(f"{module}.model") and f"{module}.model:" in text


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_the_plugin_is_imported_without_vllm():
    from weft.serving.vllm import register

    with pytest.raises(ModuleNotFoundError, match="vllm"):
        register()
