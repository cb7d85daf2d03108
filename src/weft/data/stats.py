"""Measures sample files: lengths, tasks, durations, picture sizes, boxes; as numbers and as one picture.

A clip's duration and a picture's size come from its header; only pictures of more than 8 bits a sample are decoded, to
say whether their white is known. Every figure counts what training sees, so a file that ten samples mention counts ten
times (and is opened once).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weft.conversation import Conversation, SampleError, WeftError
from weft.conversation.roots import within
from weft.conversation.samples import iter_lines, parse_line
from weft.data.counts import Counts
from weft.data.quick import Facts, QuickLines
from weft.data.shard_reading import samples_of
from weft.data.shards import Shards
from weft.data.source import is_shards
from weft.media import Stored, audio_samples, image_size
from weft.media.notes import image_notes

# A word is a run of letters between spaces; scripts written without spaces count by the character.
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\s぀-ヿ㐀-鿿가-힯]+")

RATE = 16000  # durations are measured at this rate


@dataclass
class Stats(Counts):
    """The measures beside the counts, one entry per sample, answer, clip or picture, in file order."""

    tokens: list[int] = field(default_factory=list)  # of each sample in training form; empty without a processor
    text_words: list[int] = field(default_factory=list)  # of each sample, all messages
    answer_words: list[int] = field(default_factory=list)  # of each answer; labels and timed words included
    seconds: list[float] = field(default_factory=list)  # of each clip
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (width, height) of each picture
    notes: list[str] = field(default_factory=list)  # what is left out or guessed in reading them, once a file

    def rows(self) -> list[tuple[str, npt.NDArray[np.float64]]]:
        """The measures that have entries, by the name a person reads."""
        widths = [w for w, _ in self.sizes]
        heights = [h for _, h in self.sizes]
        found: list[tuple[str, Sequence[float]]] = [
            ("tokens a sample", self.tokens),
            ("words a sample", self.text_words),
            ("words an answer", self.answer_words),
            ("answers a sample", self.turns if set(self.turns) - {1} else []),
            ("seconds a clip", self.seconds),
            ("picture width", widths),
            ("picture height", heights),
            ("boxes an answer", self.boxes),
            ("timed words an answer", self.words),
        ]
        return [(name, np.asarray(values, dtype=np.float64)) for name, values in found if values]

    def as_dict(self) -> dict[str, Any]:
        """Quantiles of every measure, and the counts, as JSON-ready data."""
        measures = {name.replace(" ", "_"): summarise(values) for name, values in self.rows()}
        counts = {"tasks": dict(self.tasks.most_common()), "languages": dict(self.languages.most_common())}
        learnable = asdict(self.learnable)
        facts = {"files": self.files, "samples": self.samples, **counts, "learnable": learnable}
        return {**facts, "measures": measures, "notes": self.notes}


def summarise(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """Count, smallest, 5 %, median, mean, 95 %, largest and total."""
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return {
        "count": len(values),
        "min": float(values.min()),
        "p05": float(low),
        "median": float(middle),
        "mean": float(values.mean()),
        "p95": float(high),
        "max": float(values.max()),
        "total": float(values.sum()),
    }


def share(part: int, total: int) -> str:
    """``59%``; never 0 % of something, nor 100 % of less than all."""
    percent = 100 * part / total
    if 0 < percent < 1 or 99 < percent < 100:
        return "<1%" if percent < 50 else ">99%"
    return f"{percent:.0f}%"


def _notes(source: Any) -> tuple[str, ...]:
    """Not of pictures in shards whose size is written down: all of their bytes would have to be fetched."""
    return () if isinstance(source, Stored) and source.facts else image_notes(source)


def count_words(text: str) -> int:
    return len(text.split() if text.isascii() else _WORD.findall(text))


def measure(
    paths: Iterable[str | os.PathLike[str]],
    *,
    length: Callable[[Conversation], int] | None = None,
    limit: int | None = None,
    on_progress: Callable[[int], None] | None = None,
    media_root: str | os.PathLike[str] | None = None,
) -> Stats:
    """Measures the samples of files. ``length``: tokens of a conversation (`WeftProcessor.length`); None: not counted.

    ``limit``: only so many samples. ``on_progress`` is called with numbers of bytes read. ``media_root``:
    media lie inside this folder (`weft.conversation.roots.within`). The first mistake raises
    `SampleError`: `weft.data.validate` is what lists them all.
    """
    stats, exists = Stats(), within(media_root)
    duration = lru_cache(maxsize=None)(lambda source: audio_samples(source, RATE) / RATE)
    size = lru_cache(maxsize=None)(image_size)
    notes = lru_cache(maxsize=None)(lambda source: stats.notes.extend(_notes(source)))
    for path in paths:
        file, root = os.fspath(path), os.path.dirname(os.fspath(path))
        stats.files.append(file)
        if is_shards(file):
            shards = Shards(file)
            for row, found in enumerate(samples_of(shards)):
                if limit is not None and stats.samples >= limit:
                    return stats
                if isinstance(found, SampleError):
                    raise found
                _measured(stats, found, *_placed(shards.where(row)), duration, size, notes, length)
            continue
        quick = QuickLines(root, exists) if length is None else lambda _: None
        for number, raw in iter_lines(path):
            if limit is not None and stats.samples >= limit:
                return stats
            if on_progress is not None:
                on_progress(len(raw))
            conversation: Any = quick(raw) or parse_line(
                raw, where=file, line=number, root=root, probe=size, exists=exists
            )
            _measured(stats, conversation, file, number, duration, size, notes, length)
    if not stats.samples:
        raise SampleError("no samples in it: write one JSON object a line", file=", ".join(stats.files))
    return stats


def _placed(where: str) -> tuple[str, int]:
    file, _, row = where.rpartition(":")
    return file, int(row)


def _measured(stats: Stats, conversation: Any, file: str, line: int, *rest: Any) -> None:
    *how, length = rest
    _add(stats, conversation, file, line, *how)
    if length is not None:
        try:
            stats.tokens.append(length(conversation))
        except WeftError as e:
            raise SampleError(str(e), file=file, line=line) from e


def _add(
    stats: Stats,
    conversation: Conversation | Facts,
    file: str,
    line: int,
    duration: Callable[[Any], float],
    size: Callable[[Any], tuple[int, int]],
    notes: Callable[[Any], None],
) -> None:
    stats.add(conversation)
    total = 0
    message: Any
    for m, message in enumerate(conversation.messages):
        words = 0
        for i, part in enumerate(message.parts):
            kind = type(part).__name__
            if kind == "Text":
                words += count_words(part.text)
            elif kind == "Words":
                words += count_words(" ".join([word.text for word in part.words]))
            elif kind == "Box":
                words += count_words(part.label or "")
            elif kind != "Task":
                try:
                    if kind == "Audio":
                        stats.seconds.append(duration(part.source))
                    else:
                        stats.sizes.append(size(part.source))
                        notes(part.source)
                except WeftError as e:
                    where = f"messages[{m}].content[{i}].{kind.lower()}"
                    raise SampleError(str(e), file=file, line=line, field=where) from e
        if message.role == "assistant":
            stats.answer_words.append(words)
        total += words
    stats.text_words.append(total)


# ------------------------------------------------------------------------------------------------------- the picture

SOFT, RULE, FILL, ACCENT = "#6b7a86", "#e3e8ec", "#7fb5b5", "#14746f"


def draw(stats: Stats, path: str | os.PathLike[str]) -> Path:
    """Draws the measures into one picture (PNG, SVG or PDF, by the name's end) and gives its path."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target = Path(path)
    if target.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise WeftError(f"{target}: the picture's name ends in .png, .svg or .pdf; choose one")
    panels = _panels(stats)
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 3.75 * columns + 0.55, 2.45 * rows + 0.95  # inches
    with matplotlib.rc_context(fname=Path(__file__).with_suffix(".mplstyle")):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        figure.subplots_adjust(
            left=0.6 / width, right=1 - 0.3 / width, top=1 - 1.15 / height, bottom=0.5 / height, wspace=0.24, hspace=0.5
        )
        left = 0.6 / width
        figure.text(left, 1 - 0.38 / height, _title(stats.files), fontsize=14, fontweight="bold", va="center")
        figure.text(left, 1 - 0.64 / height, _subtitle(stats), fontsize=9.5, color=SOFT, va="center")
        for place, (title, paint) in enumerate(panels):
            axes = figure.add_subplot(rows, columns, place + 1)
            axes.set_title(title)
            paint(axes)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target)
    return target


