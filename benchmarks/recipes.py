"""``make recipes``: every recipe's tiny size, whole, and a table of what each stage came to.

What the published recipes start from, pretrained encoders and a pretrained language model, does not exist in this
size. So each run begins with "parts": a model of that composition learns captions, transcripts and plain text with all
of it training, and gives its encoders and its language model to the recipe; connectors start anew. Then the recipe's
own stages follow, each from the model that the one before it left, and each is measured on samples that none has seen.

    .venv/bin/python benchmarks/recipes.py [NAME ...] [-o FOLDER] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: its idle threads would spin beside torch's
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from weft.playground import tasks
from weft.recipes import RECIPES, load_recipe, sizes
from weft.recipes.datasets import drawn
from weft.training.build import build_model
from weft.training.export import save_model
from weft.training.recipe import Evaluation, ModelSpec, PartTraining, Recipe, Stage
from weft.training.run import train

TRAIN_SEED, TEST_SEED, SAMPLES, HELD_OUT = 1, 2, 240, 12
# A Whisper's decoder that starts from nothing hears late (another's clip gives as likely an answer until then), and at
# the rate of the stages never: its states become those of every clip.
HEARS_SAMPLES, HEARS_STEPS, HEARS_LR = 2000, 600, 1e-3


def main() -> None:
    known = [name for name in RECIPES if "tiny" in sizes(name)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--steps", type=int, default=None, help="of each stage; default: the recipe's")
    given = parser.parse_args()
    odd = sorted(set(given.names) - set(known))
    if odd:
        parser.error(f"no recipe {odd[0]} with a tiny size; there are {', '.join(known)}")
    shutil.rmtree(given.out, ignore_errors=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("recipe", "stage", "learns", "steps", "loss", "→", "held out", "seconds"):
        left = column in ("recipe", "stage", "learns")
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "learns")
    for name in given.names or known:
        for i, row in enumerate(rehearse(name, given.out, given.steps)):
            table.add_row(name if i == 0 else "", *row)
    console = Console()
    console.print()
    console.print(table)
    console.print("Loss: mean of the first and of the last ten steps, tasks as often as the stage has them.")
    console.print("Held out: after the stage, on samples it has not seen, as many of each task.")


def rehearse(name: str, out: Path, steps: int | None) -> list[list[str]]:
    """Runs one recipe in ``out/NAME``; a row of the table for the parts and for each stage."""
    recipe = load_recipe(name, "tiny")
    world, folder = out / "playground", out / name
    first = recipe.stages[0]
    everything = {part: PartTraining(train="full") for part in trainable(recipe.model)}
    parts = first.model_copy(
        update={"name": "parts", "parts": everything, "mixture": drawn("playground", before_all(recipe.model))}
    )
    console = Console(stderr=True, highlight=False)
    console.print(f"{name}: parts, then {', '.join(stage.name for stage in recipe.stages)}")
    samples, long = SAMPLES, steps
    if recipe.model.audio and recipe.model.audio.kind == "whisper_decoder":
        samples, long = HEARS_SAMPLES, steps or HEARS_STEPS
        parts = parts.model_copy(update={"optim": parts.optim.model_copy(update={"lr": HEARS_LR})})
        world = out / "playground-large"
    before = prepared(recipe.model_copy(update={"stages": (parts,)}), world, long, samples)
    trained = train(before, folder / "parts", console=console)
    hand_over(recipe.model, trained, folder / "start")
    spec = ModelSpec(base=str(folder / "start"))
    whole = prepared(recipe.model_copy(update={"model": spec}), world, steps, samples)
    train(whole, folder / "run", console=console)
    return [
        row(stage, run)
        for run, stages in ((folder / "parts", before.stages), (folder / "run", whole.stages))
        for stage in stages
    ]


def before_all(spec: ModelSpec) -> list[str]:
    """Tasks that encoders and a language model learn together, before any recipe starts."""
    heard = "transcribe_plain" if spec.dialect.name == "llasm" else "transcribe"
    return [*(["caption"] if spec.vision else []), *([heard] if spec.audio else []), "text"]


def trainable(spec: ModelSpec) -> list[Any]:
    towers = [part for part in ("vision", "audio") if getattr(spec, part)]
    return [*towers, *(f"{part}_connector" for part in towers), "language"]


def prepared(recipe: Recipe, world: Path, steps: int | None, samples: int = SAMPLES) -> Recipe:
    """The recipe with its samples made, and samples of the same tasks held out for each stage."""
    stages = []
    for stage in recipe.stages:
        names = [source.name for source in stage.mixture]
        for task in names:
            if not (world / task / "train.jsonl").exists():
                tasks.write(world, task, samples, TRAIN_SEED)
                tasks.write(world, task, HELD_OUT, TEST_SEED, "test")
        dev = world / f"{recipe.name}-{stage.name}.jsonl"
        dev.write_text("".join((world / task / "test.jsonl").read_text() for task in dict.fromkeys(names)))
        count = steps or stage.steps
        mixture = tuple(s.model_copy(update={"path": str(world / s.name / "train.jsonl")}) for s in stage.mixture)
        stages.append(
            stage.model_copy(
                update={"mixture": mixture, "steps": count, "evaluation": Evaluation(data=str(dev), every=count)}
            )
        )
    return recipe.model_copy(update={"stages": tuple(stages)})


def hand_over(spec: ModelSpec, trained: Path, out: Path) -> None:
    """A new model with the encoders and the language model of ``trained``, and connectors of its own."""
    from safetensors.torch import load_file

    # Another seed: the trained connectors are near where they began, so the same start would be theirs.
    model, processor = build_model(spec.model_copy(update={"seed": spec.seed + 1}))
    weights = load_file(trained / "model.safetensors")
    model.load_state_dict({k: v for k, v in weights.items() if "_connector." not in k}, strict=False)
    save_model(model, processor, out)


def row(stage: Stage, run: Path) -> list[str]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [r for r in log if r["event"] == "step" and r["stage"] == stage.name]
    ends = [s["step"] for s in steps]
    (held_out,) = [r["loss"] for r in log if r["event"] == "eval" and r["step"] == ends[-1]]
    losses = [s["loss"] for s in steps]
    k = min(10, len(losses))
    seconds = sum(s["seconds"] for s in steps)
    return [stage.name, learns(stage), str(len(steps)), f"{sum(losses[:k]) / k:.2f}", f"{sum(losses[-k:]) / k:.2f}",
            f"{held_out:.2f}", f"{seconds:.0f}"]  # fmt: skip


def learns(stage: Stage) -> str:
    """What trains, in a few words."""
    parts = stage.parts
    words = ["encoder" if p in ("vision", "audio") else "language" if p == "language" else "connector" for p in parts]
    how = [f"{word} (LoRA)" if t.train == "lora" else word for word, t in zip(words, parts.values(), strict=True)]
    order = ("encoder", "connector", "language", "language (LoRA)")
    return (
        "all" if len(set(words)) == 3 and len(set(how)) == 3 else ", ".join(dict.fromkeys(sorted(how, key=order.index)))
    )


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    Console().print(f"{time.monotonic() - begun:.0f} s in all")
