"""How good a model was when: the scores of every checkpoint of a run, against the minutes it had trained by then.

    weft finetune scratch --data digits/train.jsonl -o OUT --set keep_last=30
    python -m benchmarks.curve OUT OUT.run digits/test.jsonl -o digits.json
    python -m benchmarks.curve --draw curves.svg digits.json cells.json

The first command keeps checkpoints on the way, the second scores each as `weft evaluate` does and writes what it found,
the third draws such files side by side. Minutes are of the clock: pauses between a stop and a resume are left out, all
else that the machine did meanwhile is not. For runs of one stage that train every weight.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

import weft
from weft.evaluation.run import evaluate
from weft.training import checkpoint

SHOWN = {
    "wer": "WER",
    "word_time_ms": "word times, ms",
    "box_accuracy_50": "boxes right",
    "box_f1_50": "boxes, F1",
    "exact": "exact",
}
UPWARDS = ("box_accuracy_50", "box_f1_50", "exact")


def minutes_by_step(run: Path) -> dict[int, float]:
    """Minutes of training at each update, from the log."""
    found: dict[int, float] = {}
    spent, last = 0.0, None
    for record in map(json.loads, (run / "log.jsonl").read_text().splitlines()):
        if record["event"] == "start":
            last = record["time"]
        elif record["event"] == "step":
            spent += record["time"] - (last if last is not None else record["time"])
            last = record["time"]
            found[record["step"]] = spent / 60
    return found


def curve(model: Path, run: Path, data: Path) -> dict[str, Any]:
    """Scores of the checkpoints of ``run`` and of the finished model, by update."""
    answerer = weft.load(str(model))
    minutes = minutes_by_step(run)
    final = {name: tensor.clone() for name, tensor in answerer.model.state_dict().items()}
    points: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    kept = [found for path in sorted((run / "checkpoints").glob("step-*")) if (found := checkpoint.read(path))]
    steps: dict[int, dict[str, Any]] = {found.step: found.weights() for found in kept}
    steps.setdefault(max(minutes), final)
    for step, weights in sorted(steps.items()):
        odd = answerer.model.load_state_dict(weights, strict=False).unexpected_keys
        if odd:
            raise SystemExit(
                f"{run}: its checkpoints hold {odd[0]}, which {model} has not; give a run without adapters"
            )
        report = evaluate(answerer, data, None, name=str(model))
        scores = {task: {k: v for k, v in each.items() if k in SHOWN} for task, each in report["metrics"].items()}
        best = best or report["baseline"]
        points.append({"step": step, "minutes": round(minutes[step], 2), "metrics": scores})
        print(f"{step:>6} updates  {minutes[step]:6.1f} min  {json.dumps(scores)}", flush=True)
    return {"points": points, "constants": best}


def draw(files: list[Path], out: Path) -> None:
    """One panel a task and metric, the best constant answer dashed."""
    panels = [
        (file.stem, told, task, metric)
        for file in files
        for told in [json.loads(file.read_text())]
        for task, scores in told["points"][-1]["metrics"].items()
        for metric in scores
        if not (metric == "box_f1_50" and "box_accuracy_50" in scores)
    ]
    mpl.rcParams.update({"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, len(panels), figsize=(2.5 * len(panels), 2.4), squeeze=False, layout="constrained")
    for axis, (name, told, task, metric) in zip(axes[0], panels, strict=True):
        points = [(p["minutes"], p["metrics"].get(task, {}).get(metric)) for p in told["points"]]
        x, y = zip(*[(a, b) for a, b in points if b is not None], strict=True)
        axis.plot(x, y, color="#2b6cb0", marker="o", markersize=3)
        constant = told["constants"].get(task, {}).get(metric)
        top = max([*y, constant or 0]) if constant is None or metric in UPWARDS else max(y[-1], 1.25 * constant)
        if constant is not None:
            axis.axhline(constant, color="#777777", linestyle="--", linewidth=1)
            side = "top" if metric in UPWARDS else "bottom"
            axis.annotate("constant answer", (x[-1], constant), ha="right", va=side, color="#666666", fontsize=8)
        axis.set(title=f"{name}, {task}\n{SHOWN[metric]}", xlabel="minutes", ylim=(0, 1.1 * top), xlim=(0, None))
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="MODEL RUN TEST.jsonl; with --draw: files that -o wrote")
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--draw", type=Path)
    given = parser.parse_args()
    if given.draw:
        draw(given.files, given.draw)
        return
    if len(given.files) != 3 or not given.out:
        parser.error("give MODEL RUN TEST.jsonl and -o FILE")
    given.out.write_text(json.dumps(curve(*given.files), indent=1) + "\n")


if __name__ == "__main__":
    main()
