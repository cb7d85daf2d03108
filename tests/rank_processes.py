"""Ranks as torchrun starts them, for tests, and what they leave."""

from __future__ import annotations

import json
import socket
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from processes import Python
from weft.training.recipe import Lora, PartTraining, Recipe

CHILD = """
import hashlib, os, sys, torch
from datetime import timedelta
from weft.conversation import WeftError
from weft.teaching import teach
from weft.training import parallel, ranks, stage
from weft.training.endings import Interrupted
from weft.training.run import train
from weft.training.recipe import Recipe
if os.environ.get("BREAKS_RANK") == os.environ["RANK"]:
    forward, times = stage.backward, []

    def broken(model, *args, **kwargs):
        times.append(1)
        if len(times) == 3:  # what this rank's own weights make of the third update is no number
            with torch.no_grad():
                next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
        return forward(model, *args, **kwargs)

    stage.backward = broken
if "SILENCE" in os.environ:
    ranks.SILENCE = timedelta(seconds=int(os.environ["SILENCE"]))
if "BACKEND" in os.environ:
    from weft.training import compiled
    compiled.BACKEND = os.environ["BACKEND"]
from weft.training import sharding  # which takes the time of silence as it is by now
resume = sys.argv[1] == "resume"
merge = parallel.merge_lora


def telling(model, *around):
    merge(model, *around)
    held = (getattr(p, "to_local", lambda p=p: p)() for p in model.parameters())
    weights = b"".join(p.detach().float().numpy().tobytes() for p in held)
    print("weights", hashlib.sha256(weights).hexdigest())


parallel.merge_lora = sharding.merge_lora = telling
try:
    recipe = None if resume else Recipe.model_validate_json(open(sys.argv[1]).read())
    train(recipe, sys.argv[2], resume=resume, teach=teach, adapter_only="ADAPTER_ONLY" in os.environ)
except Interrupted as stop:
    print(stop)
    sys.exit(stop.status)
except WeftError as error:
    print("error:", error)
    sys.exit(2)
"""
QUIET = Console(file=StringIO())


def start(world: int, recipe: Recipe | None, run: Path, **environment: object) -> list[Python]:
    """Ranks as torchrun starts them."""
    source = "resume"
    if recipe is not None:
        source = str(run.with_suffix(".json"))
        Path(source).write_text(recipe.model_dump_json())
    return _started(world, CHILD, source, run, **environment)


def _started(world: int, source: str, *arguments: object, **environment: object) -> list[Python]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "CUDA_VISIBLE_DEVICES": ""}
    known |= {k: str(v) for k, v in environment.items()}
    return [
        Python(source, *arguments, env={**known, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(world)
    ]


def together(world: int, recipe: Recipe | None, run: Path, **environment: object) -> list[tuple[int, str]]:
    """The status and the words of each rank."""
    return _ended(start(world, recipe, run, **environment))


def processes_of(world: int, source: str, *arguments: object) -> list[tuple[int, str]]:
    """As `together`, of ranks that run ``source``."""
    return _ended(_started(world, source, *arguments))


def _ended(ranks: list[Python]) -> list[tuple[int, str]]:
    said = [rank.communicate() for rank in ranks]
    return [(rank.returncode, words) for rank, words in zip(ranks, said, strict=True)]


def steps(run: Path) -> list[dict]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [record for record in lines if record["event"] == "step"]


def saved(run: Path) -> int:
    """The step of the newest checkpoint."""
    return max(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def alike(one: Path, other: Path) -> None:
    ours, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def stage_of(kind: str) -> dict:
    """A small stage that trains everything, or through LoRA, or with lessons; ``alone``: two updates of these only."""
    stage: dict = {"row_tokens": 96, "steps": 4}
    if kind == "lora":
        lora = PartTraining(train="lora", lora=Lora(r=2, alpha=4, dropout=0.2))
        stage["parts"] = {"language": lora, "vision_connector": PartTraining(train="full")}
    if kind in ("listen", "alone"):
        listen = {"weight": 1.0, "first": 2 if kind == "alone" else 0, "guide": 1.0}
        stage["lessons"] = {"balance": 0.5, "listen": listen}
    return stage


def told_alike(one: Path, other: Path) -> None:
    """The logs of two runs tell the same of each update."""
    for ours, theirs in zip(steps(one), steps(other), strict=True):
        assert ours["tokens"] == theirs["tokens"] and ours["labels"] == theirs["labels"]
        assert ours.keys() == theirs.keys()
        for name in {"loss", "listen", "look", "guide", "grad_norm"} & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5)


def nearly(one: Path, other: Path, atol: float) -> None:
    """Two folders of a model have the same files, configurations and, within ``atol``, weights."""
    ours, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert {p.name for p in one.iterdir()} == {p.name for p in other.iterdir()}
    for name in ("config.json", "generation_config.json"):
        assert (one / name).read_text() == (other / name).read_text()