def _title(files: Sequence[str]) -> str:
    names = [Path(f).name for f in files]
    if len(set(names)) < len(names):
        names = [f"{Path(f).resolve().parent.name}/{Path(f).name}" for f in files]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _subtitle(stats: Stats) -> str:
    said = [f"{stats.samples:,} samples"]
    if stats.tokens:
        said.append(f"{sum(stats.tokens):,} tokens")
    if stats.sizes:
        said.append(f"{len(stats.sizes):,} pictures")
    if stats.seconds:
        said.append(f"{len(stats.seconds):,} clips, {sum(stats.seconds) / 3600:.2f} h")
    if stats.boxes:
        said.append(f"{sum(stats.boxes):,} boxes")
    if stats.words:
        said.append(f"{sum(stats.words):,} timed words")
    return "   ·   ".join(said)


def _panels(stats: Stats) -> list[tuple[str, Callable[[Any], None]]]:
    """What there is to draw: a title, and what paints it."""
    panels: list[tuple[str, Callable[[Any], None]]] = []
    if stats.tokens:
        panels.append(("Tokens a sample", lambda axes: _histogram(axes, stats.tokens, "")))
    panels.append(("Words a sample", lambda axes: _histogram(axes, stats.text_words, "")))
    panels.append(("Tasks", lambda axes: _bars(axes, {name or "no task": n for name, n in stats.tasks.items()})))
    if stats.seconds:
        panels.append(("Clip length", lambda axes: _histogram(axes, stats.seconds, " s")))
    if stats.sizes:
        panels.append(("Picture size, pixels", lambda axes: _sizes(axes, stats.sizes)))
    if stats.boxes:
        panels.append(("Boxes an answer", lambda axes: _histogram(axes, stats.boxes, "")))
    if stats.words:
        panels.append(("Timed words an answer", lambda axes: _histogram(axes, stats.words, "")))
    if len(stats.languages) > 1:
        panels.append(("Languages", lambda axes: _bars(axes, dict(stats.languages))))
    return panels


