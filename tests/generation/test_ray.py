"""Ray Data's processes answer as one does, in order, and a file is gone on with. Runs where the extra ``scale`` is."""

import json
from functools import partial

import pytest
from test_requests import SHORT, read, requests

from weft.cli.asking import opened_on
from weft.conversation import WeftError
from weft.evaluation.run import evaluate
from weft.generation.requests import answer_file

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def both(model, tmp_path_factory):
    from weft.generation.ray_workers import RayWorkers

    place = tmp_path_factory.mktemp("model")
    model.model.save_pretrained(place)
    model.processor.save_pretrained(place)
    with RayWorkers(partial(opened_on, str(place), None, None), 2, "cpu") as found:
        yield found, opened_on(str(place), None, None, "cpu")


@pytest.mark.slow
def test_answers_are_those_of_one_process_and_gone_on_with(both, tmp_path):
    ray, alone = both
    clip = {"type": "audio", "audio": "data:audio/wav;base64,AAAA"}
    asked = requests(tmp_path, 13, [{"id": "bad", "messages": [{"role": "user", "content": [clip]}]}])
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for model, path in ((alone, one), (ray, two)):
        assert answer_file(model, asked, path, SHORT, batch_size=2, on_bad_sample="skip").errors == 1
    assert two.read_bytes() == one.read_bytes() and len(read(two)) == 14
    two.write_bytes(b"".join(two.read_bytes().splitlines(keepends=True)[3:9]))
    assert answer_file(ray, asked, two, SHORT, batch_size=2, on_bad_sample="skip").before == 6
    assert two.read_bytes() == one.read_bytes()


@pytest.mark.slow
def test_a_report_is_that_of_one_process(both, tmp_path):
    lines = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": str(i)}]} for i in range(5)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ray, alone = (evaluate(m, tmp_path / "data.jsonl", options=SHORT) for m in both)
    assert (ray["samples"], ray["metrics"]) == (alone["samples"], alone["metrics"])
    with pytest.raises(WeftError, match="scores none"):
        both[0].score("x")
