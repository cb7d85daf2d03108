"""A checkpoint is whole or is not there."""

import errno
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from weft.training import checkpoint as ckpt


def put(folder, step, score=None):
    weights = {"w": torch.full((4,), float(step))}
    state = {"step": step, "stage": 0, "score": score, "measured": [0, "loss"]}
    return ckpt.save(folder, state, weights, {"exp_avg/w": torch.ones(4)})


def steps(folder):
    return [int(p.name[5:]) for p in sorted(folder.glob("step-*"))]


def test_what_was_saved_is_read_back(tmp_path):
    put(tmp_path, 3)
    found = ckpt.newest(tmp_path)
    assert found.step == 3 and torch.equal(found.weights()["w"], torch.full((4,), 3.0))
    assert torch.equal(found.optimizer()["exp_avg/w"], torch.ones(4))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "state", "half"])
def test_a_damaged_or_half_written_one_is_passed_over(tmp_path, damage):
    put(tmp_path, 1)
    path = put(tmp_path, 2).path
    weights = path / "weights.safetensors"
    raw = weights.read_bytes()
    if damage == "truncate":
        weights.write_bytes(raw[:-3])
    elif damage == "flip":
        weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    elif damage == "remove":
        (path / "optimizer.safetensors").unlink()
    elif damage == "state":
        (path / "state.json").write_text('{"step": 2, "fil')
    else:
        path.rename(tmp_path / f"{ckpt.ASIDE}{path.name}")
    assert ckpt.newest(tmp_path).step == 1


def test_the_last_and_the_best_are_kept(tmp_path):
    scores = {1: 0.5, 2: 0.2, 3: None, 4: 0.4, 5: None, 6: 0.3}
    for step, score in scores.items():
        put(tmp_path, step, score)
        ckpt.prune(tmp_path, keep_last=2, keep_best=1, lower_is_better=True, measured=[0, "loss"])
    assert steps(tmp_path) == [2, 5, 6]
    assert ckpt.best(tmp_path, True, [0, "loss"]).step == 2
    assert ckpt.best(tmp_path, False, [0, "loss"]).step == 6


@pytest.mark.parametrize("place", ["save", "sync"])
def test_a_full_disk_leaves_the_earlier_ones_whole(tmp_path, monkeypatch, place):
    put(tmp_path, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ckpt if place == "save" else os, "save_file" if place == "save" else "fsync", full)
        with pytest.raises(OSError, match="No space left on device.*step-00000002"):
            put(tmp_path, 2)
    assert steps(tmp_path) == [1] and ckpt.newest(tmp_path).step == 1
    assert sorted(os.listdir(tmp_path)) == ["step-00000001"]
    put(tmp_path, 2)
    assert ckpt.newest(tmp_path).step == 2


def test_too_little_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10, used=9, free=1))
    with pytest.raises(ckpt.DiskFull, match=r"checkpoint of step 5 takes 1\.0 MB and 0\.0 MB are free"):
        put(tmp_path, 5)
    assert os.listdir(tmp_path) == []
