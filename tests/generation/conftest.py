import sys
from pathlib import Path

import pytest

from tiny_model import tiny
from weft.generation import Model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))  # tiny.py


@pytest.fixture(scope="session")
def model() -> Model:
    return tiny()
