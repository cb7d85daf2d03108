"""Boxes, words and word times, by hand; and the recorded figures of the released scripts."""

import json
from pathlib import Path

import pytest
from evaluation_samples import rows, score

from weft.evaluation.families import score_files
from weft.evaluation.published import boxes, speech

# --- boxes ------------------------------------------------------------------------------------------------------------


def test_edges_are_counted_as_pixels_in_the_original():
    assert boxes.inclusive_iou([0, 0, 10, 10], [10, 10, 20, 20]) == pytest.approx(1 / 241)


def test_half_is_wrong_in_the_original_and_right_by_the_ordinary_rule():
    # 100 x 99 pixels beside 50 x 99, both inclusive: exactly a half.
    assert boxes.inclusive_iou([0, 0, 99, 98], [0, 0, 49, 98]) == 0.5
    reference = {"bbox_xywh": [0, 0, 50, 100], "width": 100, "height": 100}
    scores = score("refcoco", rows(("{<0><0><100><100>}", reference)))
    assert scores.metrics["refcoco"]["box_accuracy_50"] == 1
    assert scores.metrics["refcoco"]["minigpt_v2_accuracy"] == 100 * (51 * 101 / (101 * 101) > 0.5)
    assert not boxes.original_hit("{<0><0><99><98>}", [0, 0, 49, 98], 100, 100)


@pytest.mark.parametrize(
    ("answer", "original", "sound"),
    [
        ("{<10><10><50><50>}", True, True),
        ("{ < 1 0 > < 1 0 > < 5 0 > < 5 0 > }", True, True),
        ("<unk>{<10><10><50><50>}", True, True),
        ("the {<10><10><50><50>}", False, True),  # must begin with the box
        ("{<10><10><50><50>}<delim>{<0><0><9><9>}", False, True),  # eight numbers
        ("{<10><10><50><50>} 2", False, True),
        ("{<10><10><50>}", False, False),
        ("{<10><10><50><50>", False, False),
        ("{<10><10><50><999>}", False, False),
        ("{<5><5><5><5>}", False, False),
        ("", False, False),
    ],
)
def test_what_counts_as_a_box(answer, original, sound):
    reference = {"bbox_xywh": [10, 10, 40, 40], "width": 100, "height": 100}
    scores = score("refcoco", rows((answer, reference)))
    assert scores.metrics["refcoco"]["minigpt_v2_accuracy"] == 100 * original
    assert scores.metrics["refcoco"]["box_accuracy_50"] == sound


def test_recorded_refcoco_figures(shared: Path):
    kit = shared / "parity" / "scorers"
    expected = json.loads((kit / "expected.json").read_text())["refcoco"]
    report = score_files("refcoco", kit / "refcoco_predictions.jsonl", kit / "refcoco_references.jsonl")
    assert report["metrics"]["refcoco"]["minigpt_v2_accuracy"] == pytest.approx(expected["accuracy"], abs=1e-6)
    assert {s["id"]: s["scores"]["minigpt_v2_accuracy"] == 100 for s in report["samples"]} == expected["per_id"]


# --- words ------------------------------------------------------------------------------------------------------------


def test_units_of_the_original_keep_punctuation():
    assert speech.original_units("<|en|>Hello , World !<|endoftext|>", "en") == ["hello,", "world!"]
    assert speech.original_units("<|zh|>你 好，abc", "zh") == list("你好，abc")


def test_wer_of_the_original_beside_the_normalised_one():
    def wer(*pairs, **options):
        return score("wer", rows(*pairs), **options).metrics["wer"]

    assert wer(("Hello world", {"text": "hello, world."}), language="en") == {
        "wer": 1.0,
        "wer_normalized": 0.0,
        "cer_normalized": 0.0,
        "wer_whisper": 0.0,
        "qwen_audio_wer": 1.0,
    }
    assert wer(("你好吗", {"text": "你好", "language": "zh"}))["qwen_audio_wer"] == 0.5
    assert wer(("", {"text": "a b"}), ("c", {"text": "c d"}))["qwen_audio_wer"] == 0.75
    hindi = score("wer", rows(("मी", {"text": "मैं", "language": "hi"})))
    assert hindi.metrics["wer"]["wer_normalized"] == 1 and hindi.metrics["wer"]["wer_whisper"] is None
    assert len(hindi.notes) == 1


def test_silence_is_apart_in_every_set_of_words():
    pairs = rows(("a b", {"text": "a b"}), ("x y", {"text": "", "seconds": 4}), ("", {"text": "...", "seconds": 4}))
    name = "hallucinated_words_per_minute"
    for family, rate, right in (("wer", "wer", 0), ("bleu", "bleu", None)):
        scores = score(family, pairs, language="en")
        assert scores.metrics[family][name] == 15 and scores.notes == []
        assert [one.get(name) for one in scores.samples] == [None, 30.0, 0.0]
        assert right is None or scores.metrics[family][rate] == right
        assert [rate in one for one in scores.samples] == [True, False, False]
        assert scores.counts[family][rate] == 1 and scores.counts[family][name] == 2
    assert name not in score("wer", pairs[:1]).metrics["wer"]
    unknown = rows(("x y", {"text": "", "seconds": 4}), ("", {"text": ""}))
    assert score("wer", unknown).metrics["wer"][name] is None
    assert score("wer", unknown[1:]).metrics["wer"][name] == 0
    alone = score("wer", rows(("a", {"text": ""})))
    assert alone.metrics["wer"]["wer"] is alone.metrics["wer"][name] is alone.metrics["wer"]["qwen_audio_wer"] is None
    assert len(alone.notes) == 1 and '"seconds"' in alone.notes[0]


