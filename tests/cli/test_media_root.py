"""Every command that reads samples refuses media outside of ``--media-root``."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tiny_model import tiny
from weft import cli
from weft.conversation import WeftError
from weft.evaluation.run import evaluate
from weft.generation.requests import answer_file
from weft.training.recipe import ModelSpec, PartTraining, Recipe, Source, Stage
from weft.training.run import train

ANSWER = {"role": "assistant", "content": "red"}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """``in/`` with samples of its own picture and of others by ``..``, whole path and link; a model beside it."""
    top = tmp_path_factory.mktemp("world")
    model = tiny()
    for part in (model.model, model.processor):
        part.save_pretrained(top / "model")
    (top / "in").mkdir()
    for place in (top, top / "in"):
        Image.new("RGB", (40, 30), "red").save(place / "a.png")
    (top / "in" / "link.png").symlink_to(top / "a.png")
    for name, path in {"good": "a.png", "up": "../a.png", "whole": str(top / "a.png"), "link": "link.png"}.items():
        content = [{"type": "image", "image": path}, {"type": "text", "text": "colour?"}]
        line = json.dumps({"messages": [{"role": "user", "content": content}, ANSWER]})
        (top / "in" / f"{name}.jsonl").write_text(line + "\n" + line + "\n")
        asked = {"image": path, "question": "colour?", "answers": ["red"] * 10}
        (top / "in" / f"{name}.vqa.jsonl").write_text(json.dumps(asked) + "\n")
    return top


COMMANDS = {
    "validate": "data validate {data}",
    "validate deep": "data validate --deep {data}",
    "stats": "data stats {data}",
    "show": "show {model} --sample {data}:2",
    "generate": "generate {model} {data} -o {out}.jsonl --max-new-tokens 1",
    "evaluate": "evaluate {model} --data {data} --max-new-tokens 1",
    "benchmark": "evaluate {model} --data {data} --benchmark okvqa --max-new-tokens 1",
    "benchmark's own lines": "evaluate {model} --data {asked} --benchmark okvqa --max-new-tokens 1",
    "train": "train digits --model {model} --data digits={data} -o {out}",
    "finetune": "finetune {model} --data {data} --full --steps 1 -o {out}",
    "finetune, evaluation": "finetune {model} --data {good} --eval-data {data} --full --steps 1 -o {out}"
    " --set stages.0.evaluation.limit=1",
}


def run(command: str, world: Path, name: str, out: Path, root: Path | None) -> int:
    data = world / "in" / f"{name}.jsonl"
    fields = {"model": world / "model", "data": data, "asked": data.with_suffix(".vqa.jsonl"), "out": out}
    words = COMMANDS[command].format(**fields, good=world / "in" / "good.jsonl").split()
    return cli.run([*words, *(["--media-root", str(root)] if root else [])])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_media_outside_are_refused(command: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("up", "whole", "link"):
        assert run(command, world, name, tmp_path / name, world / "in") == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"{name}." in said and "leads outside of" in said and "messages[0].content[0].image" in said
    if command not in ("train", "finetune", "benchmark"):  # the commands after them do it too
        assert run(command, world, "good", tmp_path / "good", world / "in") == 0
        assert run(command, world, "up", tmp_path / "without", None) == 0


def test_in_python_it_is_an_argument(world: Path, tmp_path: Path) -> None:
    model, data, root = tiny(), world / "in" / "link.jsonl", world / "in"
    spec = ModelSpec(base=str(world / "model"))
    stage = Stage(steps=1, mixture=(Source(path=str(data)),), parts={"language": PartTraining(train="full")})
    recipe = Recipe(name="it", model=spec, stages=(stage,), media_root=str(root))
    doors = (
        lambda: evaluate(model, data, media_root=root),
        lambda: answer_file(model, data, tmp_path / "out.jsonl", media_root=root),
        lambda: train(recipe, tmp_path / "run"),
    )
    for door in doors:
        with pytest.raises(WeftError, match="leads outside of"):
            door()
