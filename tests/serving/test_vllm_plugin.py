"""The plugin of vLLM where vLLM is not installed: what names it, and what names its class."""

import ast
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import weft
from weft.models.senses import Senses

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


def test_the_plugins_model_has_what_its_senses_rely_on():
    """`transformers`' models have it all by themselves; a model of vLLM's has not."""
    text = (PACKAGES / "weft/serving/vllm/model.py").read_text()
    (kind,) = (n for n in ast.parse(text).body if getattr(n, "name", "") == "WeftForConditionalGeneration")
    own = {node.name for node in kind.body if isinstance(node, ast.FunctionDef)}
    own |= {node.attr for node in ast.walk(kind) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    assert set(Senses.__annotations__) >= {"config", "device", "get_input_embeddings"}
    assert set(Senses.__annotations__) <= own


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_the_plugin_is_imported_without_vllm():
    from weft.serving.vllm import register

    with pytest.raises(ModuleNotFoundError, match="vllm"):
        register()
