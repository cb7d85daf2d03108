"""What updates with lessons come to is what version 0.1.0 computed, for recipes as it wrote them."""

import json
from io import StringIO

import pytest
from rich.console import Console

from training_world import ALL, asked_twice, picture, speech, text, tiny_spec, write
from weft.teaching import teach
from weft.training.recipe import Recipe
from weft.training.run import train

pytestmark = pytest.mark.usefixtures("whole_plans")
MIXED = {"gain_db": 3, "join": 0.5, "cut": 0.3, "speed": 0.1, "ease": 8, "untimed": 0.2}
# (answers, sounds, pictures, attention, norm of the gradient, tokens, labels) of each update
EVERYTHING = [
    (0.0, 9.328362, 1.28975, None, 1.80432, 343, 77),
    (0.0, 9.236859, 1.26852, None, 1.81434, 328, 74),
    (6.644215, 9.299069, 1.236569, 2.526989, 2.10282, 300, 88),
    (6.744112, 9.293537, 1.2639, 1.600506, 2.57112, 345, 77),
]
EASED = [
    (7.078631, None, None, None, 1.4013, 249, 49),
    (7.072342, None, None, None, 1.51695, 245, 67),
    (7.070881, None, None, None, 2.00291, 256, 45),
]


def updates(folder, model, figures, **stage):
    """Those of a run, beside as many ``figures``."""
    base = {"steps": 6, "optim": {"lr": 1e-3, "warmup_steps": 2}, "parts": {n: {"train": "full"} for n in ALL}}
    stages = [{"name": "train", "row_tokens": 256, "even_rows": False, **base, **stage}]  # rows as they were
    whole = {"name": "tiny", "model": model, "stages": stages, "precision": "float32", "threads": 1}
    train(Recipe.model_validate(whole), folder / "run", teach=teach, console=Console(file=StringIO()))
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    names = ("loss", "listen", "look", "guide", "grad_norm", "tokens", "labels")
    steps = [tuple(line.get(name) for name in names) for line in lines if line["event"] == "step"]
    return steps[: len(figures)]


def close(figures):
    return [tuple(pytest.approx(f, rel=2e-5, abs=1e-6) if f is not None else None for f in row) for row in figures]


@pytest.mark.slow
def test_all_lessons_at_once_learn_what_they_learned(tmp_path):
    model = tiny_spec(dropout=0.1).model_dump(mode="json")
    model["vision"]["connector"] = {"merge": 4, "grid": True, "places": True}
    model["audio"]["connector"] = {"merge": 4, "places": True}
    model["language"]["config"]["num_hidden_layers"] = 2
    mixed = write(tmp_path / "mixed", 25, (speech, picture, speech, text, speech))
    asked = asked_twice(tmp_path / "asked")
    mixture = [{"path": str(mixed), "weight": 2.0, "augment": MIXED}, {"path": str(asked), "name": "asked"}]
    told = updates(
        tmp_path,
        model,
        EVERYTHING,
        listen={"weight": 1.0, "first": 2, "guide": 0.5},
        near=1.5,
        balance=0.5,
        label_smoothing=0.1,
        accumulate=2,
        packing=False,  # which samples share a row is another matter
        rows=4,
        augment={"color": 0.2, "converse": 0.7},
        mixture=mixture,
    )
    assert told == close(EVERYTHING)


@pytest.mark.slow
def test_clips_that_grow_are_the_clips_they_were(tmp_path):
    mixed = write(tmp_path / "mixed", 25, (speech, picture, speech, text, speech))
    model = tiny_spec().model_dump(mode="json")
    assert updates(tmp_path, model, EASED, augment={"ease": 20}, mixture=[{"path": str(mixed)}]) == close(EASED)
