"""`weft generate`: every request is answered once, whatever ends a run."""

import json
import os
import signal
import time

import pytest
import torch
from PIL import Image

import weft
from processes import Python
from weft.conversation import WeftError
from weft.files import lock
from weft.generation import Options
from weft.generation.requests import answer_file

SHORT = Options(max_new_tokens=3)


def requests(folder, n=9, extra=()):
    Image.new("RGB", (20, 20), "red").save(folder / "a.png")
    lines = []
    for i in range(n):
        content = [{"type": "text", "text": f"question {'long ' * (i % 4)}{i}"}]
        if i % 3 == 0:
            content.insert(0, {"type": "image", "image": "a.png"})
        lines.append({"id": f"q{i}", "messages": [{"role": "user", "content": content}]})
    path = folder / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *extra]))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_stand_in_the_order_of_the_requests(model, tmp_path):
    asked, answers = requests(tmp_path), tmp_path / "answers.jsonl"
    summary = answer_file(model, asked, answers, SHORT, batch_size=2)
    assert (summary.total, summary.before, summary.errors) == (9, 0, 0)
    assert [a["id"] for a in read(answers)] == [f"q{i}" for i in range(9)]
    alone = model.chat("question long 1", SHORT)
    assert next(a for a in read(answers) if a["id"] == "q1")["raw"] == alone.raw


def test_a_cut_file_is_gone_on_with(model, tmp_path):
    """As a kill leaves it: some answers in any order, and half a line."""
    asked, answers, whole = requests(tmp_path), tmp_path / "answers.jsonl", tmp_path / "whole.jsonl"
    answer_file(model, asked, whole, SHORT)
    lines = whole.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join([lines[4], lines[1], lines[7]]) + lines[2][:25])
    summary = answer_file(model, asked, answers, SHORT)
    assert summary.before == 3
    assert answers.read_bytes() == whole.read_bytes()
    assert answer_file(model, asked, answers, SHORT).before == 9


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with(model, tmp_path):
    asked, answers = requests(tmp_path, 60), tmp_path / "answers.jsonl"
    model.model.save_pretrained(tmp_path / "model")
    model.processor.save_pretrained(tmp_path / "model")
    code = (
        "import sys, torch; torch.set_num_threads(1); import weft; from weft.generation import Options;"
        "from weft.generation.requests import answer_file;"
        "model = weft.load(sys.argv[1], device='cpu');"
        "answer_file(model, sys.argv[2], sys.argv[3], Options(max_new_tokens=3), batch_size=1)"
    )
    command = code, tmp_path / "model", asked, answers
    process = Python(*command)
    while process.returncode is None and (not answers.exists() or answers.read_bytes().count(b"\n") < 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = answers.read_bytes().count(b"\n")
    assert kept >= 5
    again = Python(*command)
    said = again.communicate()
    assert again.returncode == 0, said
    assert [a["id"] for a in read(answers)] == [f"q{i}" for i in range(60)]


def test_other_options_or_requests_do_not_mix(model, tmp_path):
    asked, answers = requests(tmp_path, 2), tmp_path / "answers.jsonl"
    answer_file(model, asked, answers, SHORT)
    with pytest.raises(WeftError, match="another model or other options"):
        answer_file(model, asked, answers, Options(max_new_tokens=4))
    (tmp_path / "requests.jsonl").write_text(asked.read_text().replace("q1", "r1"))
    with pytest.raises(WeftError, match="'q1', which is not in"):
        answer_file(model, asked, answers, SHORT)
    assert answer_file(model, asked, answers, SHORT, restart=True).before == 0


def test_other_weights_do_not_mix(model, tmp_path):
    """A model trained further lies at the same path, so its name says nothing."""
    asked, answers = requests(tmp_path, 2), tmp_path / "answers.jsonl"
    answer_file(model, asked, answers, SHORT)
    weight = next(p for p in model.model.parameters() if p.ndim == 2)
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(1.001)
        with pytest.raises(WeftError, match="another model or other options"):
            answer_file(model, asked, answers, SHORT)
    finally:
        weight.data.copy_(before)
    assert answer_file(model, asked, answers, SHORT).before == 2


def test_a_model_moved_elsewhere_is_the_same(model, tmp_path):
    asked, answers = requests(tmp_path, 2), tmp_path / "answers.jsonl"
    for place in ("here", "there"):
        model.model.save_pretrained(tmp_path / place)
        model.processor.save_pretrained(tmp_path / place)
    answer_file(weft.load(tmp_path / "here", device="cpu"), asked, answers, SHORT)
    assert answer_file(weft.load(tmp_path / "there", device="cpu"), asked, answers, SHORT).before == 2


def test_a_changed_request_is_asked_again(model, tmp_path):
    asked, answers = requests(tmp_path, 3), tmp_path / "answers.jsonl"
    answer_file(model, asked, answers, SHORT)
    old = {a["id"]: a for a in read(answers)}
    asked.write_text(asked.read_text().replace("question long 1", "what else 1"))
    summary = answer_file(model, asked, answers, SHORT)
    assert (summary.total, summary.before) == (3, 2)
    new = read(answers)
    assert [a["id"] for a in new] == ["q0", "q1", "q2"]
    assert new[1]["asked"] != old["q1"]["asked"] and [new[0], new[2]] == [old["q0"], old["q2"]]
    assert answer_file(model, asked, answers, SHORT).before == 3


def test_a_file_of_something_else_is_left_alone(model, tmp_path):
    asked, answers = requests(tmp_path, 2), tmp_path / "answers.jsonl"
    answers.write_text("my notes\nand more\n")
    with pytest.raises(WeftError, match="no answer of weft"):
        answer_file(model, asked, answers, SHORT)
    assert answers.read_text() == "my notes\nand more\n"


def test_bad_requests_fail_first_or_are_recorded(model, tmp_path):
    (tmp_path / "b.png").write_bytes(b"no picture at all")
    bad = [
        {"id": "b", "messages": [{"role": "user", "content": [{"type": "image", "image": "b.png"}]}]},
        {"id": "c", "messages": [{"role": "user", "content": [{"type": "image", "image": "gone.png"}]}]},
    ]
    asked, answers = requests(tmp_path, 2, bad), tmp_path / "answers.jsonl"
    with pytest.raises(WeftError, match=r"requests.jsonl:4: .*gone.png"):
        answer_file(model, asked, answers, SHORT)
    summary = answer_file(model, asked, answers, SHORT, on_bad_sample="skip")
    assert summary.errors == 2
    by_id = {a["id"]: a for a in read(answers)}
    assert "b.png" in by_id["b"]["error"] and "gone.png" in by_id["c"]["error"] and "text" in by_id["q0"]


def test_final_answers_in_requests_are_not_shown_to_the_model(model, tmp_path):
    line = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "known"}]}
    (tmp_path / "requests.jsonl").write_text(json.dumps(line) + "\n")
    answer_file(model, tmp_path / "requests.jsonl", tmp_path / "answers.jsonl", SHORT)
    (answer,) = read(tmp_path / "answers.jsonl")
    assert answer["id"] == "line-1"
    assert answer["raw"] == model.chat("hello", SHORT).raw


