"""Marks for one of many values of a parameter."""

from typing import Any

import pytest


def nightly(*values: Any, **named: Any) -> Any:
    """Values that ``make test-all`` alone runs: what they cost is much, and what they test others test nearly too."""
    return pytest.param(*values, marks=pytest.mark.nightly, **named)


def slow(*values: Any, **named: Any) -> Any:
    """Values that ``make test-fast`` leaves out: like others that it runs, or their kind is tested elsewhere."""
    return pytest.param(*values, marks=pytest.mark.slow, **named)
