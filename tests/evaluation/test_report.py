"""Evaluating a sample file, and what the report says about it."""

import json

import numpy as np
import pytest
import soundfile
from evaluation_samples import Canned, right

from weft.conversation import Box, SampleError, Text, WeftError, Word, Words
from weft.evaluation.constants import baseline
from weft.evaluation.metrics import METRICS, chosen, measure
from weft.evaluation.pairs import Pair
from weft.evaluation.report import notes
from weft.evaluation.run import evaluate


def test_right_answers_get_full_marks(data):
    report = evaluate(Canned(right(data)), data)
    assert report["metrics"] == {
        "chat": {"exact": 1.0},
        "detection": {"box_f1_50": 1.0},
        "refer": {"box_accuracy_50": 1.0, "box_f1_50": 1.0},
        "transcribe": {
            "wer": 0.0,
            "wer_normalized": 0.0,
            "cer_normalized": 0.0,
            "wer_whisper": 0.0,
            "word_time_ms": 0.0,
            "word_time_coverage": 1.0,
        },
        "vqa": {"exact": 1.0},
    }
    assert all(s["right"] for s in report["samples"])
    assert report["baseline"].keys() == report["metrics"].keys()
    assert all(report["baseline"][t].keys() == m.keys() for t, m in report["metrics"].items())


def test_wrong_and_malformed_answers_are_scored_and_said(data):
    answers = [
        [Text("{<12><")],
        [Box(((0.1, 0.1, 0.5, 0.5),), None, 0)],
        [Words((Word("one", 0.2, 0.4),), 0)],
        [],
        [Text("13.")],
        [Text("no")],
    ]
    report = evaluate(Canned(answers), data)
    assert report["metrics"]["refer"] == {"box_accuracy_50": 0.0, "box_f1_50": 0.0}
    assert report["metrics"]["detection"]["box_f1_50"] == pytest.approx(2 / 3)
    assert report["metrics"]["transcribe"]["wer"] == pytest.approx(4 / 5)  # one of two, three of three
    assert report["metrics"]["transcribe"]["word_time_ms"] == pytest.approx(50)
    assert report["metrics"]["transcribe"]["word_time_coverage"] == pytest.approx(1 / 2)
    assert report["metrics"]["vqa"]["exact"] == 1.0
    by_id = {s["id"]: s for s in report["samples"]}
    assert by_id["r"]["problems"] == ["no box in the answer"]
    assert by_id["p"]["problems"] == ["cut after 3 tokens without an end"]
    assert [s["right"] for s in report["samples"]] == [False, False, False, False, True, False]
    assert report["signature"]["unfinished"] == 1


