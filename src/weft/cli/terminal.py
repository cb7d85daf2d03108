"""How weft looks in a terminal: one accent colour, aligned figures, no boxes around everything.

``out`` is for results (stdout), ``err`` for progress and remarks (stderr). Neither guesses colours or markup inside
strings that come from files.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

THEME = Theme({"accent": "cyan", "quiet": "dim", "good": "green", "bad": "bold red", "warn": "yellow", "head": "bold"})

out = Console(theme=THEME, highlight=False, markup=False, emoji=False)
err = Console(theme=THEME, highlight=False, markup=False, emoji=False, stderr=True)


def facts(rows: Iterable[tuple[str, str, str]], title: str | None = None) -> Table:
    """Name, figure, remark: one line each, figures to the right."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
    table.title_style = "head"
    table.add_column(style="quiet", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="quiet")
    for name, figure, remark in rows:
        table.add_row(Text(name), Text(figure), Text(remark))
    return table


def number(value: float) -> str:
    """``12,345`` or ``3.14``."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def size(count: float) -> str:
    """``49.3 MB``: powers of ten, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def duration(seconds: float) -> str:
    """``0.48 s``, ``4.2 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
