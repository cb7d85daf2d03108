"""Whether 2 and 4 ranks learn what one process does: losses and weights after a few updates, side by side.

    PYTHONPATH=tests python benchmarks/ranks_alike.py [--worlds 2 4] [--steps 4]

Rows of one sample each, so that a rank has a picture, a clip or text alone; dropout, accumulation, LoRA, and ranks that
each hold the model, that share it out, and that share it out in two groups. CPU processes, Gloo, float32.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import processes
from rank_processes import QUIET, steps, together
from training_world import picture, speech, text, tiny_recipe, tiny_spec, write
from weft.data import packing
from weft.training.recipe import Lora, Parallel, PartTraining
from weft.training.run import train

LORA = {
    "language": PartTraining(train="lora", lora=Lora(r=2, alpha=4, dropout=0.2)),
    "vision_connector": PartTraining(train="full"),
}
WAYS = {"whole": Parallel(), "shared out": Parallel(shard=True), "in two groups": Parallel(shard=True, replicate=2)}


def main() -> None:
    packing.WINDOW = processes.WINDOW  # by which the ranks plan
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--steps", type=int, default=4)
    asked = parser.parse_args()
    print("| trains | ranks | how | largest difference of a loss | of a weight | weights further than 2e-5 apart |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        files, spec = write(Path(place) / "samples", 20, (speech, picture, speech, text)), tiny_spec(dropout=0.1)
        for kind, parts in (("all", {}), ("LoRA", {"parts": LORA})):
            stage = {"row_tokens": 96, "steps": asked.steps, **parts}
            one = Path(place) / kind
            train(tiny_recipe(files, spec, accumulate=4, **stage), one, console=QUIET)
            before = load_file(one / "final" / "model.safetensors")
            for world in asked.worlds:
                for how, parallel in WAYS.items():
                    if how == "in two groups" and world < 4:
                        continue
                    run = Path(place) / f"{kind}-{world}-{how.replace(' ', '-')}"
                    recipe = tiny_recipe(files, spec, accumulate=4 // world, recipe={"parallel": parallel}, **stage)
                    ended = together(world, recipe, run)
                    if any(status for status, _ in ended):
                        raise SystemExit(ended)
                    after = load_file(run / "final" / "model.safetensors")
                    away = torch.cat([(before[n] - after[n]).abs().flatten() for n in before])
                    loss = max(abs(a["loss"] - b["loss"]) for a, b in zip(steps(one), steps(run), strict=True))
                    far = int((away > 2e-5).sum())
                    print(f"| {kind} | {world} | {how} | {loss:.1e} | {away.max():.1e} | {far} of {len(away):,} |")


if __name__ == "__main__":
    main()
