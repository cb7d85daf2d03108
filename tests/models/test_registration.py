"""`import weft` is what makes transformers know weft's folders; the command line does not wait for it."""

import json
import subprocess
import sys
from pathlib import Path

import tiny
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

import weft
from weft.models.config import WeftConfig, WeftQwenConfig


def test_importing_weft_registers_its_classes():
    assert type(AutoConfig.for_model("weft")) is WeftConfig
    assert type(AutoConfig.for_model("weft_qwen")) is WeftQwenConfig
    assert type(AutoModelForMultimodalLM.from_config(tiny.model().config)) is weft.WeftForConditionalGeneration
    assert AutoProcessor is not None and weft.WeftProcessor.__name__ == "WeftProcessor"
    weft.register()  # again does no harm


def test_every_public_name_is_there():
    for name in weft.__all__:
        assert getattr(weft, name) is not None and name in dir(weft)


def test_the_command_starts_without_torch_and_knows_configurations_once_it_needs_them(tmp_path: Path):
    """As the `weft` command runs: a script beside the interpreter imports the package before it knows what is asked."""
    script = tmp_path / "run.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "sys.argv[0] = str(pathlib.Path(sys.executable).parent / 'weft')\n"
        "import weft\n"
        "early = 'torch' in sys.modules\n"
        "import weft.models.config\n"
        "from transformers import AutoConfig\n"
        "kind = type(AutoConfig.for_model('weft', text_config={'model_type': 'weft_qwen'}).text_config).__name__\n"
        "print(json.dumps([early, kind]))\n"
    )
    out = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == [False, "WeftQwenConfig"]
