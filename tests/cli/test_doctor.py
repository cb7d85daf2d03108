"""The doctor names what is broken, with the command that repairs it, and survives what it finds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from marks import slow
from weft import cli
from weft.cli import doctor
from weft.cli.doctor import Finding


def test_a_sound_installation_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    names = {f["name"] for f in said["findings"]}
    assert said["ok"] and {"python", "torch", "transformers", "weft models", "pictures", "sound", "disk"} <= names


@pytest.fixture()
def broken_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision built for another torch, as pip installs it beside a CPU torch."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    (tmp_path / "torchvision-0.28.0.dist-info").mkdir()
    (tmp_path / "torchvision-0.28.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)


@pytest.mark.usefixtures("broken_pair")
def test_a_torchvision_that_does_not_fit_is_named_with_the_repair() -> None:
    (finding,) = [f for f in doctor.examine() if f.name == "torchvision"]
    assert finding.state == "broken" and "0.28.0" in finding.says and "torchvision::nms" in finding.says
    assert finding.fix.startswith("pip uninstall -y torchvision")


@pytest.mark.parametrize(
    ("name", "command", "holds", "said"),
    [
        ("weft", "weft.bootstrap:main", ["weft/__init__.py"], "writes into this package's folder"),
        ("weft-rag", "weft_cli.cli:main", ["weft_cli/cli.py"], "has a command weft too"),
        slow("other", None, ["weft/other.py"], "writes into this package's folder"),
        ("weftlm", "weft.cli:main", ["weft/__init__.py"], None),
        # as 0.1.0 was called
        slow("weft", "weft.cli:main", ["weft/__init__.py"], None),
        slow("harmless", "harmless:main", ["harmless.py"], None),
    ],
)
def test_others_of_the_name_are_told_apart(name, command, holds, said, tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / f"{name.replace('-', '_')}-9.8.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.8\nSummary: Tasks for agents\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in holds))
    if command is not None:
        (info / "entry_points.txt").write_text(f"[console_scripts]\n{name.partition('-')[0]} = {command}\n")
    for file in holds:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    found = [f for f in doctor.examine() if f.name == "another weft"]
    if said is None:
        assert not found
    else:
        (finding,) = found
        assert finding.state == "broken" and f"{name} 9.8 is another project (Tasks for agents)" in finding.says
        assert said in finding.says
        assert finding.fix.startswith(f"pip uninstall -y {name} && pip install --force-reinstall --no-deps weftlm")


@pytest.mark.slow
def test_it_runs_without_the_command() -> None:
    said = subprocess.run([sys.executable, "-m", "weft.cli.doctor", "--help"], capture_output=True, text=True)
    assert said.returncode == 0 and "what is broken, and how to repair it" in " ".join(said.stdout.split())


def test_a_missing_package_and_a_check_that_fails_are_findings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(doctor.NEEDED, "no-such-package", "no_such_package")

    def fails() -> list[Finding]:
        raise ValueError("x")

    monkeypatch.setattr(doctor, "CHECKS", [*doctor.CHECKS, *[fails] * 4])
    assert cli.run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "no-such-package" in out and "pip install no-such-package" in out
    assert out.count("the check itself failed") == 4 and "5 broken" in out


@pytest.mark.parametrize(
    ("version", "numbers"), [("2.13.0+cpu", (2, 13, 0)), ("5.16.1", (5, 16, 1)), ("5.20.dev0", (5, 20))]
)
def test_versions_are_compared_by_their_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert doctor.numbers(version) == numbers
