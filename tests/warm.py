"""What a process does once, at its first run, done before `processes` forks: transformers, when it first saves a model,
makes 900 expressions of names."""

import tempfile
from pathlib import Path

import torch

from training_world import tiny_spec
from weft.training.build import build_model
from weft.training.export import save_model

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:
    save_model(*build_model(tiny_spec()), Path(folder) / "model")
