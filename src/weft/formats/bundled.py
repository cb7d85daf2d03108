"""weft's own model: what it learned, shipped as an adapter, and the pretrained parts that it was learned on.

The adapter is one of PEFT's (`adapters`): connectors whole, LoRA on matrices of parts, rows of tables. Beside it lie
the model's configuration and processor. `put_together` makes an ordinary weft folder of it and the parts; `ship` takes
the adapter out of a finished model again, whatever stages trained it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from weft.files import whole_folder
from weft.formats.adapters import LANGUAGE, ROWS, open_adapter, with_lora
from weft.formats.checkpoints import CheckpointError, Output, Tensors, check_weft, read_folder, write_weights
from weft.formats.mapping import wanted_by
from weft.models import doors
from weft.models.adapter_folder import write_adapter
from weft.models.adapters import CONFIG, PREFIX
from weft.models.config import WeftConfig

# Where a part's folder has what weft has under each of these; the first that is there.
PLACES = {
    LANGUAGE: ("",),
    "vision.tower.": ("", "backbone."),
    "vision.classes.": ("",),
    "audio.tower.": ("model.encoder.", "model."),
}
EAR = "audio.tower."
MOST_BYTES = 25_000_000
OWN_FILES = ("*.md", "LICENSE*")  # in the shipped folder, and written by people


class Base:
    """The parts' tensors by weft's names; ``folders``: "language", "vision" and "audio", those that the model has."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.tensors = {name: read_folder(folder) for name, folder in folders.items()}

    def find(self, name: str) -> tuple[Tensors, str] | None:
        """The part that holds weft's tensor ``name``, and its name there; None where it is weft's own."""
        for prefix, places in PLACES.items():
            part = self.tensors.get(prefix.partition("_model")[0].partition(".")[0])
            if part is not None and name.startswith(prefix):
                for place in places:
                    if (theirs := place + name.removeprefix(prefix)) in part:
                        return part, theirs
        return None

    def output(self, name: str, shape: tuple[int, ...]) -> Output:
        """The tensor as the parts have it, in float32; further rows of a table, and all that is not theirs, zeros."""
        found = self.find(name)
        if found is None:
            return Output(name, shape, lambda: torch.zeros(shape))
        part, theirs = found
        held, kind = part.shapes[theirs], part.dtypes[theirs]
        if held[1:] != shape[1:] or held[:1] > shape[:1]:
            raise CheckpointError(f"{part.label}: {theirs} is {held}, and the model takes {shape}; it is another part")
        if not kind.is_floating_point:
            return Output(name, shape, lambda: part[theirs], kind)
        grown = [0, 0] * (len(shape) - 1) + [0, shape[0] - held[0]] if shape else []
        return Output(name, shape, lambda: F.pad(part[theirs].float(), grown))


