import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_conversations import PLAIN, boxes, words

from examples import examples
from weft.conversation import TASKS, Audio, Box, Conversation, Image, Message, Task, Text, Word, Words
from weft.dialects import Plain, Slot, Special, get_dialect
from weft.dialects.chatml import WORDINGS

IMAGE, CLIP = Image("i.png"), Audio("a.wav")


def user(*parts):
    return Message("user", parts)


def written(dialect, *messages, **options):
    out = ""
    for piece in dialect.render(Conversation(messages), **options):
        if isinstance(piece, Slot):
            out += f"<{piece.modality} {piece.index}>"
        else:
            out += piece.token if isinstance(piece, Special) else piece.text
    return out


def answer_text(dialect, question, *parts):
    pieces = dialect.render(Conversation((question, Message("assistant", parts))))
    learned = [p for p in pieces if not isinstance(p, Slot) and p.loss]
    assert learned[-1] == Special("<|im_end|>", True)
    return "".join(p.token if isinstance(p, Special) else p.text for p in learned[:-1])


def test_turns_media_and_task():
    text = written(
        get_dialect("chatml"),
        Message("system", (Text("Be kind."),)),
        user(CLIP, Task("transcribe", {"language": "en", "timestamps": True})),
        Message("assistant", (Words((Word("hello", 0.31, 0.62),), 0),)),
        user(IMAGE, Task("refer"), Text("the red cup")),
        generate=True,
    )
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\n<audio 0>Transcribe the English speech with times.<|im_end|>\n"
        "<|im_start|>assistant\n<|t0.3|><|f1|>hello<|t0.6|><|f2|><|im_end|>\n"
        "<|im_start|>user\n<image 0>Locate: the red cup<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_every_task_has_a_wording():
    assert set(WORDINGS) == set(TASKS)
    for name in TASKS:
        for text in ((), (Text("TEXT"),)):
            asked = written(get_dialect("chatml"), user(IMAGE, CLIP, Task(name), *text), generate=True)
            assert "{" not in asked and ("TEXT" in asked) == bool(text)
            assert len(asked) > len(written(get_dialect("chatml"), user(IMAGE, CLIP), generate=True))


def test_switches_add_a_system_message_and_a_first_token():
    dialect = get_dialect("chatml", {"system": "Be brief.", "bos": "<s>"})
    assert written(dialect, user(Text("hi")), generate=True).startswith("<s><|im_start|>system\nBe brief.<|im_end|>\n")
    assert written(dialect, Message("system", (Text("Own."),)), user(Text("hi"))).startswith(
        "<s><|im_start|>system\nOwn."
    )


@pytest.mark.parametrize(
    ("fields", "usual", "wording"),
    [
        ({}, None, "Transcribe the speech."),
        ({}, "en", "Transcribe the English speech."),
        ({"language": "de"}, "en", "Transcribe the German speech."),
        ({"language": None}, "en", "Transcribe the speech."),
    ],
)
def test_the_usual_language_stands_where_a_task_leaves_it_out(fields, usual, wording):
    dialect = get_dialect("chatml", {"language": usual})
    pieces = dialect.render(Conversation((user(CLIP, Task("transcribe", fields)),)), generate=True)
    assert wording in [p.text for p in pieces if isinstance(p, Plain)]
    caption = dialect.render(Conversation((user(CLIP, Task("caption")),)), generate=True)
    assert "Describe this briefly." in [p.text for p in caption if isinstance(p, Plain)]


def test_a_label_that_was_asked_for_is_not_written_and_comes_back():
    question = user(IMAGE, Task("refer"), Text("the cup"))
    dialect = get_dialect("chatml", {"box_bins": 101})
    box = Box(((0.1, 0.2, 0.3, 0.4),), "the cup", 0)
    text = answer_text(dialect, question, box)
    assert text == "<|p10|><|p20|><|p30|><|p40|>"
    assert dialect.parse(text, Conversation((question,))) == [box]
    other = Box(box.boxes, "a mug", 0)
    text = answer_text(dialect, question, other)
    assert text == "<|ref|>a mug<|p10|><|p20|><|p30|><|p40|>"
    assert dialect.parse(text, Conversation((question,))) == [other]