def test_twice_the_same_id_is_an_error(model, tmp_path):
    line = {"id": 1, "messages": [{"role": "user", "content": "hello"}]}
    (tmp_path / "requests.jsonl").write_text(2 * (json.dumps(line) + "\n"))
    with pytest.raises(WeftError, match="requests.jsonl:2: .*line 1"):
        answer_file(model, tmp_path / "requests.jsonl", tmp_path / "answers.jsonl", SHORT)


@pytest.mark.skipif(os.name == "nt", reason="locks are POSIX's here")
def test_two_runs_do_not_write_one_file(model, tmp_path):
    asked, answers = requests(tmp_path, 2), tmp_path / "answers.jsonl"
    (tmp_path / "link.jsonl").symlink_to(answers)
    for out in (answers, tmp_path / "link.jsonl"):
        with lock(tmp_path / ".answers.jsonl.lock", RuntimeError), pytest.raises(WeftError, match=r"process \d+ on"):
            answer_file(model, asked, out, SHORT)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("notes", ['{"my": "results"}', '{"id": 1, "score": 0.5}', "my notes", '{"id"; my notes'])
def test_one_line_without_an_end_is_not_taken_for_a_cut_answer(model, tmp_path, notes, restart):
    asked, answers = requests(tmp_path, 2), tmp_path / "answers.jsonl"
    answers.write_text(notes)
    with pytest.raises(WeftError, match="is no answer of weft"):
        answer_file(model, asked, answers, SHORT, restart=restart)
    assert answers.read_text() == notes


@pytest.mark.parametrize("restart", [False, True])
def test_requests_are_never_written_over(model, tmp_path, restart):
    asked = requests(tmp_path, 2)
    before = asked.read_bytes()
    with pytest.raises(WeftError, match="holds the requests themselves"):
        answer_file(model, asked, asked, restart=restart)
    other = tmp_path / "other.jsonl"
    other.write_bytes(before)
    with pytest.raises(WeftError, match="is no answer of weft"):
        answer_file(model, asked, other, restart=restart)
    assert asked.read_bytes() == other.read_bytes() == before
