"""How many updates fit into a stage's minutes."""

from __future__ import annotations

from weft.training.recipe import Stage


class Pace:
    """Turns a stage's minutes into steps: the median of the first updates' times, the very first ones aside."""

    FIRST, LAST = 3, 20

    def __init__(self, stage: Stage) -> None:
        assert stage.minutes is not None
        self.seconds = 60 * stage.minutes
        self.times: list[float] = []

    def after(self, seconds: float) -> int | None:
        """The stage's steps, once enough updates have been timed."""
        self.times.append(seconds)
        usual = sorted(self.times[self.FIRST :])
        if not usual or (len(self.times) < self.LAST and sum(self.times) < self.seconds / 10):
            return None
        left = self.seconds - sum(self.times)
        return max(len(self.times) + int(left / usual[len(usual) // 2]), len(self.times) + 1)
