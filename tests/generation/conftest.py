import pytest

from tiny_model import tiny
from weft.generation import Model


@pytest.fixture(scope="session")
def model() -> Model:
    return tiny()
