"""What a stranger gets: the wheel holds what the package needs, and does what the README says without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import tiny_model

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, as pip lays it out; built from a copy, for building writes beside the sources."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", copy / "src", ignore=leave)
    made = tmp_path_factory.mktemp("wheel")
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(made)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    with zipfile.ZipFile(next(made.glob("*.whl"))) as archive:
        archive.extractall(made / "installed")
    return made / "installed"


def commands(wheel: Path, folder: Path, *lines: str) -> str:
    """Commands one after the other in a folder of their own, of the package in the wheel and no other."""
    script = "import sys, weft, weft.cli\nassert weft.__file__.startswith(sys.argv[1]), weft.__file__\n"
    script += "for line in sys.argv[2:]:\n    assert weft.cli.run(line.split()) == 0, line\n"
    environment = {**os.environ, "PYTHONPATH": str(wheel), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", script, str(wheel), *lines]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "src/weft"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode or not tracked.stdout:
        pytest.skip("not a checkout of git, so nothing says which files belong to the package")
    there = [name.removeprefix("src/") for name in tracked.stdout.splitlines() if (ROOT / name).is_file()]
    assert [name for name in there if not (wheel / name).is_file()] == []


@pytest.mark.slow
def test_a_stranger_can_check_samples(wheel: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": turns}))
    assert "1 sample" in commands(wheel, tmp_path, "data validate train.jsonl")


@pytest.mark.nightly
def test_a_stranger_can_check_look_train_measure_and_ask(wheel: Path, tmp_path: Path) -> None:
    found = tiny_model.tiny()
    found.model.save_pretrained(tmp_path / "base")
    found.processor.save_pretrained(tmp_path / "base")
    lines = []
    for i in range(4):
        tiny_model.picture(i).save(tmp_path / f"{i}.png")
        question = [{"type": "image", "image": f"{i}.png"}, {"type": "text", "text": "which?"}]
        lines.append({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "this"}]})
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = commands(
        wheel,
        tmp_path,
        "data validate train.jsonl",
        "finetune base --data train.jsonl -o tuned --set stages.0.steps=1",
        "evaluate tuned --data train.jsonl -o report",
        "show minigpt_v2",
    )
    assert (tmp_path / "tuned/config.json").is_file() and (tmp_path / "report/index.html").is_file()
    assert "minigpt_v2" in said


def test_the_extra_all_is_all_that_a_user_may_want() -> None:
    extras = SETTINGS["project"]["optional-dependencies"]
    purposes = set(extras) - {"dev", "all", "vllm", "scale"}  # vllm takes over torch; Ray is for clusters
    (named,) = extras["all"]
    assert set(named.removeprefix("weftlm[").removesuffix("]").split(",")) == purposes
