"""Commands that go over samples give of shards what they give of the file these were made of."""

import json
from dataclasses import asdict
from functools import partial

import pytest
from PIL import Image

from processes import CONTEXT
from weft.cli import run
from weft.cli.asking import opened_on
from weft.conversation import SampleError, WeftError
from weft.data import shards
from weft.data.shard_reading import ShardRequests
from weft.data.shard_writing import shard
from weft.data.stats import measure
from weft.data.validate import validate
from weft.evaluation.run import evaluate
from weft.generation import Options, workers
from weft.generation.answers import answer_all
from weft.generation.requests import answer_file

SHORT = Options(max_new_tokens=3)


@pytest.fixture
def file(tmp_path):
    Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "a.png")
    lines = []
    for i in range(9):
        asked = [{"type": "text", "text": f"what is {i}?"}]
        answer = [{"type": "text", "text": f"it is {i}"}]
        if i % 3 == 0:
            asked.insert(0, {"type": "image", "image": "a.png"})
            answer = [{"type": "box", "boxes": [[0.1, 0.2, 0.3, 0.4]], "label": "it"}]
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        lines.append({"id": f"q{i}", "messages": messages})
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(params=("tar", "parquet"))
def folder(request, file, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "PAUSE", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(shard(file, tmp_path / "shards", format=request.param, size=3000)) > 1
    return tmp_path / "shards"


def without(found, *keys):
    return {key: value for key, value in found.items() if key not in keys}


def test_checks_and_measures_are_those_of_the_file(file, folder):
    alike = without(measure([folder]).as_dict(), "files"), without(measure([file]).as_dict(), "files")
    assert alike[0] == alike[1]
    for deep in (False, True):
        mistakes = []
        found = validate([folder], deep=deep, on_mistake=mistakes.append)
        told = [without(asdict(x), "files", "bytes", "media_bytes", "image_files") for x in (found, validate([file]))]
        assert told[0] == told[1] and not mistakes
        assert found.bytes == sum(p.stat().st_size for p in folder.iterdir() if p.suffix in (".tar", ".parquet"))


def test_answers_and_reports_are_those_of_the_file(model, file, folder, tmp_path):
    answer_file(model, file, tmp_path / "lines.jsonl", SHORT)
    answer_all(model, ShardRequests(folder, "fail"), tmp_path / "shards.jsonl", SHORT)
    lines, stored = ((tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("lines", "shards"))
    assert [without(json.loads(x), "asked") for x in lines] == [without(json.loads(x), "asked") for x in stored]
    cut = tmp_path / "shards.jsonl"
    cut.write_text("".join(f"{x}\n" for x in stored[2:6]))
    assert answer_all(model, ShardRequests(folder, "fail"), cut, SHORT).before == 4
    assert cut.read_text().splitlines() == stored
    reports = [evaluate(model, data, tmp_path / "report", options=SHORT) for data in (file, folder)]
    assert reports[0]["samples"] == reports[1]["samples"] and reports[0]["metrics"] == reports[1]["metrics"]


@pytest.mark.slow
def test_processes_are_sent_media_and_not_the_shards(model, folder, tmp_path, monkeypatch):
    place = tmp_path / "model"
    model.model.save_pretrained(place)
    model.processor.save_pretrained(place)
    monkeypatch.setattr(workers, "get_context", lambda _: CONTEXT)
    with workers.Workers(partial(opened_on, str(place), None, None), 2, "cpu") as both:
        answer_all(both, ShardRequests(folder, "fail"), tmp_path / "two.jsonl", SHORT)
    answer_all(model, ShardRequests(folder, "fail"), tmp_path / "one.jsonl", SHORT)
    one, two = ((tmp_path / f"{n}.jsonl").read_text().splitlines() for n in ("one", "two"))
    assert [json.loads(x)["raw"] for x in one] == [json.loads(x)["raw"] for x in two]


def test_a_damaged_shard_is_told_by_its_samples(model, file, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "PAUSE", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = shard(file, tmp_path / "shards", size=3000)
    broken = tmp_path / "shards" / done[-1][0]
    broken.write_bytes(broken.read_bytes()[:100])
    mistakes = []
    found = validate([tmp_path / "shards"], on_mistake=mistakes.append)
    assert found.samples == 9 - done[-1][1] and len(mistakes) == found.mistakes == done[-1][1]
    assert all(m.file == str(broken) and m.line for m in mistakes)
    with pytest.raises(SampleError, match="cannot be read"):
        measure([tmp_path / "shards"])
    with pytest.raises(WeftError, match="cannot be read"):
        ShardRequests(tmp_path / "shards", "fail")
    summary = answer_all(
        model, ShardRequests(tmp_path / "shards", "skip"), tmp_path / "a.jsonl", SHORT, on_bad_sample="skip"
    )
    assert (summary.total, summary.errors) == (9, done[-1][1])
    report = evaluate(model, tmp_path / "shards", options=SHORT, on_bad_sample="skip")
    assert len(report["samples"]) == 9 - done[-1][1] and len(report["signature"]["unread"]) == done[-1][1]


def test_commands_take_shards_where_they_take_files(folder, capsys):
    for command in ("validate", "stats"):
        assert run(["data", command, str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["samples"] == 9


def test_ids_that_stand_twice_are_refused(tmp_path):
    line = json.dumps({"id": "same", "messages": [{"role": "user", "content": "x"}]})
    (tmp_path / "two.jsonl").write_text(f"{line}\n{line}\n")
    shard(tmp_path / "two.jsonl", tmp_path / "shards")
    with pytest.raises(SampleError, match="'same' stands in 2 samples"):
        ShardRequests(tmp_path / "shards", "fail")
