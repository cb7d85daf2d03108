"""A long recording through a running server: every word once, in its place, in each format."""

import importlib
from pathlib import Path

import pytest
from serving_kit import NAME

from weft.dialects.chatml import ChatML
from weft.serving.limits import Limits

SECONDS = 60  # of an hour: `python -m benchmarks.serving.hour`


@pytest.mark.slow
def test_words_of_a_long_recording_neither_drift_nor_are_lost(model, serve, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    hour = importlib.import_module("benchmarks.serving.hour")
    monkeypatch.setattr(ChatML, "parse", hour.told)
    data, starts = hour.recording(SECONDS, seed=1)
    assert len(starts) > 15
    with serve(model, Limits(tokens=2)) as served:
        for form in ("verbose_json", "srt", "vtt"):
            answer = hour.ask(served.http, data, NAME, form)
            assert int(answer.headers["weft-windows"]) > SECONDS / 2
            assert hour.check(form, answer, starts) == []
            for wrong in (starts[:-1], [s + 0.02 * (i > 10) for i, s in enumerate(starts)]):  # the check itself
                assert hour.check(form, answer, wrong)
