"""The papers' claims in miniature, as experiments that anyone can rerun (docs/ablations.md tells what came out).

    python -m benchmarks.ablations [NAME ...] [--seeds 3] [--steps 300]

Every arm of an experiment trains for as many updates on as many samples from the same seeds. Runs are kept in
``OUT/NAME.json``; a run that is there is not repeated, so more seeds are added to what there is.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: its idle threads would spin beside torch's
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.ablations.experiments import EXPERIMENTS, Experiment
from benchmarks.ablations.runs import costs, run

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXPERIMENTS)}; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="updates of every arm (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1000, help="of each kind to learn from (default: %(default)s)")
    parser.add_argument("--tested", type=int, default=100, help="of each kind to measure on (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS, help="where results are kept (default: beside this)")
    given = parser.parse_args(arguments)
    for name in given.names or EXPERIMENTS:
        if name not in EXPERIMENTS:
            parser.error(f"no experiment {name}; there are {', '.join(EXPERIMENTS)}")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):  # all experiments once, then all again: an early end leaves all of them
            for name in given.names or EXPERIMENTS:
                sizes = {"steps": given.steps, "samples": given.samples, "tested": given.tested}
                perform(name, seed, sizes, given.out, Path(folder), parser)
    for name in given.names or EXPERIMENTS:
        print(f"\n{(given.out / f'{name}.md').read_text()}")


def perform(
    name: str, seed: int, sizes: dict[str, int], out: Path, folder: Path, parser: argparse.ArgumentParser
) -> None:
    """The runs of one seed that are not there yet."""
    experiment, path = EXPERIMENTS[name], out / f"{name}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {**sizes, "cost": {}, "runs": []}
    if {key: kept[key] for key in sizes} != sizes:
        there = ", ".join(f"--{key} {kept[key]}" for key in sizes)
        parser.error(f"{path} has runs of {there}; give the same, or another folder with --out")
    if not kept["cost"]:
        kept["cost"] = costs(experiment, folder, sizes["samples"])
    for arm in experiment.arms:
        if not any(r["arm"] == arm and r["seed"] == seed for r in kept["runs"]):
            print(f"{name}: {arm}, seed {seed}", flush=True)
            kept["runs"].append(run(experiment, arm, folder, seed, **sizes))
            keep(path, name, kept)
    keep(path, name, kept)


def keep(path: Path, name: str, kept: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(kept, indent=1) + "\n")
    unfinished.replace(path)
    path.with_suffix(".md").write_text(table(name, EXPERIMENTS[name], kept))


def table(name: str, experiment: Experiment, kept: dict[str, Any]) -> str:
    """Markdown: a row for each figure, a column for each arm, and each arm's difference from the first."""
    arms = list(experiment.arms)
    first, *others = arms
    found = {(r["arm"], r["seed"]): r for r in kept["runs"]}
    seeds = sorted(seed for seed in {r["seed"] for r in kept["runs"]} if all((arm, seed) in found for arm in arms))
    head = ["", *arms, *(f"{arm}: difference" for arm in others), "best constant"]
    rows = [head, ["---", *("---:" for _ in head[1:])]]
    for figure in experiment.figures:
        values = {arm: [found[arm, seed]["figures"].get(figure.name) for seed in seeds] for arm in arms}
        row = [figure.name, *(told(values[arm]) for arm in arms)]
        for arm in others:
            pairs = list(zip(values[arm], values[first], strict=True))
            gaps = [a - b if a is not None and b is not None else None for a, b in pairs]
            row.append(told(gaps, signed=True))
        baseline = next(
            (r["baseline"][figure.name] for r in kept["runs"] if r["baseline"].get(figure.name) is not None), None
        )
        rows.append([*row, told([baseline])])
    cost = kept["cost"]
    rows.append(
        [
            "cost of an update",
            *(f"{cost[a]['ratio']:.2f} ± {cost[a]['error']:.2f}" if a != first else "1" for a in arms),
        ]
        + [""] * (len(others) + 1)
    )
    rows.append(["tokens of a sample", *(f"{cost[a]['tokens']:.0f}" for a in arms), *[""] * (len(others) + 1)])
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    many = f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
    return f"**{name}**: {experiment.claim}\n\n{many}, {kept['steps']} updates; mean ± standard error.\n\n{lines}\n"


def told(values: list[float | None], signed: bool = False) -> str:
    """Mean and standard error; the mean alone of one value; a dash where a value is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "–"
    mean = statistics.fmean(known)
    digits = 0 if max(abs(value) for value in known) >= 10 else 3
    text = f"{mean:{'+' if signed else ''}.{digits}f}"
    return text if len(known) == 1 else f"{text} ± {statistics.stdev(known) / math.sqrt(len(known)):.{digits}f}"


if __name__ == "__main__":
    main()
