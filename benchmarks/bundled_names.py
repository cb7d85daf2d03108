"""Gives a weft folder whose eye is EfficientNet-Lite0 the names of its classes, and teaches it where photographs are.

    python -m benchmarks.bundled_names MODEL OUT [--stamps /usr/share/tuxpaint/stamps] [--classes 1000]
        [--whole FOLDER ...]

MODEL has a connector of kind detector. Its weights stay what they are; beside them come the eye's classifier, how the
language model spells the names, and a layer of as many numbers as the eye has channels, fitted to 900 pictures of
photographs (`photographs.py`) and 500 drawn ones: does a place lie in the middle of a photograph? Folders of
photographs that fill the frame (``--whole``) give 400 more pictures, parts of them, for a second layer that tells these
from all others by the mean of their places.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from benchmarks.photographs import STAMPS, of_split, photographs, sheet
from PIL import Image as Pictures
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from weft.files import whole_folder
from weft.models.adapters import adapter_base
from weft.models.config import VisionSection
from weft.models.encoders import image_kind
from weft.models.photographs import Photographs
from weft.models.processing import WeftProcessor
from weft.parts import sources
from weft.playground.chance import Chance
from weft.playground.scenes import draw_scene

PICTURES, DRAWN, WHOLE = 900, 500, 400
SUFFIXES = (".jpg", ".jpeg", ".webp", ".png")
MIDDLE = 0.8  # of a box: so much of each side
DECAY = 1e-3


def within(boxes: Any, grid: tuple[int, int]) -> np.ndarray:
    """[rows, columns]: 1 where the middle of a place lies in the middle of a box, and at least at one place of each."""
    y, x = ((np.arange(n) + 0.5) / n for n in grid)
    found = np.zeros(grid, np.float32)
    for left, top, right, bottom in boxes:
        down, across = abs(y - (top + bottom) / 2), abs(x - (left + right) / 2)
        found[np.ix_(down < MIDDLE * (bottom - top) / 2, across < MIDDLE * (right - left) / 2)] = 1
        found[int(down.argmin()), int(across.argmin())] = 1
    return found


def part_of(chance: Chance, path: Path) -> Any:
    """Of a photograph half of each side at least, at most 480 pixels."""
    picture = Pictures.open(path).convert("RGB")
    wide, high = (round(chance.between(0.5, 1) * side) for side in picture.size)
    left, top = chance.whole(0, picture.width - wide), chance.whole(0, picture.height - high)
    picture = picture.crop((left, top, left + wide, top + high))
    picture.thumbnail((480, 480))
    return picture


def fitted(x_MD: torch.Tensor, there_M: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's numbers, which a logistic regression of normalised features gives."""
    mean_D, spread_D = x_MD.mean(0), x_MD.std(0).clamp(min=1e-6)
    normal_MD = (x_MD - mean_D) / spread_D
    weight_D, bias = torch.zeros(x_MD.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_D, bias], max_iter=30, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = F.binary_cross_entropy_with_logits(normal_MD @ weight_D + bias, there_M)
        found = found + DECAY * weight_D.square().sum()
        found.backward()
        return found

    optimizer.step(loss)  # type: ignore[arg-type]
    looks_D = (weight_D / spread_D).detach()
    return looks_D, (bias - looks_D @ mean_D).detach()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--stamps", type=Path, default=STAMPS)
    options.add_argument("--part", type=Path, default=sources()["vision"])
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--whole", type=Path, nargs="*", default=[])
    given = options.parse_args()
    torch.set_num_threads(1)
    config = json.loads((given.model / "config.json").read_text())
    config["vision"]["connector"]["classes"] = given.classes
    kind = image_kind(VisionSection.model_validate(config["vision"]))
    processor = WeftProcessor.from_pretrained(given.model)
    tower: Any = kind.build().eval()
    base = Path(adapter_base(str(given.model))[0])  # within it, where LoRA lies beside the weights
    weights = load_file(base / "model.safetensors")
    own = {name.removeprefix("vision."): value for name, value in weights.items() if name.startswith("vision.")}
    tower.load_state_dict(own, strict=False)
    told = Photographs(kind.section.connector, tower.width)
    model = SimpleNamespace(vision=tower, vision_connector=SimpleNamespace(photographs=told))
    kind.introduce(model, processor, str(given.part))
    names = list(json.loads((given.part / "config.json").read_text())["id2label"].values())
    found = of_split(photographs(given.stamps, names), "train")
    side = round(kind.section.connector.group**0.5)
    rows, columns = kind.grid[0] // side, kind.grid[1] // side
    seen, there = [], []
    filling = sorted(file for folder in given.whole for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    with torch.inference_mode():
        for n in range(PICTURES + DRAWN + (WHOLE if filling else 0)):
            chance = Chance(np.random.default_rng((77, n)))
            made = sheet(chance, found) if n < PICTURES else None
            if n >= PICTURES + DRAWN:
                picture = part_of(chance, chance.one(filling))
            else:
                picture = made.picture if made else draw_scene(chance).render()
            features_TD = tower(torch.from_numpy(kind.pixels(picture)))[0]
            seen.append(features_TD.reshape(rows, side, columns, side, -1).mean((1, 3)).flatten(0, 1))
            there.append(torch.from_numpy(within(made.boxes if made else (), (rows, columns))).flatten())
    others = PICTURES + DRAWN
    told.looks, told.bias = fitted(torch.cat(seen[:others]).clone(), torch.cat(there[:others]))
    if filling:
        fills_N = torch.arange(len(seen)) >= others
        told.fills, told.fills_bias = fitted(torch.stack([each.mean(0) for each in seen]), fills_N.float())
    weights |= {f"vision.classes.{name}": value for name, value in tower.classes.state_dict().items()}
    weights |= {f"vision_connector.photographs.{name}": value for name, value in told.state_dict().items()}
    with whole_folder(given.out) as folder:
        shutil.copytree(given.model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model.safetensors"))
        inner = folder / base.relative_to(given.model)
        for place in {folder, inner}:
            (place / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            before = json.loads((place / "processor_config.json").read_text())
            before["config"]["vision"]["connector"]["classes"] = given.classes
            (place / "processor_config.json").write_text(json.dumps(before, indent=2) + "\n")
        save_file(weights, inner / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    main()