def _histogram(axes: Any, values: Sequence[float], unit: str) -> None:
    """How the values are spread, with the median marked; the axis is logarithmic where they span far."""
    data = np.asarray(values, dtype=np.float64)
    low, middle, high = float(data.min()), float(np.median(data)), float(data.max())
    whole = bool(np.all(data == np.round(data)))
    positive = data[data > 0]
    tailed = float(np.quantile(data, 0.95)) < high / 4
    wide = tailed and len(positive) > 0.9 * len(data) and high / positive.min() > 60
    if wide:
        low = float(positive.min())
        data = np.maximum(data, low)  # the few zeros stand in the first bar
        edges = np.geomspace(low, high * 1.001, 32)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: f"{_figure(x)}{unit}")
        axes.xaxis.set_minor_formatter(lambda x, _: "")
    elif whole and high - low <= 40:
        edges = np.arange(low - 0.5, high + 1.5)
        if high - low <= 12:
            axes.set_xticks(np.arange(low, high + 1))
        spare = max(0.0, 2 - (high - low) / 2)  # a bar or two are not as broad as the panel
        axes.set_xlim(low - 0.7 - spare, high + 0.7 + spare)
    else:
        edges = np.linspace(low, high if high > low else low + 1, 32)
    counts, edges = np.histogram(data, edges)
    widths = np.diff(edges)
    axes.bar(edges[:-1] + 0.04 * widths, counts, 0.92 * widths, align="edge", color=FILL)
    axes.axvline(middle, color=ACCENT, linewidth=1.4)
    right = middle > (np.sqrt(low * high) if wide else (low + high) / 2)
    _remark(axes, f"median {_figure(middle)}{unit}", middle, right)
    if not wide:
        axes.xaxis.set_major_formatter(lambda x, _: f"{_figure(x)}{unit}")
    axes.set_ylim(0, counts.max() * 1.18)
    axes.yaxis.set_major_locator(_few_ticks())
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    axes.grid(axis="y")


def _bars(axes: Any, counts: dict[str, int], most: int = 9) -> None:
    """Named counts, largest first, the figure at the end of each bar."""
    ordered = sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
    if len(ordered) > most:
        ordered = [*ordered[: most - 1], (f"{len(ordered) - most + 1} more", sum(n for _, n in ordered[most - 1 :]))]
    names, figures = [name.replace("_", " ") for name, _ in ordered], [n for _, n in ordered]
    total, largest = sum(figures), max(figures)
    column = 0.05 + 0.026 * max(map(len, names))  # share of the panel that the names take
    reach = 1 - column - 0.25  # and the longest bar; the rest is for its figure
    axes.barh(range(len(names)), [n / largest * reach for n in figures], 0.62, left=column, color=FILL)
    for place, (name, n) in enumerate(zip(names, figures, strict=True)):
        axes.text(0, place, name, va="center")
        axes.text(column + n / largest * reach + 0.015, place, f"{n:,}  {share(n, total)}", va="center", color=SOFT)
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(names), 4) - 0.5, -0.5)
    axes.axis("off")


def _sizes(axes: Any, sizes: Sequence[tuple[int, int]]) -> None:
    """Every size as a disc whose area says how many pictures have it."""
    counts = Counter(sizes)
    widths, heights = (np.array(x, dtype=float) for x in zip(*counts, strict=True))
    shares = np.array(list(counts.values())) / len(sizes)
    axes.scatter(widths, heights, 14 + 420 * shares, color=FILL, edgecolor=ACCENT, linewidth=0.8, alpha=0.8)
    (width, height), n = counts.most_common(1)[0]
    _remark(axes, f"most often {width} × {height} ({share(n, len(sizes))})", 0, False)
    limit = max(widths.max(), heights.max()) * 1.2
    axes.plot([0, limit], [0, limit], color=RULE, linewidth=0.8, zorder=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(_few_ticks())
        axis.set_major_formatter(lambda x, _: _figure(x))
    axes.set_xlim(-0.03 * limit, limit)
    axes.set_ylim(-0.03 * limit, limit)
    axes.set_xlabel("width")
    axes.set_ylabel("height")
    axes.grid()


def _remark(axes: Any, text: str, x: float, right: bool) -> None:
    """One line at the top of a panel, to one side of ``x``."""
    axes.annotate(
        text,
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if right else 5, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        fontsize=8.5,
        color=ACCENT,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, integer=True)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"
