"""Where a run is told beside its log: each is made of the run's folder and name, and given numbers by step."""

from __future__ import annotations

import json
from pathlib import Path

from weft.conversation import WeftError


class TensorBoard:
    def __init__(self, run: Path, name: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise WeftError('the tensorboard logger needs: pip install "weftlm[tensorboard]"') from None
        self.writer = SummaryWriter(str(run / "tensorboard"))

    def add(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    def __init__(self, run: Path, name: str) -> None:
        try:
            import wandb
        except ImportError:
            raise WeftError('the wandb logger needs: pip install "weftlm[wandb]"') from None
        facts = json.loads((run / "run.json").read_bytes())
        # Another run of that name is another run, and so is a copy that goes on elsewhere.
        mark = f"{run.resolve().name}-{facts.get('moved', facts['started']):.0f}"
        self.run = wandb.init(project="weft", name=name, dir=str(run), resume="allow", id=mark)

    def add(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()
