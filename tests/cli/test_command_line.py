"""The frame of the command line: quick to start, one sentence for each error, a status that scripts can use."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest
import typer
from PIL import Image

from weft import cli
from weft.conversation import WeftError

COMMAND = str(Path(sys.executable).parent / "weft")  # the installed script, which is what starts without torch
SAMPLE = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]}


def run(*arguments: str) -> int:
    return cli.run([str(a) for a in arguments])


@pytest.fixture()
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes ``weft boom`` raise what it is given."""

    def install(error: BaseException | None) -> None:
        def boom(name: str = "x") -> None:
            if error is not None:
                raise error

        monkeypatch.setattr(sys.modules[__name__], "_boom", boom, raising=False)
        monkeypatch.setitem(cli.COMMANDS, "boom", cli.Command(f"{__name__}:_boom", cli.USE, "Fail."))

    return install


def test_help_lists_every_command_without_importing_one() -> None:
    program = (
        f"import sys; sys.argv = [{COMMAND!r}, '--help']\n"
        "from weft import cli\n"
        "status = cli.run(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, command in cli.COMMANDS.items():
        assert name in done.stdout and command.help.split()[0] in done.stdout


def test_checking_samples_needs_no_model_code(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(SAMPLE) + "\n")
    program = (
        f"import sys; sys.argv = [{COMMAND!r}, 'data', 'validate', {str(tmp_path / 'a.jsonl')!r}]\n"
        "from weft import cli\n"
        "status = cli.run(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["-h"], ["--help"], ["data", "--help"], ["data", "validate", "-h"], ["--version"]]
)
def test_asking_for_help_is_no_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 0
    said = capsys.readouterr()
    assert "weft" in said.out and not said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dat"], "No such command 'dat'"),
        (["--bogus"], "--bogus"),
        (["data", "validate"], "Missing argument"),
        (["data", "validate", "--dep", "x"], "--deep"),
        (["data", "validate", "--max-errors", "many", "x"], "--max-errors"),
    ],
)
def test_a_mistyped_line_is_one_sentence_and_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1
    assert said in err and "--help" in err


@pytest.mark.parametrize("group", ["data", "import"])
def test_a_group_alone_shows_its_commands(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group) in (0, 2)  # as typer's version has it
    out, err = capsys.readouterr()
    assert f"weft {group}" in out + err and "error:" not in err


class Recipe(pydantic.BaseModel):
    steps: int


def invalid() -> Exception:
    try:
        Recipe(steps="many")  # type: ignore[arg-type]
    except pydantic.ValidationError as e:
        return e
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (WeftError("no model in x: give a folder"), 2, "no model in x: give a folder"),
        (WeftError("two\nlines \ud800"), 2, "two lines \\ud800"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 2, "a.txt: No such file or directory"),
        (OSError(28, "No space left on device", "a.txt"), 2, "the disk is full (a.txt)"),
        (MemoryError(), 2, "out of memory"),
        (invalid(), 2, "Recipe: steps: Input should be a valid integer"),
        (RuntimeError("operator torchvision::nms does not exist"), 2, "weft doctor"),
        (KeyError("x"), 1, "KeyError: 'x' (this is a defect of weft); --traceback shows where"),
    ],
)
def test_an_error_of_a_command_is_one_sentence(
    error: Exception, status: int, said: str, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command(error)
    assert run("boom") == status
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert run("boom", "--traceback") == run("--traceback", "boom") == status
    assert "Traceback" in capsys.readouterr().err


def test_an_import_that_hides_a_broken_torchvision_names_it(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hidden = ModuleNotFoundError("Could not import module 'AutoProcessor'.")
    hidden.__cause__ = RuntimeError("operator torchvision::nms does not exist")
    command(hidden)
    assert run("boom") == 2
    assert "weft doctor" in capsys.readouterr().err


def test_traceback_after_two_dashes_is_an_argument(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command(WeftError("x"))
    assert run("boom", "--", "--traceback") == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"), [(None, 0), (typer.Exit(3), 3), (SystemExit(4), 4), (KeyboardInterrupt(), 130)]
)
def test_a_quiet_end_is_quiet(
    error: BaseException | None, status: int, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command(error)
    assert run("boom") == status
    assert not capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text((json.dumps(SAMPLE) + "\n") * 3)
    program = (
        f"import sys; sys.argv = [{COMMAND!r}, 'data', 'validate', '--json', {str(tmp_path / 'a.jsonl')!r}]\n"
        "from weft import cli; cli.main()\n"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1 and not done.stderr


# ---------------------------------------------------------------------------------------------------------- weft data


def test_validate_lists_mistakes_on_stderr_and_the_summary_on_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text((json.dumps(SAMPLE) + "\n") * 3)
    assert run("data", "validate", file) == 0
    out, err = capsys.readouterr()
    assert not err and "3 samples" in out
    file.write_text(json.dumps(SAMPLE) + "\n" + '{"messages": [], "x": 1}\n' * 5)
    assert run("data", "validate", file, "--max-errors", "2") == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[0].startswith(f"{file}:2: x: unknown key") and lines[1].startswith(f"{file}:3: x: ")
    assert "3 more" in lines[2] and lines[3].startswith("5 mistakes") and len(lines) == 4
    assert "samples" in out


def test_validate_says_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(SAMPLE) + "\n{\n")
    assert run("data", "validate", "--json", file) == 2
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert not err and not said["ok"] and said["samples"] == said["mistakes"] == 1
    (mistake,) = said["errors"]
    assert (mistake["file"], mistake["line"], mistake["field"]) == (str(file), 2, None)


def test_validate_and_stats_warn_of_pages_that_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [Image.new("L", (8, 8), level) for level in (0, 255)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    file = tmp_path / "a.jsonl"
    asked = [{"type": "image", "image": "a.tif"}, {"type": "text", "text": "What is it?"}]
    file.write_text(
        json.dumps({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "x"}]})
    )
    for command in (("validate", "--deep"), ("stats",)):
        assert run("data", *command, file) == 0
        out, err = capsys.readouterr()
        assert err.startswith("warning: ") and "a.tif: holds 2 pictures (pages or frames), of which the first" in err
        assert "1 warning" in out or command == ("stats",)
        assert run("data", *command, file, "--json") == 0
        assert len(json.loads(capsys.readouterr().out)["notes"]) == 1


def test_stats_prints_a_table_and_draws_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text((json.dumps(SAMPLE) + "\n") * 3)
    assert run("data", "stats", file, "-o", tmp_path / "p.png") == 0
    out = capsys.readouterr().out
    assert "words a sample" in out and (tmp_path / "p.png").is_file()
    assert run("data", "stats", file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 3
    assert run("data", "stats", file, "-o", tmp_path / "p.bmp") == 2
    assert run("data", "stats", tmp_path / "absent.jsonl") == 2
