"""How many examples hypothesis draws: as many as a test says; half in ``make test``, a fifth in ``make test-fast``."""

from typing import Any

from hypothesis import settings

USUAL = 100  # where no profile is asked for: hypothesis' own


def examples(count: int, **more: Any) -> settings:
    """What `hypothesis.settings` is, with so many examples and no deadline."""
    return settings(max_examples=count * settings().max_examples // USUAL, deadline=None, **more)