def test_a_timed_transcript_of_silence_is_apart_too():
    reference = {"text": "<|0.10|>a<|0.50|>", "language": "en"}
    silent = {"text": "<|0.00|><|sil|><|2.00|>", "language": "en", "seconds": 2}
    scores = score("srwt", rows(("<|0.10|>a<|0.50|>", reference), ("<|0.10|>you<|0.50|>", silent)))
    assert scores.metrics["srwt"]["wer"] == 0 and scores.metrics["srwt"]["hallucinated_words_per_minute"] == 30


# --- word times -------------------------------------------------------------------------------------------------------


def test_both_ends_are_summed():
    reference = {"text": "<|0.10|>hello<|0.50|>world<|1.00|>", "language": "en"}
    scores = score("srwt", rows(("<|0.20|>hello<|0.60|>world<|1.30|>", reference)))
    assert scores.metrics["srwt"]["qwen_audio_aas_seconds"] == pytest.approx((0.1 + 0.1 + 0.1 + 0.3) / 2)
    assert scores.metrics["srwt"]["word_time_ms"] == pytest.approx(150)
    assert scores.metrics["srwt"]["word_time_coverage"] == 1


def test_text_before_the_first_time_is_lost_by_the_original_alone():
    reference = {"text": "<|0.00|>hello<|0.50|>world<|1.00|>", "language": "en"}
    scores = score("srwt", rows(("hello<|0.50|>world<|1.00|>", reference)))
    assert scores.metrics["srwt"]["qwen_audio_aas_seconds"] == 0
    assert scores.metrics["srwt"]["word_time_coverage"] == 1
    assert speech.read_times("hello<|0.50|>world<|1.00|>") == (["world"], [0.5, 1.0])


def test_a_silence_is_a_word_of_the_original_alone():
    reference = {"text": "<|sil|><|0.50|>一<|1.00|>", "language": "zh"}
    scores = score("srwt", rows(("<|0.00|><|sil|><|0.50|>一<|1.00|>", reference)))
    assert scores.metrics["srwt"]["word_time_coverage"] == 1
    assert speech.read_times("<|0.00|><|sil|><|0.50|>一<|1.00|>").words == ["<|sil|>", "一"]


def test_an_answer_without_times_leaves_the_original_without_a_figure():
    reference = {"text": "<|0.10|>a<|0.50|>", "language": "en"}
    scores = score("srwt", rows(("<|0.10|>a<|0.50|>", reference), ("a", reference)))
    assert scores.metrics["srwt"]["qwen_audio_aas_seconds"] is None
    assert scores.metrics["srwt"]["word_time_ms"] == 0
    assert scores.metrics["srwt"]["word_time_coverage"] == 0.5
    assert scores.metrics["srwt"]["without_times"] == 0.5
    assert scores.notes


def test_ties_are_broken_as_the_package_edit_distance_does():
    # Recorded from edit_distance 1.0.9.
    assert speech.equal_pairs("ab", "ba") == []
    assert speech.equal_pairs("aab", "ab") == [(1, 0), (2, 1)]
    assert speech.equal_pairs("abcd", "bcx") == [(1, 0), (2, 1)]
    assert speech.equal_pairs("", "ab") == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_recorded_word_time_figures(shared: Path, language: str):
    kit = shared / "parity" / "scorers"
    expected = json.loads((kit / "expected.json").read_text())[f"srwt_{language}"]
    files = [kit / f"srwt_{language}_{kind}.jsonl" for kind in ("predictions", "references")]
    figures = score_files("srwt", *files)["metrics"]["srwt"]
    assert figures["qwen_audio_aas_seconds"] == pytest.approx(expected["aas_seconds"], abs=1e-6)
    assert figures["qwen_audio_wer"] == pytest.approx(expected["wer"], abs=1e-6)


# --- translation ------------------------------------------------------------------------------------------------------


def test_bleu_of_the_original_and_by_language():
    pairs = rows(
        ("the cat sat on the mat today", {"text": "the cat sat on the mat today", "language": "en"}),
        ("今天天气很好", {"text": "今天天气很好", "language": "zh"}),
    )
    figures = score("bleu", pairs).metrics["bleu"]
    assert figures == pytest.approx({"bleu": 1.0, "qwen_audio_bleu_en": 100.0, "qwen_audio_bleu_zh": 100.0})
    assert set(score("bleu", pairs[:1]).metrics["bleu"]) == {"bleu", "qwen_audio_bleu"}
