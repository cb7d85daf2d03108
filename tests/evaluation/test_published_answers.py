"""VQA, exact answers, captions and notes, by hand; and the recorded figures of the released scripts."""

import json
from pathlib import Path

import pytest
from evaluation_samples import rows, score

from weft.evaluation.families import score_files
from weft.evaluation.published import captions, hallucination, music, vqa

# --- VQA --------------------------------------------------------------------------------------------------------------


def test_vqa_normalises_as_the_official_script():
    assert vqa.normalize("Two dogs, a cat!") == "2 dogs cat"
    assert vqa.normalize("t-shirt") == "t shirt"
    assert vqa.normalize("10,000") == "10000"
    assert vqa.normalize("1.5") == "1.5"
    assert vqa.normalize("U.S.") == "us"
    assert vqa.normalize("dont know") == "don't know"
    assert vqa.normalize("none") == "0"
    assert vqa.normalize("couldnt've") == vqa.normalize("couldn'tve") == "couldn't've"
    assert vqa.normalize("black & white") == "black & white"
    assert vqa.without_marks("." * 40) == "." * 8  # a flag stands where the count belongs


def test_vqa_accuracy_leaves_each_annotator_out_once():
    assert vqa.soft_accuracy("red", ["red"] + ["blue"] * 9) == pytest.approx(0.3)
    assert vqa.soft_accuracy("red", ["red"] * 2 + ["blue"] * 8) == pytest.approx(0.6)
    assert vqa.soft_accuracy("red", ["red"] * 4 + ["blue"] * 6) == 1


def test_agreeing_annotators_are_not_normalised():
    assert vqa.soft_accuracy("the two", ["two"] * 10) == 0
    assert vqa.soft_accuracy("the two", ["two"] * 9 + ["no"]) == 1


def test_minigpt_v2_never_meets_an_answer_that_normalising_would_change():
    assert vqa.original_accuracy("two", ["two"] * 9 + ["no"]) == 0
    assert vqa.original_accuracy("two", ["2"] * 9 + ["no"]) == 1
    assert vqa.original_accuracy("RED<unk>", ["red"] * 9 + ["no"]) == 1


def test_vizwiz_joins_the_answers_at_an_underscore():
    scores = score("vizwiz", rows(("A", {"answers": ["a_b", "a", "c"]}), ("x", {"answers": ["x"] * 4})))
    assert scores.samples[0]["minigpt_v2_vizwiz_accuracy"] == pytest.approx(100 * 2 / 3)
    assert scores.metrics["vizwiz"]["minigpt_v2_vizwiz_accuracy"] == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_recorded_vqa_figures(shared: Path):
    kit = shared / "parity" / "scorers"
    expected = json.loads((kit / "expected.json").read_text())["vqa"]
    report = score_files("vqa", kit / "vqa_predictions.jsonl", kit / "vqa_references.jsonl")
    assert report["metrics"]["vqa"]["minigpt_v2_vqa_accuracy"] == pytest.approx(expected["accuracy"], abs=1e-6)
    got = {one["id"]: one["scores"]["minigpt_v2_vqa_accuracy"] for one in report["samples"]}
    assert got == pytest.approx(expected["per_id"], abs=1e-6)


# --- equal answers ----------------------------------------------------------------------------------------------------


def test_each_set_has_its_own_idea_of_equal():
    gqa = score("gqa", rows(("Yes", {"answer": "yes"}), ("yes", {"answer": "Yes"})))
    assert gqa.metrics["gqa"] == {"exact": 1.0, "minigpt_v2_gqa_accuracy": 50.0}
    hm = score("hm", rows((" YES ", {"label": 1}), ("no", {"answer": "0"}), ("no.", {"label": 0})))
    assert hm.metrics["hm"] == {"exact": 1, "minigpt_v2_hm_accuracy": pytest.approx(200 / 3)}
    vsr = score("vsr", rows(("true", {"answer": "True"})))
    assert vsr.metrics["vsr"]["minigpt_v2_vsr_accuracy"] == 100