@pytest.mark.parametrize("coordinates", ["tokens", "text"])
def test_several_images_and_clips_are_told_apart(coordinates):
    dialect = get_dialect("chatml", {"coordinates": coordinates})
    question = user(IMAGE, IMAGE, CLIP, CLIP, Text("where and when?"))
    parts = [Box(((0.0, 0.0, 1.0, 1.0),), "a cup", 1), Text(" and "), Words((Word("yes", 1.0, 1.5),), 0)]
    text = answer_text(dialect, question, *parts)
    assert dialect.parse(text, Conversation((question,))) == parts


@pytest.mark.parametrize("coordinates", ["tokens", "text"])
def test_one_of_several_may_not_be_there(coordinates):
    dialect = get_dialect("chatml", {"coordinates": coordinates})
    question = user(IMAGE, Task("detection"), Text("cups, plates and forks"))
    answer = (Box((), "plates", 0), Box(((0.1, 0.2, 0.3, 0.4),), "cups", 0), Box((), "forks", 0))
    text = answer_text(dialect, question, *answer)
    read = dialect.parse(text, Conversation((question,)))
    assert [(p.label, len(p.boxes)) for p in read] == [("plates", 0), ("cups", 1), ("forks", 0)]
    assert dialect.malformed(text, Conversation((question,))) == []


@pytest.mark.parametrize("coordinates", ["tokens", "text"])
def test_nothing_found_is_an_answer(coordinates):
    dialect = get_dialect("chatml", {"coordinates": coordinates})
    question = user(IMAGE, Task("detection"), Text("cups"))
    text = answer_text(dialect, question, Box((), "cups", 0))
    assert dialect.parse(text, Conversation((question,))) == [Box((), "cups", 0)]


@pytest.mark.parametrize(
    ("switches", "step"),
    [
        ({}, 1 / 999),
        ({"box_bins": 100}, 1 / 99),
        ({"box_bins": 10, "box_fine": 10}, 1 / 99),
        ({"coordinates": "text"}, 1 / 1000),
    ],
)
@examples(100)
@given(parts=st.lists(boxes(label=st.none() | PLAIN), min_size=1, max_size=3), between=PLAIN)
def test_boxes_survive_writing_and_parsing(switches, step, parts, between):
    dialect = get_dialect("chatml", switches)
    question = user(IMAGE, Text("what is there?"))
    mixed = [p for box in parts for p in (box, Text(f" {between} "))]
    got = dialect.parse(answer_text(dialect, question, *mixed), Conversation((question,)))
    assert [type(p) for p in got] == [type(p) for p in mixed]
    for a, b in zip(got, mixed, strict=True):
        if isinstance(b, Text):
            assert a == b
            continue
        assert (a.label, a.image, len(a.boxes)) == (b.label, 0, len(b.boxes))
        for one, two in zip(a.boxes, b.boxes, strict=True):
            assert all(abs(x - y) <= step / 2 + 1e-4 for x, y in zip(one, two, strict=True))
    assert answer_text(dialect, question, *got) == answer_text(dialect, question, *mixed)


@pytest.mark.parametrize("coordinates", ["tokens", "text"])
@examples(150)
@given(part=words(longest=4000.0), before=PLAIN | st.none())
def test_words_survive_writing_and_parsing_over_windows(coordinates, part, before):
    dialect = get_dialect("chatml", {"coordinates": coordinates})
    question = user(CLIP, Text("when?"))
    parts = [part] if before is None else [Text(before), part]
    got = dialect.parse(answer_text(dialect, question, *parts), Conversation((question,)))
    assert got == [*parts[:-1], Words(part.words, 0)]


def test_a_time_beyond_the_last_window_token_is_still_written():
    dialect = get_dialect("chatml")
    question = user(CLIP, Text("when?"))
    for seconds in (62 * 30.0 + 1, 63 * 30.0 + 1, 64 * 30.0 + 1, 126 * 30.0 + 1):
        part = Words((Word("a", seconds, seconds + 0.5), Word("b", 1.0, 2.0)), 0)
        text = answer_text(dialect, question, part)
        assert dialect.parse(text, Conversation((question,))) == [part]


def test_times_are_not_written_where_none_were_asked_for():
    question = user(CLIP, Task("transcribe", {"timestamps": False}))
    part = Words((Word("five", 0.1, 0.2), Word("zero", 0.3, 0.4)))
    assert answer_text(get_dialect("chatml"), question, part) == "five zero"


