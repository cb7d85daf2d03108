"""Takes out of a finished run what weft ships of its own model: connectors, LoRA and token rows, at most 25 MB.

    python benchmarks/ship_bundled.py RUN/final [--rank 32] [-o src/weft/bundled]

RUN is of the recipe `bundled`, on the parts that `weft parts` brings. The rank is at least the sum of those of the
stages that trained through LoRA. LICENSE and README.md that lie in the folder stay; state in README.md what the new
weights were trained on. Then `weft parts` puts the model together anew, and `weft evaluate bundled` measures what a
user gets.
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.files import whole_folder
from weft.formats.adapters import LANGUAGE, ROWS, Adapter, open_adapter
from weft.formats.bundled import PartTensors
from weft.formats.checkpoints import CheckpointError, check_weft, read_folder
from weft.models.adapter_folder import is_gated, write_adapter
from weft.models.adapters import CONFIG, PREFIX
from weft.models.own import SHIPPED
from weft.parts import PARTS, sources

EAR = "audio.tower."
MOST_BYTES = 25_000_000
OWN_FILES = ("*.md", "LICENSE*")  # in the shipped folder, and written by people


def ship(model: Path, parts: Mapping[str, Path], hub: str, out: Path, rank: int = 32) -> dict[str, int]:
    """Writes as an adapter what the model in ``model`` has beyond its parts; returns how many tensors of each sort.

    ``rank``: at least the sum of those of the stages that trained a matrix through LoRA. ``hub``: what the adapter says
    it belongs to. Weights are float16. Raises `CheckpointError` where a matrix is not within ``rank`` of its part's, or
    the whole is larger than what a package may hold.
    """
    check_weft(model, str(model))
    own = open_adapter(str(model)) if is_gated(str(model)) else None  # LoRA for media alone, which lies apart
    weights, base = read_folder(Path(own.base) if own else model, pickles=False), PartTensors(parts)
    whole: dict[str, Tensor] = {}
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    rows: dict[str, tuple[list[int], Tensor]] = {}
    for name, shape in weights.shapes.items():
        if own is not None and name in own.rows:
            rows[name.removesuffix(".weight")] = _rows(own, name, weights[name], base.output(name, shape, True).make())
            continue
        value, path = weights[name], name.removesuffix(".weight")
        found = base.find(name)
        before = base.output(name, shape).make()
        if found is not None and torch.equal(value.to(before.dtype), before):
            continue
        if own is not None and name.startswith(LANGUAGE):
            raise CheckpointError(f"{model}: {name} of its base is not the part's, and lora_for_media keeps it so")
        if found is None or value.ndim != 2 or not name.startswith((LANGUAGE, EAR)):
            whole[name] = value
        elif path.endswith(("embed_tokens", "lm_head")):
            other = (value != before).any(1)
            other[found[0].shapes[found[1]][0] :] = True
            rows[path] = other.nonzero()[:, 0].tolist(), value[other]
        else:
            pairs[path] = _factors(value.float() - before, rank, name)
    for name, update in own.lora.items() if own else ():
        a, b = (each.float() for each in update.pair())
        pairs[name.removesuffix(".weight")], rank = (b * update.scale, a), max(rank, len(a))
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
        for beside in [Path(own.base), model] if own else [model]:
            for file in beside.iterdir():
                if file.suffix in (".json", ".jinja") and file.name != CONFIG and not file.name.endswith(".index.json"):
                    shutil.copyfile(file, folder / file.name)
        for pattern in OWN_FILES:
            for file in out.glob(pattern):
                shutil.copyfile(file, folder / file.name)
    return {"whole": len(whole), "lora": len(pairs), "rows": sum(len(ids) for ids, _ in rows.values())}


def _rows(own: Adapter, name: str, table: Tensor, usual: Tensor) -> tuple[list[int], Tensor]:
    """Which rows of a table have been learned, and those of its base that no training moves and that are not what
    ``usual`` has: placeholders of media, by which detectors tell that there is nothing."""
    ids, learned = own.ids(name), own.tensors[own.rows[name]]
    other = (table.float() - usual).norm(dim=1) > 0.1 * usual.norm(dim=1)
    other[ids] = False
    more = other.nonzero()[:, 0].tolist()
    return [*ids, *more], torch.cat([learned, table[more].to(learned.dtype)])


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("-o", "--out", type=Path, default=SHIPPED)
    asked = parser.parse_args()
    hub = next(str(part.hub) for part in PARTS if part.role == "language")
    told = ship(asked.model, sources(), hub, asked.out, asked.rank)
    size = sum(file.stat().st_size for file in asked.out.iterdir())
    print(f"{asked.out}: {size / 1e6:.1f} MB; {', '.join(f'{name} {count}' for name, count in told.items())}")
