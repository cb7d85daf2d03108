"""The experiments of benchmarks/ablations: they run, keep what they ran, and compare like with like."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def ablations(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(importlib.import_module("benchmarks.ablations.runs"), "TURNS", 4)
    return importlib.import_module("benchmarks.ablations.__main__")


def ask(ablations, out, *changes):
    sizes = ("--steps", "2", "--samples", "16", "--tested", "2", "--seeds", "1")
    ablations.main(["timestamps", *sizes, *changes, "-o", str(out)])


@pytest.mark.nightly
def test_an_experiment_gives_a_table_and_is_not_run_again(ablations, tmp_path, monkeypatch, capsys):
    ask(ablations, tmp_path)
    kept = json.loads((tmp_path / "timestamps.json").read_text())
    arms = ["no times", "half with times", "and heard directly"]
    assert [(r["arm"], r["seed"]) for r in kept["runs"]] == [(arm, 0) for arm in arms]
    assert kept["cost"]["no times"]["ratio"] == 1 and all(kept["cost"][arm]["ratio"] > 0 for arm in arms)
    table = (tmp_path / "timestamps.md").read_text()
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in table.splitlines() if "|" in line}
    assert rows["WER, plain transcripts"][1] == f"{kept['runs'][0]['figures']['WER, plain transcripts']:.3f}"
    assert rows["words matched"][1] == "–"  # an arm without times is not asked for them

    monkeypatch.setattr(ablations, "run", lambda *_, **__: pytest.fail("a finished run was repeated"))
    monkeypatch.setattr(ablations, "costs", lambda *_: pytest.fail("costs were measured again"))
    ask(ablations, tmp_path)
    assert json.loads((tmp_path / "timestamps.json").read_text()) == kept

    with pytest.raises(SystemExit):
        ask(ablations, tmp_path, "--steps", "3")
    assert "--steps 2" in capsys.readouterr().err


def test_differences_are_taken_seed_by_seed(ablations):
    """Two arms that vary much from seed to seed, and differ by the same amount in each."""
    experiment = ablations.EXPERIMENTS["stages"]
    runs = [
        {"arm": arm, "seed": seed, "figures": {"box accuracy": value}, "baseline": {"box accuracy": 0.125}}
        for arm, values in (("one stage", (0.2, 0.4, 0.9)), ("three stages", (0.3, 0.5)))
        for seed, value in enumerate(values)
    ]
    cost = {arm: {"ratio": 1.0, "error": 0.0, "tokens": 9.0} for arm in experiment.arms}
    table = ablations.table("stages", experiment, {"steps": 3, "cost": cost, "runs": runs})
    assert "2 seeds" in table  # the third has one arm only
    assert "| box accuracy | 0.300 ± 0.100 | 0.400 ± 0.100 | +0.100 ± 0.000 | 0.125 |" in table


def test_arms_hear_the_same_clips_and_learn_the_same_words(ablations, tmp_path):
    world = importlib.import_module("benchmarks.ablations.world")
    found = {}
    for kind in ("said too", "said too, with times", "said"):
        (tmp_path / kind).mkdir()
        conversation = world.sample(kind, 5, 1, tmp_path / kind)
        found[kind] = Path(conversation.audios[0].source).read_bytes(), conversation.answer.parts[0]
    assert found["said too"][0] == found["said too, with times"][0] != found["said"][0]
    timed = found["said too, with times"][1].words
    assert " ".join(word.text for word in timed) == found["said too"][1].text


def test_one_stage_sees_every_kind_as_often_as_three(ablations):
    experiments = importlib.import_module("benchmarks.ablations.experiments")
    (whole,) = experiments.EXPERIMENTS["stages"].arms["one stage"].phases
    three = experiments.EXPERIMENTS["stages"].arms["three stages"].phases
    for kind, weight in whole.mixture.items():
        drawn = sum(p.share * p.mixture.get(kind, 0) / sum(p.mixture.values()) for p in three)
        assert weight == pytest.approx(drawn)
    assert sum(whole.mixture.values()) == pytest.approx(1)
