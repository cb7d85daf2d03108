"""Ranks that torchrun starts answer one file, and make one report: as one process does, after a kill too."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from test_requests import SHORT, read, requests

import weft
from processes import Python
from weft.conversation import Box, Text, Word, Words
from weft.evaluation.kept import kept
from weft.evaluation.run import evaluate
from weft.generation.answers import digits, replies
from weft.generation.requests import answer_file

COMMAND = "import sys; from weft.cli import run; sys.exit(run(sys.argv[1:]))"
TOKENS = ("--max-new-tokens", "3", "--batch-size", "1", "--device", "cpu")


def ranks(count, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [Python(COMMAND, *arguments, env={**shared, "RANK": str(rank)}) for rank in range(count)]


def said(processes):
    found = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), found
    return found


def samples(folder, n=7):
    lines = [
        {"messages": [{"role": "user", "content": f"what is {i}?"}, {"role": "assistant", "content": str(i)}]}
        for i in range(n)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "data.jsonl"


@pytest.mark.slow
def test_two_ranks_answer_as_one(folder, tmp_path):
    asked, one, two = requests(tmp_path, 9), tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    answer_file(weft.load(folder, device="cpu"), asked, one, SHORT)
    told = said(ranks(2, "generate", folder, asked, "-o", two, *TOKENS))
    assert two.read_bytes() == one.read_bytes() and not list(tmp_path.glob("*.rank-*"))
    assert "9 answers" in told[0] and "answers" not in told[1]


def test_what_ranks_have_left_is_taken_in(folder, tmp_path):
    asked, one, two = requests(tmp_path, 9), tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    answer_file(weft.load(folder, device="cpu"), asked, one, SHORT)
    lines = one.read_bytes().splitlines(keepends=True)
    two.write_bytes(lines[4] + lines[0] + lines[2][:20])
    (tmp_path / "two.jsonl.rank-3").write_bytes(lines[7] + lines[3] + lines[8][:30])
    summary = answer_file(weft.load(folder, device="cpu"), asked, two, SHORT)
    assert summary.before == 4 and two.read_bytes() == one.read_bytes()


@pytest.mark.nightly
def test_two_ranks_go_on_after_a_kill_of_both(folder, tmp_path):
    asked, one, two = requests(tmp_path, 60), tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    answer_file(weft.load(folder, device="cpu"), asked, one, SHORT)
    processes, part = ranks(2, "generate", folder, asked, "-o", two, *TOKENS), Path(f"{two}.rank-1")
    while all(p.returncode is None for p in processes) and not (part.exists() and part.read_bytes().count(b"\n") > 2):
        time.sleep(0.01)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    left = two.read_bytes().count(b"\n") + part.read_bytes().count(b"\n")
    assert 2 < left < 60
    assert "by an earlier run" in said(ranks(2, "generate", folder, asked, "-o", two, *TOKENS))[0]
    assert two.read_bytes() == one.read_bytes() and not part.exists()


def without_time(report):
    for key in ("seconds", "date", "batch_size"):
        del report["signature"][key]
    return report


@pytest.mark.slow
def test_a_report_of_two_ranks_is_that_of_one_and_leaves_no_answers(folder, tmp_path):
    data, out = samples(tmp_path), tmp_path / "report"
    alone = evaluate(weft.load(folder, device="cpu"), data, name=str(folder), options=SHORT)
    said(ranks(2, "evaluate", folder, "--data", data, "-o", out, *TOKENS))
    assert without_time(json.loads((out / "report.json").read_text())) == without_time(json.loads(json.dumps(alone)))
    assert sorted(os.listdir(out)) == ["index.html", "report.json"]


def test_an_evaluation_that_has_ended_goes_on_where_it_stopped(model, tmp_path):
    data, out, times = samples(tmp_path), tmp_path / "report", []
    whole = evaluate(model, data, options=SHORT)

    def stop(done, of):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), kept(model, out, progress=stop) as answerer:
        evaluate(answerer, data, out, options=SHORT, batch_size=1)
    assert not (out / "report.json").exists()
    with kept(model, out, progress=lambda *counts: times.append(counts)) as answerer:
        report = evaluate(answerer, data, out, options=SHORT)
    assert times[0] == (3, 7) and times[-1] == (7, 7)
    assert without_time(report) == without_time(whole) and sorted(os.listdir(out)) == ["index.html", "report.json"]


def test_kept_answers_are_what_they_were(tmp_path):
    """Boxes without an area, which no sample may have, too."""
    from weft.generation.reply import Reply

    words, boxes = Words((Word("a", 0.1, 0.30000000000000004),), 1), Box(((0.5, 0.5, 0.5, 1 / 3),), "cup", 0)
    reply = Reply("a cup", "<a> cup", (Text("x"), words, boxes), 4, False, 2, ("<odd",))
    line = {"id": "1", **reply.as_dict(), "asked": digits([1]), "run": "x"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(line) + "\n" + '{"id": "2", "error": "no", "run": "x"}\n')
    (_, again), (_, error) = replies(tmp_path / "answers.jsonl")
    assert again == reply and str(error) == "no"
    assert len(read(tmp_path / "answers.jsonl")) == 2
