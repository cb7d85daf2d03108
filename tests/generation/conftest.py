import sys
from pathlib import Path

import pytest

from tiny_model import tiny
from weft.generation import Model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))  # tiny.py


@pytest.fixture(scope="session")
def model() -> Model:
    return tiny()


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model`` as it is saved."""
    place = tmp_path_factory.mktemp("model")
    model.model.save_pretrained(place)
    model.processor.save_pretrained(place)
    return place
