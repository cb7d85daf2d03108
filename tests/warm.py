"""What a process does once, done before `processes` forks: imports, and what transformers makes when it first saves a
model, 900 expressions of names."""

import gc

gc.disable()  # nothing of this is garbage

import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402, F401
import torch  # noqa: E402

import weft.generation.requests  # noqa: E402
import weft.teaching  # noqa: E402
import weft.training.run  # noqa: E402, F401
from training_world import tiny_spec  # noqa: E402
from weft.training.build import build_model  # noqa: E402
from weft.training.export import save_model  # noqa: E402

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:
    save_model(*build_model(tiny_spec()), Path(folder) / "model")
gc.freeze()
gc.enable()