@pytest.mark.parametrize(
    "text",
    [
        "<|p1|><|p2|><|p3|>",
        "<|p500|><|p2|><|p3|><|p4|>",  # right of left
        "<|ref|>cup",
        "<|t0.3|>hello",
        "hello<|t0.3|><|f1|>",
        "<|f3|><|window_2|>",
        "<|item_0|>",
        "[1, 2, 3]",
    ],
)
def test_malformed_grounding_stays_text(text):
    for coordinates in ("tokens", "text"):
        dialect = get_dialect("chatml", {"coordinates": coordinates})
        asked = Conversation((user(IMAGE, CLIP, Text("?")),))
        assert dialect.parse(text, asked) == [Text(text)]
        assert bool(dialect.malformed(text, asked)) == ("<|" in text)  # numbers in brackets may be meant as they are


@pytest.mark.parametrize("asked", [(Text("which four?"),), (Task("vqa"), Text("which?")), (Task("caption"),)])
def test_four_numbers_in_brackets_are_a_list_where_no_boxes_were_asked_for(asked):
    dialect = get_dialect("chatml", {"coordinates": "text"})
    question = user(IMAGE, *asked)
    said = "They are [1, 2, 3, 4], and [900, 10, 20, 30]."
    assert answer_text(dialect, question, Text(said)) == said
    assert dialect.parse(said, Conversation((question,))) == [Text(said)]
    assert dialect.malformed(said, Conversation((question,))) == []
    box = Box(((0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1)), None, 0)  # one that is meant is told from it
    text = answer_text(dialect, question, Text("Here: "), box)
    assert text == "Here: <ref></ref>[100, 200, 300, 400], [0, 0, 1000, 1000]"
    assert dialect.parse(text, Conversation((question,))) == [Text("Here: "), box]


@pytest.mark.parametrize("task", ["refer", "detection", "grounded_caption"])
def test_four_numbers_in_brackets_are_a_box_where_boxes_were_asked_for(task):
    dialect = get_dialect("chatml", {"coordinates": "text"})
    question = user(IMAGE, Task(task), Text("cups"))
    label = None if task == "grounded_caption" else "cups"
    box = Box(((0.1, 0.2, 0.3, 0.4),), label, 0)
    assert answer_text(dialect, question, box) == "[100, 200, 300, 400]"
    assert dialect.parse("[100, 200, 300, 400]", Conversation((question,))) == [box]
    for wrong in ("[300, 200, 100, 400]", "[1200, 1, 1300, 2]", "[1, 2, 3]", "<ref>cups</ref>"):
        assert dialect.parse(wrong, Conversation((question,))) == [Text(wrong)]
        assert dialect.malformed(wrong, Conversation((question,)))


@pytest.mark.parametrize(
    ("coordinates", "text", "odd"),
    [
        ("tokens", "<|t0.6|><|f2|>hello<|t0.3|><|f1|>", "<|t0.6|><|f2|>hello<|t0.3|><|f1|>"),
        ("tokens", "<|t0.6|>hello<|t0.3|>", "<|t0.6|>hello<|t0.3|>"),
        ("tokens", "<|window_2|><|t1.0|>hello<|window_1|><|t2.0|>", "<|window_2|><|t1.0|>hello<|window_1|><|t2.0|>"),
        ("tokens", "<|t1.0|>hello<|t31.0|>", "<|t1.0|>hello<|t31.0|>"),  # a window has 30 seconds
        ("tokens", "<|t30.0|><|f5|>hello<|window_1|><|t2.0|>", "<|t30.0|><|f5|>hello<|window_1|><|t2.0|>"),
        ("text", "<0.62>hello<0.31>", "<0.62>hello<0.31>"),
        ("text", "<0.31> <0.62>", "<0.31> <0.62>"),
    ],
)
def test_a_word_whose_times_cannot_be_stays_text_and_is_named(coordinates, text, odd):
    dialect = get_dialect("chatml", {"coordinates": coordinates})
    conversation = Conversation((user(CLIP, Task("transcribe", {"timestamps": True})),))
    assert dialect.parse(text, conversation) == [Text(text)]
    assert dialect.malformed(text, conversation) == [odd]


