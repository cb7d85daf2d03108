"""Checkpoints that are whole or are not there.

A checkpoint is a folder ``step-00000500`` with the trained weights, the optimizer's tensors and ``state.json``. A kill
or a full disk at any moment leaves the earlier ones as they were (`weft.files`). Each file's size and checksum stand
in ``state.json``, so a damaged one is passed over. No pickle is written or read.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from weft.conversation import WeftError
from weft.files import ASIDE, remove_folder, whole_folder
from weft.training.asked import ASKED


class DiskFull(WeftError):
    """No space left; what was saved before is whole."""


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.path / "weights.safetensors")

    def optimizer(self) -> dict[str, torch.Tensor]:
        return load_file(self.path / "optimizer.safetensors")

    def shapes(self) -> dict[str, torch.Size]:
        """Of what is in it: weights by their names, and the optimizer's tensors, whose names have a slash."""
        if self.state.get("shards"):
            return ASKED["shard_files"].shapes(self.path)
        found: dict[str, torch.Size] = {}
        for file in self.path.glob("*.safetensors"):
            with safe_open(file, "pt") as tensors:
                found |= {name: torch.Size(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        return found

    def read_into(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Fills tensors, or the parts of them that this rank holds."""
        if self.state.get("shards") or any(hasattr(value, "to_local") for value in tensors.values()):
            return ASKED["shard_files"].read_into(self.path, tensors)
        there = self.weights() | self.optimizer()
        for name, value in tensors.items():
            value.copy_(there[name])


def save(
    folder: Path, state: dict[str, Any], weights: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]
) -> Checkpoint:
    """Write a checkpoint of ``state["step"]``. Where there is no room nothing is left."""
    final = folder / f"step-{state['step']:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    need = sum(t.numel() * t.element_size() for t in (*weights.values(), *optimizer.values())) + (1 << 20)
    check_room(folder, need, f"the checkpoint of step {state['step']}")
    with whole_folder(final) as temporary:
        save_file({k: v.detach().contiguous() for k, v in weights.items()}, temporary / "weights.safetensors")
        save_file({k: v.detach().contiguous() for k, v in optimizer.items()}, temporary / "optimizer.safetensors")
        files = {p.name: [p.stat().st_size, _checksum(p)] for p in sorted(temporary.iterdir())}
        state = {**state, "files": files}
        (temporary / "state.json").write_text(json.dumps(state, indent=1))
    return Checkpoint(final, state)


def read(path: Path) -> Checkpoint | None:
    """The checkpoint in a folder, or None where it is not whole."""
    try:
        state = _state(path)
        for name, (size, checksum) in state["files"].items():
            file = path / name
            if file.stat().st_size != size or checksum not in (None, _checksum(file)):
                return None
        return Checkpoint(path, state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def newest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint below ``folder``."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        if (found := read(path)) is not None:
            return found
    return None


def newer(folder: Path, found: Checkpoint | None) -> list[Path]:
    """What `newest` has passed over."""
    return [path for path in sorted(folder.glob("step-*")) if found is None or path.name > found.path.name]


def prune(folder: Path, keep_last: int, keep_best: int, lower_is_better: bool, measured: list[Any]) -> None:
    """Delete all but the last and the best by ``state["score"]``; and what an interrupted write left.

    Only scores that were ``measured`` so (stage, metric, data) are compared: the best of another stage have been taken
    when it ended.
    """
    paths = sorted(folder.glob("step-*"))
    ranked = _ranked([Checkpoint(path, _state(path)) for path in paths], lower_is_better, measured)
    keep = {*paths[-max(keep_last, 1) :], *(checkpoint.path for checkpoint in ranked[:keep_best])}
    for path in paths:
        if path not in keep:
            remove_folder(path)
    for path in folder.glob(f"{ASIDE}*"):
        shutil.rmtree(path, ignore_errors=True)


def best(folder: Path, lower_is_better: bool, measured: list[Any]) -> Checkpoint | None:
    """The whole checkpoint with the best score of those ``measured`` so."""
    found = [c for path in sorted(folder.glob("step-*")) if (c := read(path)) is not None]
    return next(iter(_ranked(found, lower_is_better, measured)), None)


def _ranked(found: list[Checkpoint], lower_is_better: bool, measured: list[Any]) -> list[Checkpoint]:
    """Those with a score that were ``measured`` so, the best first."""
    scored = [c for c in found if c.state.get("score") is not None and c.state.get("measured") == measured]
    return sorted(scored, key=lambda c: c.state["score"] * (1 if lower_is_better else -1))


def check_room(folder: Path, need: int, what: str) -> None:
    """Raise `DiskFull` where ``need`` bytes do not fit below ``folder``."""
    free = shutil.disk_usage(folder).free
    if free < need:
        raise disk_full(folder, f"{what} takes {need / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free")


def disk_full(folder: Path, what: str) -> DiskFull:
    return DiskFull(f"{folder}: the disk is full: {what}; what was saved before is whole; make room, then go on")


def _state(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; nothing where that is damaged."""
    try:
        state = json.loads((path / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return value
