"""What a run tells: ``log.jsonl`` always, one live line in a terminal, TensorBoard and W&B where asked for."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from weft.files import whole_file
from weft.named import Named

PLAIN_EVERY = 15.0  # seconds between lines where there is no terminal
LOGGERS = Named[Any](
    {"tensorboard": "weft.training.loggers:TensorBoard", "wandb": "weft.training.loggers:WeightsAndBiases"}
)
REMEMBER = 20  # steps that the live line's speed and loss are means over


def cut_log(path: Path, step: int) -> None:
    """Drop records past ``step`` (they are about to be made again) and what `read_log` leaves out."""
    if not path.exists():
        return
    kept = [record for record in read_log(path) if record.get("step", 0) <= step]
    with whole_file(path) as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a ``log.jsonl``, without lines that a kill cut short or that are damaged."""
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and "event" in record:
                records.append(record)
    return records


class Log:
    """One run's log. Use as a context manager."""

    def __init__(
        self,
        run: Path,
        *,
        loggers: Sequence[str] = (),
        console: Console | None = None,
        name: str = "",
        silent: bool = False,
        observe: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        """``silent``: tells nobody anything (a rank beside the first), but for ``observe``, which has each record."""
        self.observe = observe
        self.console = Console(quiet=True) if silent else console or Console(stderr=True, highlight=False)
        self._file = (Path(os.devnull) if silent else run / "log.jsonl").open("a", buffering=1)
        loggers = () if silent else loggers
        self._sinks = [LOGGERS[kind](run, name) for kind in loggers]
        self._live: Live | None = None
        self._recent: deque[dict[str, Any]] = deque(maxlen=REMEMBER)
        self._told = 0.0

    def __enter__(self) -> Log:
        if self.console.is_terminal and not self.console.quiet:
            self._live = Live(console=self.console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()
        self._file.close()
        for sink in self._sinks:
            sink.close()

    def write(self, event: str, **values: Any) -> None:
        """One record of the log file."""
        record = {"event": event, **values, "time": round(time.time(), 3)}
        self._file.write(json.dumps(record) + "\n")
        if self.observe is not None:
            self.observe(record)
        if "step" in values:
            numbers = {f"{event}/{k}": v for k, v in values.items() if isinstance(v, (int, float)) and k != "step"}
            for sink in self._sinks:
                sink.add(values["step"], numbers)

    def new_stage(self) -> None:
        """What is told of speed and loss is of the stage that begins."""
        self._recent.clear()

    def say(self, text: str) -> None:
        """A sentence for the person who watches."""
        self.console.print(Text(text), soft_wrap=True)

    def step(self, *, stage: str, step: int, last: int | None, losses: dict[str, float], **values: Any) -> None:
        """A training step: recorded, and shown on the live line. ``losses`` by name: "loss", and what else is learned;
        a loss of 0 says that nothing was learned for it. ``last`` None: the stage's end is not known yet."""
        self.write("step", stage=stage, step=step, **losses, **values)
        self._recent.append({**values, "losses": losses})
        line = self._line(stage, step, last)
        if self._live:
            self._live.update(line)
        elif time.monotonic() - self._told >= PLAIN_EVERY or step == last:
            self._told = time.monotonic()
            self.console.print(line, soft_wrap=True)

    def _line(self, stage: str, step: int, last: int | None) -> Text:
        seconds = sum(r["seconds"] for r in self._recent)
        learned = [r for r in self._recent if r["losses"]["loss"] > 0]
        names = ["loss"] if learned else [name for name in self._recent[-1]["losses"] if name != "loss"]
        learned = learned or list(self._recent)
        labels = max(sum(r["labels"] for r in learned), 1)
        loss = sum(r["losses"].get(name, 0.0) * r["labels"] for r in learned for name in names) / labels
        speed = sum(r["tokens"] for r in self._recent) / max(seconds, 1e-9)
        padding = sum(r["padding"] for r in self._recent) / len(self._recent)
        skipped = self._recent[-1]["skipped"]
        line = Text()
        line.append(f"{stage} ", style="bold")
        line.append(f"{step:>{len(str(last))}}/{last}  " if last is not None else f"{step}  ")
        line.append(f"{' + '.join(names)} ", style="dim")
        line.append(f"{loss:.4f}  ", style="bold cyan")
        line.append(f"{speed:,.0f} ")
        line.append("tokens/s  padding ", style="dim")
        line.append(f"{padding:.1%}  ")
        if last is not None:
            line.append("left ", style="dim")
            line.append(clock((last - step) * seconds / len(self._recent)))
        if skipped:
            line.append(f"  {skipped} bad samples left out", style="yellow")
        return line


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
