"""Scores against figures worked out by hand."""

import math
from random import Random

import jiwer
import pytest

from weft.conversation import Box, Text, Word, Words
from weft.evaluation import constants, scorers
from weft.evaluation.metrics import METRICS, chosen, measure
from weft.evaluation.pairs import Pair
from weft.evaluation.scorers import Tally


def test_word_errors_count_substitutions_deletions_and_insertions():
    assert scorers.word_errors("one two three four", "one too three four five") == Tally(2, 4)
    assert scorers.word_errors("one two", "") == Tally(2, 2)
    assert scorers.word_errors("", "one two") == Tally(0, 0)  # no rate: words in silence are counted apart
    assert scorers.word_errors("", "") == Tally(0, 0)
    assert scorers.word_errors("One two.", "one two").amount == 2  # as written


def test_errors_are_jiwers_count():
    random = Random(0)
    for _ in range(200):
        expected, given = ([random.choice("abcd") for _ in range(random.randint(1, 12))] for _ in range(2))
        found = jiwer.process_words(" ".join(expected), " ".join(given))
        errors = found.substitutions + found.deletions + found.insertions
        assert scorers.unit_errors(expected, given) == Tally(errors, len(expected))


def test_pooled_errors_weigh_by_words():
    tallies = [scorers.word_errors("a b c d e f g h", "a b c d e f g h"), scorers.word_errors("x y", "y")]
    assert scorers.pooled(tallies).value == pytest.approx(0.1)


def test_letters_of_unspaced_scripts_are_counted_one_by_one_whatever_the_language():
    assert scorers.word_errors("你好世界", "你好世间") == Tally(1, 4)
    assert scorers.word_errors("打开WiFi。", "打开wifi") == Tally(2, 4)  # 打 开 WiFi 。


def test_exact_match_ignores_case_spaces_and_outer_punctuation():
    assert scorers.exact(" The  Red cup. ", "the red cup") == Tally(1, 1)
    assert scorers.exact("13", "ＩＩ") == Tally(0, 1)
    assert scorers.exact("ﬁve", "five!") == Tally(1, 1)
    assert scorers.exact("no-one", "no one").amount == 0


def test_exact_match_takes_the_punctuation_of_every_script_and_no_sign():
    assert scorers.exact("हाँ", "हाँ।") == scorers.exact("نعم", "نعم؟") == scorers.exact("да", "«да»") == Tally(1, 1)
    assert scorers.exact("(5)", "5.") == scorers.exact("“.5”", ".5") == scorers.exact("-.5", " -.5.") == Tally(1, 1)
    different = [("5", "5%"), ("5", "-5"), ("5", ".5"), ("-.5", ".5"), ("C", "C#"), ("कि", "की"), ("Maße", "Masse")]
    for one, other in [*different, ("?", "!"), ("*", "...")]:
        assert scorers.exact(one, other) == Tally(0, 1)


def words(*rows):
    return [Word(*row) for row in rows]


def test_word_times_average_start_and_end_over_matched_words():
    expected = words(("five", 0.0, 0.5), ("two", 1.0, 1.5), ("nine", 2.0, 2.5))
    given = words(("Five", 0.1, 0.5), ("one", 0.9, 1.5), ("nine.", 1.9, 2.7))
    error, coverage = scorers.word_times(expected, given)
    # five: (100 + 0) / 2; nine: (100 + 200) / 2; two is not matched
    assert error.value == pytest.approx(100)
    assert coverage.value == pytest.approx(2 / 3)
    assert scorers.word_times(expected, []).error.value is None
    assert scorers.word_times(expected, []).coverage.value == 0


def test_word_alignment_survives_punctuation_and_spaces_inside():
    expected = words(("...", 0, 1), ("ice cream", 1, 2), ("yes", 2, 3))
    given = words(("...", 0, 1), ("ice cream", 1, 2), ("no", 2, 3), ("yes", 3, 4))
    assert scorers.match_words(expected, given) == [(0, 0), (1, 1), (2, 3)]


