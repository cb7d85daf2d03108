"""`weft import`: what it says, where it writes, how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from published_kits import MiniGPT, Qwen

from weft.cli import run


@pytest.fixture
def kit(tmp_path: Path) -> MiniGPT:
    return MiniGPT(tmp_path / "kit")


def arguments(kit: MiniGPT, out: Path, *more: str) -> list[str]:
    named = [x for name, path in kit.arguments().items() for x in (f"--{name}", str(path))]
    return ["import", "minigpt-v2", *named, "-o", str(out), "--dtype", "float32", *more]


def test_it_says_what_was_read_and_written(kit: MiniGPT, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(arguments(kit, tmp_path / "out")) == 0
    said = capsys.readouterr()
    assert "eva_vit_g.pth: 30 tensors used, 17 known to be surplus (blocks.2." in said.out
    assert "minigptv2_checkpoint.pth: 10 tensors used" in said.out
    assert f"{tmp_path / 'out'}: 53 tensors" in said.out and "float32" in said.out
    assert "--vision-heads" in said.err


def test_a_folder_that_is_there_is_kept_unless_forced(
    kit: MiniGPT, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(arguments(kit, tmp_path / "out")) == 0
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert run(arguments(kit, tmp_path / "out")) == 2
    assert "is not empty; give another folder, or --force" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before
    assert run(arguments(kit, tmp_path / "out", "--force")) == 0
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns != before


def test_errors_are_one_sentence(kit: MiniGPT, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (kit.folder / "eva_vit_g.pth").unlink()
    assert run(arguments(kit, tmp_path / "out")) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith("eva_vit_g.pth: no such file") and said.count("\n") == 0
    assert run(["import", "minigpt-v2"]) == 2
    assert "Missing option" in capsys.readouterr().err


def test_qwen_audio_without_a_tokenizer_warns(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Qwen(tmp_path / "kit")
    assert run(["import", "qwen-audio", "--checkpoint", str(tmp_path / "kit"), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "warning: " in said.err and "token ids only" in said.err
    assert "59 tensors used" in said.out
