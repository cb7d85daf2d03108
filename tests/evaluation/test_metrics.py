"""The registry: every figure has its row and its computation; families and benchmarks name figures that are there."""

import pytest

from weft.evaluation.benchmarks import BENCHMARKS
from weft.evaluation.constants import KINDS
from weft.evaluation.families import FAMILIES
from weft.evaluation.metrics import COMPUTED, EVERYDAY, METRICS
from weft.evaluation.report import UNITS, described, shown


def test_every_figure_has_its_row_and_its_computation():
    assert METRICS.keys() == COMPUTED.keys() and METRICS.keys() >= set(EVERYDAY)
    for metric in METRICS.values():
        assert metric.better in ("higher", "lower") and metric.unit in UNITS and metric.constant in {*KINDS, "none"}
        assert metric.title and metric.says and metric.meaning.endswith(metric.says)


def test_every_figure_is_some_sample_s_or_some_family_s():
    used = {figure for family in FAMILIES.values() for figure in family.figures} | set(EVERYDAY)
    assert used == METRICS.keys()
    assert {benchmark.figure for benchmark in BENCHMARKS.values()} <= used


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("wer", 0.1234, "12.3 %"),
        ("minigpt_v2_accuracy", 88.69, "88.7 %"),
        ("word_time_ms", 51.5, "52 ms"),
        ("qwen_audio_aas_seconds", 0.0515, "0.051 s"),
        ("hallucinated_words_per_minute", 3.0, "3.0 / min"),
        ("cider", 0.441, "0.44"),
        ("qwen_audio_bleu_de", 25.1, "25.1 %"),
        ("wer", None, "–"),
    ],
)
def test_figures_are_shown_in_their_unit(name, value, said):
    assert shown(name, value) == said
    assert described(name).unit in UNITS
