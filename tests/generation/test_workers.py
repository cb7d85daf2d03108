"""Several processes answer as one does: the same answers, in their order, after a kill too."""

import json
import os
import signal
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from test_requests import SHORT, read, requests

from processes import CONTEXT, Python
from weft.cli.asking import opened_on
from weft.conversation import WeftError
from weft.evaluation.run import evaluate
from weft.generation import workers
from weft.generation.requests import answer_file
from weft.generation.workers import Workers


@pytest.fixture(scope="module")
def alone(folder):
    return opened_on(str(folder), None, None, "cpu")


@contextmanager
def two(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "get_context", lambda _: CONTEXT)  # which has imported everything
        with Workers(partial(opened_on, str(folder), None, None), 2, "cpu") as found:
            yield found


@pytest.fixture(scope="module")
def together(folder):
    with two(folder) as found:
        yield found


@pytest.mark.slow
def test_answers_of_two_processes_are_those_of_one(alone, together, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "CHUNK_BATCHES", 1)  # shares of two, so that there are several
    asked, one, two = requests(tmp_path, 13), tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    answer_file(alone, asked, one, SHORT)
    summary = answer_file(together, asked, two, SHORT, batch_size=2)
    assert (summary.total, summary.before) == (13, 0) and two.read_bytes() == one.read_bytes()
    said = [*message("hello"), *message("there", "assistant")]
    assert together.score(said) == pytest.approx(alone.score(said))
    two.write_bytes(b"".join(two.read_bytes().splitlines(keepends=True)[3:9]))
    assert answer_file(together, asked, two, SHORT, batch_size=2).before == 6
    assert two.read_bytes() == one.read_bytes()


def gone(process):
    """Whether it has ended; nobody may be there to hear of it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1].startswith("Z")
    except OSError:
        return True


def message(text, role="user"):
    return [{"role": role, "content": text}]


@pytest.mark.slow
def test_a_report_of_two_processes_is_that_of_one(alone, together, tmp_path):
    lines = [{"messages": [*message(f"what is {i}?"), *message(str(i), "assistant")]} for i in range(5)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reports = [evaluate(asked, data, name="m", options=SHORT) for asked in (alone, together)]
    for report in reports:
        for key in ("seconds", "date"):
            del report["signature"][key]
    assert reports[0] == reports[1]


@pytest.mark.slow
def test_what_cannot_be_asked_is_told_as_by_one(together, tmp_path):
    clip = {"type": "audio", "audio": "data:audio/wav;base64,AAAA"}
    broken = {"id": "bad", "messages": [{"role": "user", "content": [clip]}]}
    asked, answers = requests(tmp_path, 3, [broken]), tmp_path / "answers.jsonl"
    assert answer_file(together, asked, answers, SHORT, on_bad_sample="skip").errors == 1
    assert [a["id"] for a in read(answers) if "error" in a] == ["bad"]
    with pytest.raises(WeftError, match="request 'bad'"):
        answer_file(together, asked, tmp_path / "other.jsonl", SHORT)


@pytest.mark.slow
def test_a_process_that_is_lost_is_an_error_and_answers_stay(folder, tmp_path):
    asked, answers = requests(tmp_path, 40), tmp_path / "answers.jsonl"

    def kill(done, of):
        if done == 5:
            os.kill(both.processes[1].pid, signal.SIGKILL)

    with two(folder) as both, pytest.raises(WeftError, match="has ended .status -9"):
        answer_file(both, asked, answers, SHORT, batch_size=2, progress=kill)
    assert len(read(answers)) >= 5


@pytest.mark.slow
def test_a_model_that_is_not_there_is_an_error_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "get_context", lambda _: CONTEXT)
    with (
        pytest.raises(WeftError, match="nothing"),
        Workers(partial(opened_on, str(tmp_path / "nothing"), None, None), 2, "cpu"),
    ):
        pass


@pytest.mark.slow
def test_two_processes_go_on_after_a_kill_and_leave_no_process_behind(alone, folder, tmp_path):
    asked, answers, whole = requests(tmp_path, 60), tmp_path / "answers.jsonl", tmp_path / "whole.jsonl"
    code = (
        "import sys, multiprocessing; from functools import partial; from weft.generation import Options, workers;"
        "workers.get_context = lambda _: multiprocessing.get_context('fork');"
        "from weft.generation.requests import answer_file; from weft.cli.asking import opened_on;\n"
        "with workers.Workers(partial(opened_on, sys.argv[1], None, None), 2, 'cpu') as both:\n"
        "    print(*(p.pid for p in both.processes), flush=True)\n"
        "    answer_file(both, sys.argv[2], sys.argv[3], Options(max_new_tokens=3), batch_size=1)\n"
    )
    process = Python(code, folder, asked, answers)
    while process.returncode is None and (not answers.exists() or answers.read_bytes().count(b"\n") < 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    children = list(map(int, process.communicate().split()))
    assert 5 <= answers.read_bytes().count(b"\n") < 60 and len(children) == 2
    said = Python(code, folder, asked, answers).communicate()
    assert "Error" not in said
    answer_file(alone, asked, whole, SHORT)
    assert answers.read_bytes() == whole.read_bytes()
    for child in children:
        for _ in range(1000):
            if gone(child):
                break
            time.sleep(0.01)
        else:
            pytest.fail(f"process {child} is still there")
