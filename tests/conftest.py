"""What every test shares: one thread (results and speed do not depend on the machine), and where shared data lies."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

gc.disable()  # until all is imported: a quarter of that time went to looking for garbage, and there is none
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy and torch read them, and for child processes
    os.environ.setdefault(threads, "1")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import processes  # noqa: E402
from weft.data import packing  # noqa: E402

torch.set_num_threads(1)
for profile, count in (("half", 50), ("fast", 20)):  # of 100: see examples.py
    hypothesis.settings.register_profile(profile, max_examples=count)

WINDOW = packing.WINDOW
SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_collection_finish() -> None:
    """What is imported by now stays, and is not looked through again for what may be freed."""
    gc.freeze()
    # What a test leaves is little, and looking for it at the usual pace takes a twentieth of the time of all.
    gc.set_threshold(10_000, 20, 50)
    gc.enable()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of parity kits and real data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (parity kits and real data), which is not here")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def short_plans() -> Iterator[None]:
    """Planning more samples than small runs come to would take a tenth of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WINDOW", processes.WINDOW)
        yield


@pytest.fixture(scope="module")
def whole_plans() -> Iterator[None]:
    """Plans as runs have them where no test shortens them: for figures that were made with these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WINDOW", WINDOW)
        yield


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no progress.png, a third of a small run's time, but for tests marked ``drawn``."""
    if request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr("weft.training.picture.draw", lambda run: None)
