"""A run that is killed without warning goes on, bit for bit."""

import json
import random
import signal
import time
from io import StringIO

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from processes import Python
from training_world import tiny_recipe, tiny_spec, write
from weft.data.augment import Augment
from weft.training.run import train

pytestmark = pytest.mark.slow
CHILD = """
import sys
from weft.training.run import train
from weft.training.recipe import Recipe
train(Recipe.model_validate_json(open(sys.argv[1]).read()), sys.argv[2])
"""


def test_sigkill_at_a_random_step_changes_nothing(tmp_path):
    data = write(tmp_path / "samples", 24)
    augment = Augment(speed=0.1, join=0.3, noise_db=(5, 30), color=0.2, shift=0.1)
    recipe = tiny_recipe(data, tiny_spec(dropout=0.1), steps=12, augment=augment, recipe={"checkpoint_every": 3})
    quiet = Console(file=StringIO())
    whole = train(recipe, tmp_path / "whole", console=quiet)

    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    run, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    last = random.randint(1, 7)
    print(f"killed after step {last}")
    child = Python(CHILD, tmp_path / "recipe.json", run)
    while child.returncode is None and not (log.exists() and log.read_text().count('"event": "step"') >= last):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert log.exists()
    resumed = train(None, run, resume=True, console=quiet)

    one, other = load_file(whole / "model.safetensors"), load_file(resumed / "model.safetensors")
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert [r["step"] for r in steps if r["event"] == "step"] == list(range(1, 13))
