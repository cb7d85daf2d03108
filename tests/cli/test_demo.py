"""`weft demo` from nothing to a report, cut down to a few steps."""

import json

import pytest

from weft import cli
from weft.cli import demo


@pytest.fixture()
def small(monkeypatch):
    monkeypatch.setattr(demo, "TEST", 8)
    monkeypatch.setattr(demo, "SHOWN", 2)
    monkeypatch.setattr(demo, "ROW_TOKENS", 256)


@pytest.mark.slow
def test_the_demo_runs_from_nothing_and_again_from_its_model(small, tmp_path, capsys):
    command = ["demo", "-o", str(tmp_path / "out"), "--steps", "2", "--samples", "12"]
    assert cli.run(command) == 0
    first = capsys.readouterr()
    assert "Teaching" in first.err and "best constant" in first.out and first.out.count("→") == 2
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert report["signature"]["samples"] == 8
    assert (tmp_path / "out" / "model" / "config.json").is_file()
    assert cli.run(command) == 0
    second = capsys.readouterr()
    assert "an earlier demo" in second.err
    assert [line for line in second.out.splitlines() if "→" in line] == [
        line for line in first.out.splitlines() if "→" in line
    ]