def put_together(source: Path, parts: Mapping[str, Path], out: Path) -> None:
    """Writes the whole model, in float32, of the shipped folder ``source`` and the folders of its parts."""
    adapter, base = open_adapter(str(source)), Base(parts)
    wanted = wanted_by(doors.load(WeftConfig, source))
    strange = sorted({*adapter.lora, *adapter.rows, *adapter.whole} - set(wanted))
    bare = [name for name in wanted if name not in adapter.whole and base.find(name) is None]
    if strange or bare:
        what = f"changes {strange[0]}, which is not in it" if strange else f"lacks {bare[0]}, which no part has"
        raise CheckpointError(f"{source}: {what}; it belongs to another model, so install weft again")
    outputs = [adapter.replaced(base.output(name, shape)) for name, shape in wanted.items()]
    with whole_folder(out) as folder:
        write_weights(with_lora(outputs, adapter.lora, "the model"), folder, torch.float32)
        for file in source.iterdir():
            if file.suffix in (".json", ".jinja") and file.name != CONFIG:
                shutil.copyfile(file, folder / file.name)
        config = json.loads((source / "config.json").read_text("utf-8")) | {"dtype": "float32"}
        (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")


def ship(model: Path, parts: Mapping[str, Path], hub: str, out: Path, rank: int = 32) -> dict[str, int]:
    """Writes as an adapter what the model in ``model`` has beyond its parts; returns how many tensors of each sort.

    ``rank``: at least the sum of those of the stages that trained a matrix through LoRA. ``hub``: what the adapter says
    it belongs to. Weights are float16. Raises `CheckpointError` where a matrix is not within ``rank`` of its part's, or
    the whole is larger than what a package may hold.
    """
    check_weft(model, str(model))
    weights, base = read_folder(model, pickles=False), Base(parts)
    whole: dict[str, Tensor] = {}
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    rows: dict[str, tuple[list[int], Tensor]] = {}
    for name, shape in weights.shapes.items():
        value, path = weights[name], name.removesuffix(".weight")
        found = base.find(name)
        before = base.output(name, shape).make()
        if found is not None and torch.equal(value.to(before.dtype), before):
            continue
        if found is None or value.ndim != 2 or not name.startswith((LANGUAGE, EAR)):
            whole[name] = value
        elif path.endswith(("embed_tokens", "lm_head")):
            other = (value != before).any(1)
            other[found[0].shapes[found[1]][0] :] = True
            rows[path] = other.nonzero()[:, 0].tolist(), value[other]
        else:
            pairs[path] = _factors(value.float() - before, rank, name)
    tensors = {PREFIX + name: value for name, value in whole.items()}
    tensors |= {PREFIX + path + ROWS: value for path, (_, value) in rows.items()}
    for path, (b, a) in pairs.items():
        tensors |= {f"{PREFIX}{path}.lora_A.weight": a, f"{PREFIX}{path}.lora_B.weight": b}
    kept = {name for name, value in tensors.items() if not value.is_floating_point()}
    tensors = {n: (value if n in kept else value.to(torch.float16)).contiguous() for n, value in tensors.items()}
    config: dict[str, Any] = {"base_model_name_or_path": hub, "r": rank, "lora_alpha": rank}
    config["target_modules"] = sorted(pairs)
    config["rank_pattern"] = {path: len(a) for path, (_, a) in pairs.items() if len(a) < rank}
    config["alpha_pattern"] = dict(config["rank_pattern"])
    config["trainable_token_indices"] = {path: ids for path, (ids, _) in rows.items()}
    config["modules_to_save"] = sorted({name.partition(".")[0] for name in whole})
    if (size := sum(value.nbytes for value in tensors.values())) > MOST_BYTES:
        largest = max(tensors, key=lambda name: tensors[name].nbytes)
        raise CheckpointError(
            f"{model}: {size / 1e6:.0f} MB beyond its parts, and 25 may be shipped; the largest is {largest}"
        )
    with whole_folder(out) as folder:
        write_adapter(folder, tensors, config)
        for file in model.iterdir():
            if file.suffix in (".json", ".jinja") and not file.name.endswith(".index.json"):
                shutil.copyfile(file, folder / file.name)
        for pattern in OWN_FILES:
            for file in out.glob(pattern):
                shutil.copyfile(file, folder / file.name)
    return {"whole": len(whole), "lora": len(pairs), "rows": sum(len(ids) for ids, _ in rows.values())}


def _factors(change: Tensor, rank: int, name: str) -> tuple[Tensor, Tensor]:
    """B [out, r] and A [r, in] whose product is the change, r at most ``rank``; alike in size, as float16 has it."""
    torch.manual_seed(0)
    u, s, v = torch.svd_lowrank(change, q=min(rank + 8, *change.shape), niter=4)
    needed = min(rank, int((s > 1e-3 * s[0]).sum()))
    root = s[:needed].sqrt()
    b, a = u[:, :needed] * root, (v[:, :needed] * root).T
    if (left := float((change - b @ a).norm() / change.norm())) > 0.02:
        raise CheckpointError(f"{name}: a matrix of rank {rank} leaves {left:.0%} of its change; take a higher --rank")
    return b, a