def test_iou():
    a, b = (0, 0, 0.2, 0.2), (0.1, 0, 0.3, 0.2)
    assert scorers.iou([a], [b])[0, 0] == pytest.approx(1 / 3)
    assert scorers.iou([a], [(0.5, 0.5, 0.6, 0.6)])[0, 0] == 0
    assert scorers.iou([(0.1, 0.1, 0.1, 0.1)], [(0.1, 0.1, 0.1, 0.1)])[0, 0] == 0  # no area: no overlap, no NaN


def test_box_accuracy_takes_the_first_box():
    wanted, off = (0.0, 0.0, 0.4, 0.4), (0.6, 0.6, 0.9, 0.9)
    half = (0.0, 0.0, 0.4, 0.2)  # exactly half of it: IoU 0.5 counts

    def accuracy(*given):
        pair = Pair("refer", (Box((wanted,)),), (Box(given),))
        return measure([pair], chosen(["box_accuracy_50"])).metrics["refer"]["box_accuracy_50"]

    assert [accuracy(*given) for given in ((wanted, off), (off, wanted), (half,), ())] == [1, 0, 1, 0]


def test_boxes_are_matched_optimally_not_greedily():
    # Both expected boxes overlap the first given one; only one of them overlaps the second.
    expected = [(0.0, 0.0, 0.4, 1.0), (0.1, 0.0, 0.5, 1.0)]
    given = [(0.05, 0.0, 0.45, 1.0), (0.0, 0.0, 0.3, 1.0)]
    overlap = scorers.iou(expected, given) >= 0.5
    assert overlap.tolist() == [[True, True], [True, False]]
    assert scorers.match_boxes(expected, given) == [(0, 1), (1, 0)]
    assert scorers.box_f1(expected, given).value == 1
    assert scorers.box_f1(expected, given[1:]).value == pytest.approx(2 / 3)
    assert scorers.box_f1([], given) == Tally(0, 2)
    assert scorers.box_f1([], []).value is None


def test_bleu_equals_sacrebleu():
    import sacrebleu

    expected, given = ["the cat sat on the mat.", "a dog barked"], ["the cat sat on a mat.", "the dog barked"]
    assert scorers.bleu(expected, given, [None] * 2) == pytest.approx(
        sacrebleu.corpus_bleu(given, [expected]).score / 100
    )
    assert scorers.bleu(["你好世界朋友"], ["你好世界朋友"], ["zh"]) == pytest.approx(1)
    assert "tok:13a" in scorers.bleu_signature()


def test_bleu_of_a_script_without_spaces_is_by_the_character_whatever_is_named():
    for text, other, language in (
        ("你好世界朋友们", "你好世界朋友门", None),
        ("วันนี้อากาศดี", "วันนี้อากาศร้อน", None),
        ("今日はいい天気", "今日はいい気分", "ja"),
    ):
        assert 0.3 < scorers.bleu([text], [other], [language]) < 1
        assert 0.3 < scorers.sentence_bleu(text, other, language) < 1


def test_cider_equals_pycocoevalcap():
    """Figures of pycocoevalcap 1.2 on the same tokens."""
    expected = [
        "a red circle on the left",
        "a blue star above a red key",
        "two dogs are playing in the park today",
        "a cat",
    ]
    given = ["a red circle on the right", "a blue star", "two dogs are playing in the park park", "a dog and a cat"]
    references, candidates = [[text.split()] for text in expected], [text.split() for text in given]
    wanted = pytest.approx([7.24782742, 3.52015504, 8.13419832, 2.36822027])
    assert scorers.cider_d(references, candidates) == wanted
    pairs = [Pair("caption", (Text(x),), (Text(y),)) for x, y in zip(expected, given, strict=True)]
    assert [one["cider"] for one in measure(pairs, chosen(["cider"])).samples] == wanted


def test_cider_of_the_reference_itself_is_ten_and_of_nothing_is_none():
    references = [[list("abcde")], [list("fghij")]]
    got = scorers.cider_d(references, [references[0][0], ["zebra"]])
    assert got[0] == pytest.approx(10)
    assert got[1] == 0


