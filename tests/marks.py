"""Marks for one of many values of a parameter."""

from typing import Any

import pytest


def slow(*values: Any, **named: Any) -> Any:
    """Values that ``make test-fast`` leaves out: like others that it runs, or their kind is tested elsewhere."""
    return pytest.param(*values, marks=pytest.mark.slow, **named)
