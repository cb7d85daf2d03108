"""What every test shares: one thread (results and speed do not depend on the machine), and where shared data lies."""

import os
import sys
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy and torch read them, and for child processes
    os.environ.setdefault(threads, "1")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of parity kits and real data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (parity kits and real data), which is not here")
    return SHARED


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no progress.png, a third of a small run's time, but for tests marked ``drawn``."""
    if "weft" in sys.modules and request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr("weft.training.picture.draw", lambda run: None)