def test_cider_by_hand():
    # One shared unigram ("dog"), rare in two documents (idf ln 2), no longer n-gram in common.
    got = scorers.cider_d([[["red", "dog"]], [["x"]]], [["dog", "blue"], ["y"]])[0]
    unigram = math.log(2) ** 2 / (math.log(2) * math.sqrt(2) * math.sqrt(math.log(2) ** 2 * 2))
    assert got == pytest.approx(10 * unigram / 4)


def test_cider_averages_over_references_and_punishes_length():
    one, other = list("abc"), list("def")
    far = [["z"]]
    assert scorers.cider_d([[one, other], far], [one, ["z"]])[0] == pytest.approx(
        scorers.cider_d([[one], far], [one, ["z"]])[0] / 2
    )
    long = one * 4
    assert scorers.cider_d([[one], far], [long, ["z"]])[0] < scorers.cider_d([[one], far], [one, ["z"]])[0] / 2


# --- constants --------------------------------------------------------------------------------------------------------


def best(name, task, *expected):
    return constants.best_constant(METRICS[name], [Pair(task, parts, ()) for parts in expected])


def test_the_best_constant_answer_is_the_commonest():
    assert best("exact", "vqa", *((Text(t),) for t in ("1", "2", "1 ", "3"))) == (0.5, "1")


def test_the_best_constant_transcript_may_repeat_a_word_or_be_silence():
    spoken = [(Text(t),) for t in ("five five", "five nine", "five five five")]
    assert best("wer", "transcribe", *spoken) == (pytest.approx(2 / 7), "five five")
    assert best("wer", "transcribe", (Text("a b c d"),), (Text("e"),))[0] <= 1.0
    assert best("wer", "transcribe", *((Text(t),) for t in ("a b", "c d e")))[0] <= 1.0
    assert best("hallucinated_words_per_minute", "transcribe", (Text(""),)) == (0.0, "")


def test_the_best_constant_times_are_the_medians():
    clips = [words(("a", 0.0, 1.0)), words(("b", 0.2, 1.2)), words(("c", 0.9, 1.1), ("d", 2.0, 3.0))]
    value, _ = best("word_time_ms", "transcribe", *((Words(tuple(clip)),) for clip in clips))
    # starts 0, .2, .9 around .2; ends 1, 1.2, 1.1 around 1.1; the only second word is exact
    assert value == pytest.approx(500 * (0.2 + 0.7 + 0.1 + 0.1) / 4)


def test_a_constant_transcript_matches_words_without_knowing_when():
    clips = [(Words(tuple(words(("a", 0, 1), (w, 1, 2)))),) for w in "bcd"]
    value, answer = best("word_time_coverage", "transcribe", *clips)
    assert value == pytest.approx(4 / 6) and answer.split()[0] == "a"


def test_the_best_constant_box_hits_what_one_box_can():
    boxes = [(0.1, 0.1, 0.3, 0.3), (0.12, 0.1, 0.32, 0.3), (0.7, 0.7, 0.9, 0.9)]
    value, box = best("box_accuracy_50", "refer", *((Box((b,), None, 1),) for b in boxes))
    assert value == pytest.approx(2 / 3)
    assert scorers.iou([box], boxes[:2]).min() >= 0.5


def test_the_best_constant_box_is_found_between_the_expected_ones():
    # No expected box overlaps both others by half, but one between them does.
    boxes = [(0.0, 0.0, 0.3, 1.0), (0.18, 0.0, 0.48, 1.0)]
    assert scorers.iou(boxes[:1], boxes[1:])[0, 0] < 0.5
    assert best("box_accuracy_50", "refer", *((Box((b,)),) for b in boxes))[0] == 1


def test_the_best_constant_set_of_boxes_may_have_several():
    left, right = (0.0, 0.0, 0.4, 0.4), (0.6, 0.6, 0.9, 0.9)
    value, boxes = best("box_f1_50", "detection", (Box((left, right)),), (Box((left, right)),), (Box((left,)),))
    assert value == pytest.approx(2 * 5 / (5 + 6))
    assert len(boxes) == 2
    assert best("box_f1_50", "detection", (), ())[0] is None