def test_qwen_audio_accuracy_and_its_binary_part():
    given = rows(("yes", {"answer": "yes"}), ("No", {"answer": "no"}), ("rain", {"answer": "rain"}))
    assert score("accuracy", given).metrics["accuracy"] == {
        "exact": 1.0,
        "qwen_audio_accuracy": pytest.approx(2 / 3),
        "qwen_audio_accuracy_binary": 0.5,
    }
    assert score("accuracy", given[2:]).metrics["accuracy"]["qwen_audio_accuracy_binary"] is None


# --- captions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [  # what Stanford's tokenizer gives (through pycocoevalcap 1.2)
        ("Two dogs' toys don't fit, can't they?", "two dogs toys do n't fit ca n't they"),
        ("A black-and-white cat (sleeping)!", "a black-and-white cat -lrb- sleeping -rrb-"),
        ("It's 5:30 p.m. and we cannot", "it 's 5:30 p.m. and we can not"),
        ("the 1980's cost $5.00 -- or “1,000”", "the 1980 's cost $ 5.00 or 1,000"),
    ],
)
def test_treebank_like_tokens(caption, tokens):
    assert " ".join(captions.ptb_like(caption)) == tokens


def test_treebank_like_tokens_keep_the_marks_of_their_letters():
    assert captions.ptb_like("हिन्दी में एक कुत्ता।") == ["हिन्दी", "में", "एक", "कुत्ता", "।"]


def test_chair_counts_mentions_of_what_is_not_there():
    table = hallucination.object_table()
    assert hallucination.mentioned("Two women ride bikes past hot dogs and a baby elephant", table) == [
        "person",
        "bicycle",
        "hot dog",
        "elephant",
    ]
    assert hallucination.mentioned("a toilet seat and wine glasses", table) == ["toilet", "wine glass"]
    scores = score(
        "chair",
        rows(
            ("a man and a dog", {"objects": ["person"]}),
            ("a cat", {"objects": [], "captions": ["the kitten sleeps"]}),
        ),
    )
    assert scores.metrics["chair"]["chair_i"] == pytest.approx(1 / 3)
    assert scores.metrics["chair"]["chair_s"] == pytest.approx(1 / 2)


# --- notes ------------------------------------------------------------------------------------------------------------


def note(pitch, instrument="organ", sonic="bright, dark"):
    midi = f"<|pitch|><|midi_pitch_{pitch}|><|velocity|><|midi_velocity_100|>"
    return f"{midi}<|instrument|>{instrument}<|sonic|>{sonic}<|end|>"


def test_a_note_is_read_and_what_is_missing_is_128():
    assert music.read_note(note(60)) == (60, 100, "organ", {"bright", "dark"})
    assert music.read_note("nothing") == (128, 128, "", frozenset())
    assert music.read_note("<|pitch|><|midi_pitch_x|>").pitch == 128


def test_chroma_of_the_original_counts_places_not_pitches():
    given = rows((note(72), {"text": note(60)}), (note(61), {"text": note(61)}))
    figures = score("nsynth", given).metrics["nsynth"]
    assert figures["chroma_accuracy"] == 1
    assert figures["qwen_audio_chroma_accuracy"] == 0.5  # 60, 61 and 72 are places 0, 1 and 2
    assert figures["qwen_audio_pitch_accuracy"] == 0.5


def test_average_precision_over_hard_labels():
    # scikit-learn: one of two found, no false alarm: 0.5 * 1 + 0.5 * 2/4
    assert music.hard_average_precision([True, True, False, False], [True, False, False, False]) == pytest.approx(0.75)
    assert music.hard_average_precision([True, False], [False, False]) == pytest.approx(0.5)
    assert music.hard_average_precision([False, False], [True, False]) == 0
    assert music.macro_average_precision([frozenset()], [frozenset()]) is None
