"""Writes the mean of two shipped folders of `bundled`, of which one went on from the other.

    python benchmarks/bundled_mean.py BEFORE AFTER OUT [--share 0.5]

Weights of one model before and after more training lie near enough that their mean answers as well as either and keeps
more of what each knows (model soups, https://arxiv.org/abs/2203.05482). OUT is AFTER with so large a ``share`` of its
own; LICENSE and README.md that lie there stay.
"""

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from weft.models.adapters import CONFIG, WEIGHTS


def rows(folder: Path) -> list[int]:
    """Ids of the rows of the language model's table, in their order."""
    (found,) = json.loads((folder / CONFIG).read_text())["trainable_token_indices"].values()
    return found  # type: ignore[no-any-return]


def mean(before: Path, after: Path, share: float = 0.5) -> dict[str, Tensor]:
    """Raises `ValueError` where the two are not of one model."""
    old, new = (load_file(folder / WEIGHTS) for folder in (before, after))
    if {n: t.shape for n, t in old.items()} != {n: t.shape for n, t in new.items()}:
        raise ValueError(f"{before} and {after} do not have the same tensors")
    order = [rows(before).index(row) for row in rows(after)]
    old = {n: t[order] if ".token_adapter." in n else t for n, t in old.items()}
    return {
        n: ((1 - share) * old[n].float() + share * t.float()).to(t.dtype) if t.is_floating_point() else t
        for n, t in new.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("before", "after", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--share", type=float, default=0.5)
    asked = parser.parse_args()
    tensors = mean(asked.before, asked.after, asked.share)
    if asked.out != asked.after:
        shutil.copytree(
            asked.after, asked.out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.md", "LICENSE*", WEIGHTS)
        )
    save_file(tensors, asked.out / WEIGHTS, {"format": "pt"})
