"""`import weft` is what makes transformers know weft's folders; the command line does not wait for it."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor

import weft
from marks import nightly
from tiny_model import tiny as tiny_model
from weft.models.config import WeftConfig, WeftQwenConfig


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A model, and a language model alone of weft's own kind."""
    whole, language = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("language")
    found = tiny_model()
    found.model.save_pretrained(whole)
    found.processor.save_pretrained(whole)
    fields = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    AutoModelForCausalLM.from_config(WeftQwenConfig(**fields, vocab_size=32)).save_pretrained(language)
    return whole, language


def test_importing_weft_registers_its_classes():
    assert type(AutoConfig.for_model("weft")) is WeftConfig
    assert type(AutoConfig.for_model("weft_qwen")) is WeftQwenConfig
    assert type(AutoModelForMultimodalLM.from_config(tiny.model().config)) is weft.WeftForConditionalGeneration
    assert AutoProcessor is not None and weft.WeftProcessor.__name__ == "WeftProcessor"
    weft.register()  # again does no harm


def test_every_public_name_is_there():
    for name in weft.__all__:
        assert getattr(weft, name) is not None and name in dir(weft)


def fresh(program: str, *names: str) -> list[str]:
    """What a program prints in an interpreter of its own, called by any name."""
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", program, *names], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return out.stdout.split()


@pytest.mark.parametrize("name", ["python", str(Path(sys.executable).parent / "weft"), "weft.exe"])
def test_importing_weft_costs_little_whoever_does_it(name: str):
    heavy = "print(*sorted({'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)), 'light')"
    assert fresh(f"import sys; sys.argv[0] = {name!r}; import weft; {heavy}") == ["light"]


ORDERS = [  # what is imported before weft and after it
    ("", "from transformers import AutoModelForMultimodalLM, AutoProcessor"),
    ("from transformers import AutoModelForMultimodalLM, AutoProcessor", ""),
    ("", "from transformers import WhisperForConditionalGeneration"),  # which asks for the list of processors
    ("from transformers import AutoConfig", "import weft.models.encoders"),
]
# Each as in an interpreter of its own, but for libraries that know neither: they take most of the four seconds.
FORKS = """
import os, sys
import accelerate, huggingface_hub, jinja2, PIL.Image, pydantic, regex, sentencepiece, tokenizers, torch._dynamo, yaml
assert not {"transformers", "weft"} & set(sys.modules)
for program in sys.argv[1:]:
    child = os.fork()
    if not child:
        exec(program, {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit("failed: " + program)
"""


@pytest.mark.slow
@pytest.mark.parametrize("orders", [ORDERS[:2], nightly(ORDERS[2:])], ids=["classes", "others"])
def test_in_any_order_transformers_knows_weft_s_folders(orders: list[tuple[str, str]], folders: tuple[Path, Path]):
    whole, language = map(str, folders)
    use = "from transformers import AutoModelForMultimodalLM as M, AutoProcessor as P, AutoModelForCausalLM as C"
    named = (
        f"print(*(type(x.from_pretrained(f)).__name__ for x, f in ((P, {whole!r}), (M, {whole!r}), (C, {language!r}))))"
    )
    found = fresh(FORKS, *("\n".join([before, "import weft", after, use, named]) for before, after in orders))
    names = ["WeftProcessor", "WeftForConditionalGeneration", "WeftQwenForCausalLM"]
    assert found == names * len(orders)


def test_a_saved_folder_says_what_has_to_be_imported(folders: tuple[Path, Path], tmp_path: Path) -> None:
    card = (folders[0] / "README.md").read_text()
    assert "pip install weftlm" in card and "import weft" in card and "sees" in card
    own = tmp_path / "README.md"
    own.write_text("mine")
    weft.WeftConfig.from_pretrained(folders[0]).save_pretrained(tmp_path)
    assert own.read_text() == "mine"