@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_silence_enters_no_rate_and_is_scored_by_the_minute(tmp_path, task):
    """Clips of 2 and 4 s where nothing is said, and one of words: 3 words in 6 s of silence are 30 a minute."""
    lines = []
    for i, (seconds, said) in enumerate(((2, ""), (4, "..."), (1, "one two three four"))):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(seconds * 16000), 16000)
        asked = [{"type": "audio", "audio": f"{i}.wav"}, {"type": "task", "task": task}]
        lines.append({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answers = [[Text("Thank you, bye!")], [Text("")], [Text("one two three")]]
    report = evaluate(Canned(answers), tmp_path / "t.jsonl", tmp_path / "out")
    figures = report["metrics"][task]
    assert figures.pop("hallucinated_words_per_minute") == pytest.approx(30)
    if task == "transcribe":
        assert figures == {
            "wer": 0.25,
            "wer_normalized": 0.25,
            "cer_normalized": pytest.approx(4 / 15),
            "wer_whisper": 0.25,
        }
    else:
        assert (
            figures
            == measure([Pair(task, (Text("one two three four"),), tuple(answers[2]))], chosen(None)).metrics[task]
        )
    counts = report["signature"]["counts"][task]
    assert counts.pop("hallucinated_words_per_minute") == 2 and set(counts.values()) == {1}
    samples = report["samples"]
    assert [s["scores"] for s in samples[:2]] == [{"hallucinated_words_per_minute": x} for x in (90.0, 0.0)]
    assert [s["right"] for s in samples[:2]] == [False, True]


def test_a_set_of_nothing_but_silence_has_no_rate():
    silent = [Pair("transcribe", (Text(""),), (Text(said),), "en", 30.0) for said in ("", "you")]
    assert measure(silent, chosen(None)).metrics == {"transcribe": {"hallucinated_words_per_minute": 1.0}}
    assert measure(silent[:1], chosen(None)).metrics == {"transcribe": {"hallucinated_words_per_minute": 0.0}}
    # "um" is a word as written, and nothing by Whisper's normaliser: no rate of that one, and none in its mean.
    um, word = (Pair("transcribe", (Text(x),), (Text(y),), "en") for x, y in (("um", "one two"), ("one", "one")))
    figures = measure([um, word], chosen(None))
    assert figures.metrics["transcribe"]["wer_whisper"] == 0 and figures.samples[0]["wer_whisper"] is None
    assert figures.metrics["transcribe"]["wer"] == 1


def test_a_sample_that_cannot_be_asked_fails_or_is_counted(data):
    answers = [*right(data)[:4], WeftError("broken picture"), right(data)[5]]
    with pytest.raises(WeftError, match="broken picture"):
        evaluate(Canned(answers), data)
    report = evaluate(Canned(answers), data, on_bad_sample="skip")
    assert "vqa" not in report["metrics"]
    assert report["signature"]["not_asked"] == 1
    assert report["samples"][4]["error"] == "broken picture" and report["samples"][4]["answer"] is None


def test_lines_that_cannot_be_read_fail_or_are_counted(data):
    lines = data.read_text().splitlines(keepends=True)
    asked = json.dumps({"messages": [{"role": "user", "content": "what?"}]}) + "\n"
    answers = right(data)
    data.write_text("".join([lines[0], "{cut\n", asked, *lines[1:]]))
    with pytest.raises(WeftError, match=r":2: .*invalid JSON"):
        evaluate(Canned(answers), data)
    report = evaluate(Canned(answers), data, on_bad_sample="skip")
    assert len(report["samples"]) == len(answers) == 6
    assert [":2: " in x or ":3: " in x for x in report["signature"]["unread"]] == [True, True]
    assert "2 samples could not be read" in notes(report)[0]
    data.write_text("{cut\n")
    with pytest.raises(WeftError, match="no sample of it can be read; the first: .*:1: "):
        evaluate(Canned([]), data, on_bad_sample="skip")


def test_metrics_and_limit_choose(data):
    report = evaluate(Canned(right(data)), data, metrics=["wer"], limit=4)
    assert report["metrics"]["transcribe"] == {"wer": 0.0}
    assert [s["id"] for s in report["samples"]] == ["r", "d", "w", "p"]
    with pytest.raises(WeftError, match="no metric 'were'.*wer"):
        evaluate(Canned(right(data)), data, metrics=["were"])


def test_a_metric_that_scores_nothing_is_said_before_anything_is_asked(data):
    with pytest.raises(WeftError, match="no sample is scored by cider"):
        evaluate(None, data, metrics=["cider"])


def test_a_sample_without_an_answer_is_named(data):
    data.write_text('{"id": "x", "messages": [{"role": "user", "content": "hello"}]}\n')
    with pytest.raises(SampleError, match=r"test.jsonl.*'x'.*no final assistant"):
        evaluate(Canned([]), data)


def test_constant_answers_do_not_beat_the_baseline(data):
    """Whatever constant is given, no metric is above (or under) its baseline."""
    for constant in ([Text("one two three")], [Text("13")], [Box(((0.1, 0.1, 0.5, 0.5),), None, 0)], []):
        report = evaluate(Canned([constant] * 6), data)
        for task, table in report["metrics"].items():
            for name, value in table.items():
                base = report["baseline"][task][name]
                if value is not None and name != "word_time_ms":
                    assert value <= base + 1e-9 if METRICS[name].better == "higher" else value >= base - 1e-9


def test_boxes_on_another_picture_do_not_count():
    box = (0.1, 0.1, 0.5, 0.5)
    pair = Pair("refer", (Box((box,), None, 1),), (Box((box,), None, 0),))
    assert measure([pair], chosen(None)).metrics["refer"] == {"box_accuracy_50": 0.0, "box_f1_50": 0.0}
    pair = Pair("refer", (Box((box,), None, None),), (Box((box,), None, 0),))
    assert measure([pair], chosen(None)).metrics["refer"] == {"box_accuracy_50": 1.0, "box_f1_50": 1.0}


def test_captions_and_translations_are_graded():
    pairs = [
        Pair("caption", (Text(f"a {c} cup on the left"),), (Text(f"a {c} cup on the left"),)) for c in ("red", "blue")
    ]
    same = (Text("eine rote Tasse hier"),)
    figures = measure([*pairs, Pair("translate", same, same, "de")], chosen(None))
    assert figures.metrics["caption"]["bleu"] == pytest.approx(1)
    assert figures.metrics["caption"]["cider"] > baseline(figures)[0]["caption"]["cider"]
    assert figures.metrics["translate"] == {"bleu": pytest.approx(1)}