@pytest.mark.parametrize(
    ("coordinates", "good", "bad", "more"),
    [
        ("tokens", "<|window_1|><|t0.1|><|f0|>a<|t0.2|><|f0|>", "<|t0.5|><|f0|>b<|t0.4|><|f0|>",
         "<|t0.6|><|f0|>c<|t0.7|><|f0|>"),
        ("text", "<30.10>a<30.20>", " <30.50>b<30.40> ", "<30.60>c<30.70>"),
    ],
)  # fmt: skip
def test_words_after_one_that_cannot_be_keep_their_window(coordinates, good, bad, more):
    dialect = get_dialect("chatml", {"coordinates": coordinates})
    conversation = Conversation((user(CLIP, Text("when?")),))
    first, second = (Words((Word(w, 30 + s, 30 + e),), 0) for w, s, e in (("a", 0.1, 0.2), ("c", 0.6, 0.7)))
    assert dialect.parse(good + bad + more, conversation) == [first, Text(bad), second]
    assert dialect.malformed(good + bad + more, conversation) == [bad.strip()]


def test_a_coordinate_beyond_its_scale_is_malformed():
    question = Conversation((user(IMAGE, Task("refer"), Text("it")),))
    box = "<|p1|><|q{}|><|p{}|><|q1|><|p3|><|q3|><|p4|><|q4|>"
    for switches, text in (
        ({"box_bins": 10, "box_fine": 10}, box.format(10, 2)),  # q9 is the last
        ({"box_bins": 10, "box_fine": 10}, "<|p1|><|p1|><|p10|><|p10|>"),
        ({"box_bins": 10}, box.format(1, 2)),  # there is no fine scale
    ):
        dialect = get_dialect("chatml", switches)
        assert dialect.parse(text, question) == [Text(text)] and dialect.malformed(text, question) == [text]
    fine = get_dialect("chatml", {"box_bins": 10, "box_fine": 10})
    assert fine.parse(box.format(9, 2), question)[0].boxes[0][0] == pytest.approx(19 / 99, abs=1e-4)


def test_grounding_within_malformed_text_is_found():
    dialect = get_dialect("chatml", {"box_bins": 101})
    parts = dialect.parse("<|p1|><|ref|>a <|p0|><|p0|><|p50|><|p50|>?<|t1.0|>", Conversation((user(IMAGE),)))
    assert parts == [Text("<|p1|>"), Box(((0.0, 0.0, 0.5, 0.5),), "a ", 0), Text("?<|t1.0|>")]


def test_boxes_of_the_user_are_written_too():
    dialect = get_dialect("chatml", {"box_bins": 101})
    question = user(IMAGE, Task("identify"), Box(((0.1, 0.2, 0.3, 0.4),), None, 0))
    assert "<image 0>Identify: <|p10|><|p20|><|p30|><|p40|><|im_end|>" in written(dialect, question, generate=True)
    pieces = dialect.render(Conversation((question,)), generate=True)
    assert not any(p.loss for p in pieces if isinstance(p, Plain | Special))


CUP = "<|p1|><|p2|><|p3|><|p4|>"


@pytest.mark.parametrize("coordinates", ["tokens", "text"])
def test_what_points_at_no_item_points_at_the_last_one(coordinates):
    dialect = get_dialect("chatml", {"coordinates": coordinates})
    seen = Conversation((user(IMAGE, CLIP), Message("assistant", (Text("ok"),)), user(IMAGE, CLIP, Text("and now?"))))
    box, word = CUP, "<|t0.1|>hi<|t0.4|>"
    if coordinates == "text":
        box, word = "<ref>a cup</ref>[10, 20, 30, 40]", "<0.10>hi<0.40>"
    assert dialect.parse(box, seen)[0].image == 1
    assert dialect.parse(word, seen)[0].audio == 1
    for text in (box, word):  # nothing there that it could point at
        assert dialect.parse(text, Conversation((user(Text("hello")),))) == [Text(text)]


def test_an_item_that_is_not_there_or_an_empty_word_is_malformed():
    dialect = get_dialect("chatml")
    seen = Conversation((user(IMAGE, IMAGE, CLIP),))
    for text in (f"<|item_5|>{CUP}", "<|t0.1|><|f0|> <|t0.4|><|f0|>"):
        assert dialect.parse(text, seen) == [Text(text)]
        assert dialect.malformed(text, seen)


@pytest.mark.parametrize("coordinates", ["tokens", "text"])
def test_silence_is_an_empty_answer(coordinates):
    dialect = get_dialect("chatml", {"coordinates": coordinates})
    assert answer_text(dialect, user(CLIP, CLIP), Words((), 1)) == ""
