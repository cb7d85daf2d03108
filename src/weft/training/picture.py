"""The picture of a run: loss above, throughput below, as one PNG that can be read at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from weft.files import whole_file
from weft.training.log import read_log

INK, QUIET, GRID = "#1f2933", "#7b8794", "#e4e7eb"
WARP, WEFT, CHECK, SPEED = "#9fb3c8", "#0b69a3", "#8d2b0b", "#486581"
WARM, LESSON = "#e0c8a0", "#b07d2b"
# What the record of an update (`Log.step`) holds beside its losses, of which the first is "loss".
FACTS = ("event", "time", "stage", "step", "loss", "lr", "grad_norm", "tokens", "labels", "padding", "seconds",
         "waited", "skipped", "samples", "tokens_per_second", "encoder_tflop", "decoder_tflop", "share",
         "memory_gb")  # fmt: skip


def draw(run: Path, file: Path | None = None) -> Path | None:
    """Draw ``run/log.jsonl`` as ``run/progress.png``; None where there is nothing to draw yet."""
    records = read_log(run / "log.jsonl")
    steps = [r for r in records if r["event"] == "step"]
    evals = [r for r in records if r["event"] == "eval"]
    if len(steps) < 2:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1], "hspace": 0.12, "left": 0.08, "right": 0.87}
    )
    x = np.array([r["step"] for r in steps])
    answers = np.array([r["loss"] > 0 for r in steps])  # the others learn what the log names beside it
    loss = np.array([r["loss"] or sum(other_losses(r).values()) for r in steps], float).clip(1e-8)
    smooth = np.empty(len(loss))
    stages = np.cumsum([False, *(a["stage"] != b["stage"] for a, b in pairwise(steps))])
    top.set_yscale("log")
    for stage in range(stages[-1] + 1):
        for kind, thin, thick in ((~answers, WARM, LESSON), (answers, WARP, WEFT)):
            part = kind & (stages == stage)
            if part.any():
                smooth[part] = _smooth(loss[part], len(loss))
                top.plot(x[part], loss[part], color=thin, linewidth=0.7, alpha=0.55)
                top.plot(x[part], smooth[part], color=thick, linewidth=1.9, solid_capstyle="round")
    for kind, color in ((~answers, LESSON), (answers, WEFT)):
        if kind.any():
            last = np.flatnonzero(kind)[-1]
            names = "training" if answers[last] else " + ".join(other_losses(steps[last]))
            ends = last == len(steps) - 1
            _name(top, x[last], smooth[last], f"{names}\n{smooth[last]:.3g}", color, 0 if ends else -16)
    losses = [(r["step"], r["loss"]) for r in evals if r.get("loss") is not None]
    if losses:
        ex, ey = zip(*losses, strict=True)
        ends = np.searchsorted(x[np.flatnonzero(np.diff(stages))], ex)  # an evaluation at its end is of the stage
        for stage in set(ends):
            part = ends == stage
            points = np.array(ex)[part], np.array(ey)[part]
            top.plot(*points, color=CHECK, linewidth=1.2, marker="o", markersize=4, markerfacecolor="white")
        gap = np.log(ey[-1] / smooth[-1]) / np.log(max(loss.max() / loss.min(), 1.5))  # in heights of the panel
        lift = 0.0 if abs(gap) > 0.09 else (18 if gap >= 0 else -18)
        _name(top, ex[-1], ey[-1], f"evaluation\n{ey[-1]:.3g}", CHECK, lift)
    speed = np.array([r["tokens"] / max(r["seconds"], 1e-9) for r in steps])
    speed = np.concatenate([_smooth(part, len(x)) for part in np.split(speed, np.flatnonzero(np.diff(stages)) + 1)])
    bottom.fill_between(x, speed, color=SPEED, alpha=0.12, linewidth=0)
    bottom.plot(x, speed, color=SPEED, linewidth=1.4)
    bottom.set_ylim(0, 1.25 * float(speed.max()))
    _name(bottom, x[-1], speed[-1], f"{np.median(speed):,.0f}\ntokens/s", SPEED)
    for axes in (top, bottom):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.tick_params(colors=QUIET, labelsize=8, length=0, which="both")
        axes.set_axisbelow(True)
    _plain_ticks(top, loss)
    bottom.set_xlim(x[0] - 1, x[-1])
    for a, b in zip(steps, steps[1:], strict=False):
        if a["stage"] != b["stage"]:
            for axes in (top, bottom):
                axes.axvline(b["step"], color=QUIET, linewidth=0.8, linestyle=(0, (3, 3)))
            top.text(b["step"], 1.0, f" {b['stage']}", transform=top.get_xaxis_transform(), color=QUIET, fontsize=8)
    bottom.set_xlabel("step", color=QUIET, fontsize=9)
    figure.text(0.08, 0.945, run.resolve().name, color=INK, fontsize=12.5, weight="bold")
    figure.text(0.08, 0.905, _summary(steps), color=QUIET, fontsize=8.5)
    file = file or run / "progress.png"
    with whole_file(file, "wb") as handle:
        figure.savefig(handle, format="png")
    return file


def _smooth(values: np.ndarray, whole: int | None = None) -> np.ndarray:
    """Exponential mean over about a fiftieth of the ``whole`` run, there and back so that it does not lag."""
    alpha = min(1.0, 50 / max(whole or len(values), 1))

    def there(run: np.ndarray) -> np.ndarray:
        mean, out = float(np.mean(run[:3])), np.empty(len(run))
        for i, value in enumerate(run):
            mean += alpha * (value - mean)
            out[i] = mean
        return out

    return (there(values) + there(values[::-1])[::-1]) / 2


def _name(axes: Any, x: float, y: float, text: str, color: str, lift: float = 0) -> None:
    """A line's name at its end, instead of a legend."""
    axes.annotate(
        text,
        (x, y),
        xytext=(8, lift),
        textcoords="offset points",
        color=color,
        fontsize=8.5,
        va="center",
        annotation_clip=False,
    )


def _plain_ticks(axes: Any, loss: np.ndarray) -> None:
    """Round numbers on the logarithmic axis instead of powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = float(np.nanmin(loss)), float(np.nanmax(loss))
    axes.set_ylim(max(low * 0.9, 1e-8), high * 1.15)
    for steps in ((1, 2, 5), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [m * 10.0**e for e in range(-8, 5) for m in steps]
        ticks = [t for t in ticks if low * 0.9 <= t <= high * 1.15]
        if len(ticks) > 1:
            break
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def _summary(steps: Sequence[dict[str, Any]]) -> str:
    seconds = sum(r["seconds"] for r in steps)
    tokens = sum(r["tokens"] for r in steps)
    padding = float(np.mean([r["padding"] for r in steps]))
    return (
        f"loss by step · {len(steps):,} steps, {tokens / 1e6:,.2f} M tokens in {seconds / 60:,.1f} minutes"
        f" · {padding:.1%} padding"
    )


def other_losses(record: dict[str, Any]) -> dict[str, float]:
    """What an update learned beside answers, by name."""
    return {name: value for name, value in record.items() if name not in FACTS}
