"""`weft score`: two files in, figures out, one sentence for each mistake."""

import json
from pathlib import Path

import pytest

from weft import cli


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def run(folder: Path, metric: str, predictions: list, references: list, *more: str) -> int:
    p, r = write(folder / "p.jsonl", *predictions), write(folder / "r.jsonl", *references)
    return cli.run(["score", metric, "--predictions", str(p), "--references", str(r), *more])


def test_the_report_is_that_of_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [{"id": 1, "prediction": "b"}, {"id": "0", "prediction": "the cat"}]
    assert run(tmp_path, "wer", given, [{"id": "0", "text": "the cat"}, {"id": "1", "text": "a b"}], "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["metrics"]["wer"]["wer"] == 0.25
    assert [(s["id"], s["scores"]["wer"]) for s in report["samples"]] == [("0", 0.0), ("1", 0.5)]
    signature = report["signature"]
    assert signature["scorer"] == "wer" and signature["weft"] and signature["packages"]["jiwer"]
    assert set(signature["figures"]) == set(report["metrics"]["wer"]) and "normaliser" in signature
    assert len(signature["predictions_sha256"]) == 64


def test_a_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "accuracy", [{"id": "0", "prediction": "rain"}], [{"id": "0", "answer": "rain"}]) == 0
    assert "qwen_audio_accuracy" in capsys.readouterr().out
    assert cli.run(["score", "list"]) == 0
    assert "refcoco" in capsys.readouterr().out


def test_a_file_of_weft_generate_is_scored_by_another_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [{"id": "0", "text": "rain", "raw": "x"}, {"id": "1", "error": "no such file"}]
    wanted = [{"id": "0", "answer": "rain"}, {"id": "1", "answer": "rain"}]
    assert run(tmp_path, "accuracy", given, wanted, "--field", "text", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"]["exact"] == 0.5
    assert run(tmp_path, "accuracy", given, wanted) == 2
    assert "p.jsonl:1: prediction: missing; --field text takes that one" in capsys.readouterr().err


def test_missing_predictions_are_an_error_or_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [{"id": "0", "answer": "a"}, {"id": "1", "answer": "b"}]
    assert run(tmp_path, "gqa", [{"id": "0", "prediction": "a"}], wanted) == 2
    assert "r.jsonl:2: id: no prediction for '1'" in capsys.readouterr().err
    assert run(tmp_path, "gqa", [{"id": "0", "prediction": "a"}], wanted, "--missing", "wrong", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["metrics"]["gqa"]["minigpt_v2_gqa_accuracy"] == 50
    assert report["signature"]["without_prediction"] == 1 and report["notes"]


BOX = {"id": "0", "bbox_xywh": [0, 0, 1, 1], "width": 2, "height": 2}


@pytest.mark.parametrize(
    ("metric", "prediction", "reference", "said"),
    [
        ("vqa", {"id": "0", "prediction": "a"}, {"id": "0"}, "r.jsonl:1: answers: missing"),
        ("vqa", {"id": "0", "prediction": "a"}, {"id": "0", "answer": "a"}, "did you mean 'answers'"),
        ("vqa", {"id": "0", "prediction": "a"}, {"id": "0", "answers": []}, "r.jsonl:1: answers: must be"),
        ("vqa", {"id": "0", "prediction": "a"}, {"id": "0", "answers": ["a", 3]}, "r.jsonl:1: answers[1]: must be"),
        ("vqa", {"id": "0", "prediction": 7}, {"id": "0", "answers": ["a"]}, "p.jsonl:1: prediction: must be a string"),
        ("vqa", {"prediction": "a"}, {"id": "0", "answers": ["a"]}, "p.jsonl:1: id: missing"),
        ("vqa", {"id": "5", "prediction": "a"}, {"id": "0", "answers": ["a"]}, "p.jsonl:1: id: there is no reference"),
        ("vqa", "{", {"id": "0", "answers": ["a"]}, "p.jsonl:1: not JSON"),
        ("vqa", "[]", {"id": "0", "answers": ["a"]}, "p.jsonl:1: must be an object"),
        ("refcoco", {"id": "0", "prediction": "a"}, BOX | {"bbox_xywh": [1, 2]}, "r.jsonl:1: bbox_xywh: must be"),
        ("refcoco", {"id": "0", "prediction": "a"}, BOX | {"width": 0}, "r.jsonl:1: width: must be"),
        ("refcoco", {"id": "0", "prediction": "a"}, BOX | {"bbox_xywh": [1, 1, -1, 1]}, "r.jsonl:1: bbox_xywh: must"),
        ("srwt", {"id": "0", "prediction": "a"}, {"id": "0", "text": "a b"}, "no reference has word times"),
        (
            "wer",
            {"id": "0", "prediction": "a"},
            {"id": "0", "text": "a", "language": 3},
            "r.jsonl:1: language: must be",
        ),
        ("chair", {"id": "0", "prediction": "a"}, {"id": "0", "objects": ["gnu"]}, "r.jsonl:1: objects: 'gnu'"),
        ("blue", {"id": "0", "prediction": "a"}, {"id": "0"}, "there is no metric 'blue'"),
    ],
)
def test_mistakes_name_file_line_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, prediction: object, reference: object, said: str
) -> None:
    assert run(tmp_path, metric, [prediction], [reference]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_other_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"id": "0", "prediction": "a"}
    assert run(tmp_path, "gqa", [one, one], [{"id": "0", "answer": "a"}]) == 2
    assert "p.jsonl:2: id: '0' stands in line 1 already" in capsys.readouterr().err
    assert run(tmp_path, "gqa", [one], [{"id": "0", "answer": "a"}], "--language", "zh") == 2
    assert "the metric gqa takes no language; wer, srwt, bleu, cider do" in capsys.readouterr().err
    assert run(tmp_path, "gqa", [], [{"id": "0", "answer": "a"}]) == 2
    assert "p.jsonl: nothing in it" in capsys.readouterr().err
    assert cli.run(["score", "gqa", "--predictions", "p.jsonl"]) == 2
    assert "give both" in capsys.readouterr().err
