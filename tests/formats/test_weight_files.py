"""Reading weights lazily and safely, strict key maps, and writing a folder whole or not at all."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from weft.files import ASIDE
from weft.formats.checkpoints import (
    CheckpointError,
    Output,
    copy,
    new_folder,
    read_file,
    read_folder,
    write_weights,
)

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c.d": torch.randn(5)}


def same(tensors, want=WEIGHTS) -> None:
    assert set(tensors.shapes) == set(want)
    for name, value in want.items():
        assert tensors.shapes[name] == tuple(value.shape) and tensors.dtypes[name] == value.dtype
        assert torch.equal(tensors[name], value)


def test_one_file_of_each_kind(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    torch.save(WEIGHTS, tmp_path / "w.bin")
    torch.save(WEIGHTS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": WEIGHTS, "config": {"x": 1}, "epoch": 3}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.bin", "old.pth"):
        same(read_file(tmp_path / name))
    inside = read_file(tmp_path / "w.pth", inside="model")
    same(inside)
    assert inside.extra == {"config": {"x": 1}, "epoch": 3}
    with pytest.raises(CheckpointError, match="not tensors"):
        read_file(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_with_an_index(tmp_path: Path, kind: str) -> None:
    stem, save = ("model", save_file) if kind == "safetensors" else ("pytorch_model", torch.save)
    where = {"a": f"{stem}-1.{kind}", "b": f"{stem}-2.{kind}", "c.d": f"{stem}-2.{kind}"}
    for file in set(where.values()):
        save({n: WEIGHTS[n] for n, f in where.items() if f == file}, tmp_path / file)
    index = tmp_path / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    same(read_folder(tmp_path))
    index.write_text(json.dumps({"weight_map": {**where, "e": f"{stem}-2.{kind}"}}))
    with pytest.raises(CheckpointError, match="lists e, which its shards do not hold"):
        read_folder(tmp_path)
    (tmp_path / f"{stem}-2.{kind}").unlink()
    with pytest.raises(CheckpointError, match="not in the folder"):
        read_folder(tmp_path)


class Dangerous:
    def __reduce__(self):
        return print, ("this must never run",)


def test_a_pickle_that_needs_more_than_tensors_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"model": WEIGHTS, "hook": Dangerous()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="refused"):
        read_file(tmp_path / "w.pth", inside="model")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Dangerous(), protocol=2))
    with pytest.raises(CheckpointError, match="refused"):
        read_file(tmp_path / "plain.pth")
    assert "never" not in capsys.readouterr().out


def test_damaged_and_absent_files(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    torch.save(WEIGHTS, tmp_path / "w.bin")
    for name in ("w.safetensors", "w.bin"):
        whole = (tmp_path / name).read_bytes()
        for size in (0, 5, len(whole) // 2, len(whole) - 3):
            (tmp_path / name).write_bytes(whole[:size])
            with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
                read_file(tmp_path / name)
    with pytest.raises(CheckpointError, match="no such file"):
        read_file(tmp_path / "absent.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_folder(tmp_path / "empty")


def test_written_shards_are_read_back(tmp_path: Path) -> None:
    save_file({n: t.float() for n, t in WEIGHTS.items()}, tmp_path / "in.safetensors")
    tensors = read_file(tmp_path / "in.safetensors")
    outputs = [copy(tensors, n, f"x.{n}") for n in WEIGHTS] + [Output("y", (), lambda: torch.tensor(2.0))]
    steps = []
    total = write_weights(
        outputs, tmp_path, torch.float32, lambda done, all_: steps.append((done, all_)), shard_bytes=30
    )
    assert total == 4 * (6 + 4 + 5 + 1) and steps[-1] == (total, total)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 3 and index["metadata"]["total_size"] == total
    got: dict[str, torch.Tensor] = {}
    for file in sorted(tmp_path.glob("model-*.safetensors")):
        got |= load_file(file)
    for name, value in WEIGHTS.items():
        assert torch.equal(got[f"x.{name}"], value.float())
    assert got["y"] == 2 and got["y"].shape == ()


def test_values_that_do_not_fit_the_type_stop_the_import(tmp_path: Path) -> None:
    big = Output("w", (2,), lambda: torch.tensor([1.0, 1e30]))
    with pytest.raises(CheckpointError, match="w: not all values are finite in torch.float16"):
        write_weights([big], tmp_path, torch.float16)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError), new_folder(out) as folder:
        (folder / "config.json").write_text("{}")
        assert not out.exists()
        raise RuntimeError
    assert not out.exists() and list(out.parent.iterdir()) == []

    (tmp_path / "deep" / f"{ASIDE}out").mkdir()  # what a killed import left
    with new_folder(out) as folder:
        (folder / "config.json").write_text("{}")
    assert [p.name for p in out.parent.iterdir()] == ["out"]

    with pytest.raises(CheckpointError, match="not empty"), new_folder(out):
        pass
    with new_folder(out, force=True) as folder:
        (folder / "new").write_text("x")
    assert [p.name for p in out.iterdir()] == ["new"]
    with pytest.raises(CheckpointError, match="not a model folder"), new_folder(out, force=True):
        pass
    with pytest.raises(CheckpointError, match="is a file"), new_folder(out / "new"):
        pass
