import json

import pytest
from hypothesis import given
from random_conversations import PLAIN, words

from examples import examples
from weft.conversation import Audio, Conversation, Image, Message, Task, Text, Word, Words
from weft.dialects import DialectError, Plain, Slot, Special, get_dialect

CLIP = Audio("a.wav")


def user(*parts):
    return Message("user", parts)


def assistant(*parts):
    return Message("assistant", parts)


def pieces_of(*messages, switches=None, **options):
    return get_dialect("qwen_audio", switches).render(Conversation(messages), **options)


def written(*messages, **options):
    pieces = pieces_of(*messages, **options)
    return "".join("@" if isinstance(p, Slot) else p.token if isinstance(p, Special) else p.text for p in pieces)


@pytest.mark.parametrize(
    ("task", "text", "tags"),
    [
        # eval_audio/*.py
        (Task("transcribe", {"language": "en"}), None, "startoftranscript en transcribe en notimestamps wo_itn"),
        (Task("transcribe", {"language": "zh", "itn": True}), None,
         "startoftranscript zh transcribe zh notimestamps itn"),
        (Task("transcribe", {"language": "en", "timestamps": True}), None,
         "startoftranscript en transcribe en timestamps 0.00"),
        (Task("translate", {"language": "en", "to": "de"}), None, "startoftranscript en translate de notimestamps itn"),
        (Task("caption"), None, "startofanalysis unknown caption en notimestamps caption_clotho"),
        (Task("caption", {"style": "audiocaps"}), None,
         "startofanalysis unknown caption en notimestamps caption_audiocaps"),
        (Task("caption", {"style": "audioset"}), None,
         "startofanalysis unknown caption en notimestamps audioset_ontology"),
        (Task("question"), "Q?", "startofanalysis en question Q? answer"),
        (Task("emotion"), None, "startofanalysis en keyword en notimestamps emotion_recognition"),
        (Task("vocal_sound"), None, "startofanalysis en keyword en notimestamps vocal_classification"),
        (Task("scene"), None, "startofanalysis unknown keyword en notimestamps scene"),
        (Task("note"), None, "startofanalysis unknown keyword en notimestamps note_analysis"),
        # from the vocabulary
        (Task("locate"), "bell", "startofanalysis unknown keyword en timestamps audio_grounding bell answer"),
        (Task("music"), None, "startofanalysis unknown caption en notimestamps music_description"),
        (Task("speaker"), None, "startofanalysis en keyword en notimestamps speaker_meta"),
        (Task("entities"), None, "startofanalysis en keyword en notimestamps named_entity_recognition"),
        (Task("event"), None, "startofanalysis unknown keyword en notimestamps event"),
    ],
)  # fmt: skip
def test_tags(task, text, tags):
    parts = (CLIP, task) if text is None else (CLIP, task, Text(text))
    expected = "@" + "".join(tag if tag == text else f"<|{tag}|>" for tag in tags.split())
    assert written(user(*parts), generate=True) == expected
    assert written(user(*parts), assistant(Text("A"))) == expected + "A<|endoftext|>"


def test_language_null_is_for_the_model_to_predict():
    predicted = user(CLIP, Task("transcribe", {"language": None}))
    assert written(predicted, generate=True) == "@<|startoftranscript|>"
    assert written(user(CLIP, Task("transcribe")), generate=True).startswith("@<|startoftranscript|><|unknown|>")
    answer = "<|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>hello"
    assert get_dialect("qwen_audio").parse(answer, Conversation((predicted,))) == [Text("hello")]


def test_tags_are_learned_unless_switched_off():
    turns = user(CLIP, Task("transcribe", {"language": "en"})), assistant(Text("hello"))
    assert all(p.loss for p in pieces_of(*turns) if not isinstance(p, Slot))
    learned = [p for p in pieces_of(*turns, switches={"loss_on_tags": False}) if not isinstance(p, Slot) and p.loss]
    assert learned == [Plain("hello", True), Special("<|endoftext|>", True)]
    question = pieces_of(user(CLIP, Task("question"), Text("Q")), assistant(Text("A")))
    assert [p.text for p in question if isinstance(p, Plain) and p.loss] == ["A"]


def test_chat_turns_number_clips_over_the_conversation():
    turns = (
        user(CLIP, CLIP, Text("which?")),
        assistant(Text("both")),
        user(CLIP, Text("and this?")),
    )
    head = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    first = "<|im_start|>user\nAudio 1:@\nAudio 2:@\nwhich?<|im_end|>\n<|im_start|>assistant\nboth<|im_end|>\n"
    second = "<|im_start|>user\nAudio 3:@\nand this?<|im_end|>\n<|im_start|>assistant\n"
    assert written(*turns, generate=True) == head + first + second
    restarted = written(*turns, generate=True, switches={"restart_numbering": True})
    assert restarted == head + first + second.replace("Audio 3", "Audio 1")
    spaced = written(*turns[:1], generate=True, switches={"space_after_number": True, "system": None})
    assert spaced.startswith("<|im_start|>user\nAudio 1: @\nAudio 2: @\nwhich?")


def test_task_turns_and_chat_turns_in_one_conversation():
    turns = (
        user(CLIP, Task("transcribe", {"language": "en"})),
        assistant(Text("hello")),
        user(Text("who said it?")),
    )
    assert written(*turns, generate=True) == (
        "@<|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>hello<|endoftext|>"
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nwho said it?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_each_boundary_is_written_once():
    task = Task("transcribe", {"language": "zh", "timestamps": True})
    part = Words((Word("面", 0.54, 0.86), Word("条", 0.86, 1.17), Word("机", 1.17, 1.46), Word("了", 2.01, 2.2)))
    text = written(user(CLIP, task), assistant(part)).split("<|timestamps|>")[1]
    assert text == ("<|0.00|><|sil|><|0.54|>面<|0.86|>条<|1.17|>机<|1.46|><|sil|><|2.01|>了<|2.20|><|endoftext|>")


@examples(200)
@given(part=words())
def test_words_survive_writing_and_parsing(part):
    dialect = get_dialect("qwen_audio")
    for question in (
        user(CLIP, Task("transcribe", {"language": "en", "timestamps": True})),
        user(CLIP, Task("locate"), Text("bell")),
    ):
        text = written(question, assistant(part))
        answer = text.removeprefix(written(question, generate=True)).removesuffix("<|endoftext|>")
        assert dialect.parse(answer, Conversation((question,))) == [Words(part.words, 0)]


@examples(50)
@given(part=words(longest=30.0, text=PLAIN))
def test_words_in_a_chat_are_sentences(part):
    kept = Words(tuple(w for w in part.words if w.end <= 30.0), 0)
    if not kept.words:
        return
    question = user(CLIP, Text("when?"))
    text = written(question, assistant(kept)).split("assistant\n")[1].removesuffix("<|im_end|>\n")
    assert get_dialect("qwen_audio").parse(text, Conversation((question,))) == [kept]


def test_released_answers_are_read():
    parse = get_dialect("qwen_audio").parse
    timed = Conversation((user(CLIP, Task("transcribe", {"language": "en", "timestamps": True})),))
    chat = Conversation((user(CLIP, Text("when?")),))
    hello = Words((Word("hello", 0.31, 0.62),), 0)
    assert parse("<|0.31|>hello<|0.62|>", timed) == [hello]
    assert parse("<|sil|><|0.31|>hello<|0.62|><|sil|><|2.01|>", timed) == [hello]
    assert parse("hello<|0.62|>", timed) == [Words((Word("hello", 0.0, 0.62),), 0)]
    assert parse("<|0.31|>hello<|0.62|>", chat) == [hello]
    sentence = 'The word "middle classes" starts at <|2.33|> seconds and ends at <|3.26|> seconds.'
    assert parse(sentence, chat) == [Text("The word "), Words((Word("middle classes", 2.33, 3.26),), 0)]
    assert parse("<|0.31|>hello<|0.62|>there", timed) == [hello, Text("there")]
    assert parse("no times here", timed) == [Text("no times here")]
    assert parse("<|sil|>", timed) == []


def test_malformed_times_are_named_and_stay_text():
    dialect = get_dialect("qwen_audio")
    timed = Conversation((user(CLIP, Task("transcribe", {"language": "en", "timestamps": True})),))
    chat = Conversation((user(CLIP, Text("when?")),))
    backwards = "<|0.31|>hello<|0.62|>there<|0.40|>you<|0.90|>"
    assert dialect.parse(backwards, timed) == [
        Words((Word("hello", 0.31, 0.62),), 0), Text("there"), Words((Word("you", 0.4, 0.9),), 0)
    ]  # fmt: skip
    assert dialect.malformed(backwards, timed) == ["<|0.62|>there<|0.40|>"]
    assert dialect.malformed("<|0.31|>hello<|0.62|>there", timed) == ["<|0.62|>there"]
    assert dialect.malformed("<|0.31|>hello<|0.62|><|sil|><|2.01|>", timed) == []
    ends_first = '"a" starts at <|3.26|> seconds and ends at <|2.33|> seconds.'
    assert dialect.parse(ends_first, chat) == [Text('"a" starts at 3.26 seconds and ends at 2.33 seconds.')]
    assert dialect.malformed(ends_first, chat) == [ends_first]


@pytest.mark.parametrize(
    ("text", "words", "odd"),
    [
        # Only after a window's end, 30.00, do times begin anew: an end before its start is no word of 28 s.
        ("<|5.00|>a<|3.00|>b<|4.00|>", [("b", 3, 4)], ["<|5.00|>a<|3.00|>"]),
        ("<|5.00|>a<|6.00|><|2.00|>b<|3.00|>", [("a", 5, 6), ("b", 2, 3)], []),
        ("<|29.00|>a<|30.00|><|0.00|><|sil|><|1.00|>b<|2.00|>", [("a", 29, 30), ("b", 31, 32)], []),
        ("<|29.00|>a<|30.00|><|0.00|><|1.00|>b<|2.00|>", [("a", 29, 31), ("b", 31, 32)], []),
        ("<|1.00|>a<|31.00|><|2.00|>b<|3.00|>", [("b", 2, 3)], ["<|1.00|>a<|31.00|>"]),
        ("<|45.00|>a<|2.00|>b<|3.00|>", [("b", 2, 3)], ["<|45.00|>a<|2.00|>"]),
        ("<|29.00|>a<|30.00|><|0.00|><|99.00|>b<|2.00|>", [("a", 29, 30)], ["<|99.00|>b<|2.00|>"]),
    ],
)
def test_times_count_on_over_the_end_of_a_window_and_nowhere_else(text, words, odd):
    dialect = get_dialect("qwen_audio")
    asked = Conversation((user(CLIP, Task("locate"), Text("x")),))
    parts = dialect.parse(text, asked)
    assert [(w.text, w.start, w.end) for p in parts if isinstance(p, Words) for w in p.words] == words
    assert dialect.malformed(text, asked) == odd


@pytest.mark.parametrize(
    "times",
    [(20.0, 30.0, 30.5, 31.0), (20.0, 30.0, 59.5, 61.0), (29.0, 30.0, 30.0, 31.0),
     (29.0, 30.0, 60.1, 60.5), (29.0, 61.0, 90.0, 91.0), (5.0, 9.0, 6.0, 7.0)],
)  # fmt: skip
def test_words_at_the_edge_of_a_window_come_back(times):
    task = user(CLIP, Task("locate"), Text("x"))
    part = Words((Word("a", *times[:2]), Word("b", *times[2:])), 0)
    answer = written(task, assistant(part)).removeprefix(written(task, generate=True)).removesuffix("<|endoftext|>")
    assert get_dialect("qwen_audio").parse(answer, Conversation((task,))) == [part]


@pytest.mark.parametrize("times", [(29.0, 30.2, 29.9, 31.0), (20.0, 30.0, 29.9, 29.95), (31.0, 32.0, 1.0, 2.0)])
def test_a_word_in_an_earlier_window_than_the_one_before_it_is_refused(times):
    part = Words((Word("a", *times[:2]), Word("b", *times[2:])), 0)
    with pytest.raises(DialectError, match="only counts windows on; sort the words by time"):
        written(user(CLIP, Task("locate"), Text("x")), assistant(part))


def test_a_sentence_with_a_time_beyond_a_window_is_malformed():
    dialect, chat = get_dialect("qwen_audio"), Conversation((user(CLIP, Text("when?")),))
    for start, end in ((1.0, 31.0), (45.0, 46.0)):
        said = f'"a" starts at <|{start:.2f}|> seconds and ends at <|{end:.2f}|> seconds.'
        assert all(isinstance(part, Text) for part in dialect.parse(said, chat))
        assert dialect.malformed(said, chat) == [said]


def test_a_time_in_a_chat_without_its_other_end_is_read_as_text():
    chat = Conversation((user(CLIP, Text("when?")),))
    parse = get_dialect("qwen_audio").parse
    assert parse('"middle classes" starts at <|2.33|> seconds.', chat) == [
        Text('"middle classes" starts at 2.33 seconds.')
    ]
    assert parse("It is heard from <|2.33|> to <|3.26|> seconds", chat) == [
        Text("It is heard from 2.33 to 3.26 seconds")
    ]
    later = 'It is "one" starts at <|0.10|> seconds and ends at <|0.40|> seconds. Also at <|0.90|>.'
    assert parse(later, chat) == [Text("It is "), Words((Word("one", 0.1, 0.4),), 0), Text("Also at 0.90.")]


@pytest.mark.parametrize(
    ("task", "answer", "tags"),
    [
        ("note", "pitch 60; velocity 100; instrument organ; sonic bright, dark",
         "<|pitch|><|midi_pitch_60|><|velocity|><|midi_velocity_100|><|instrument|>organ<|sonic|>bright, dark"),
        ("note", "instrument bass", "<|instrument|>bass"),
        ("note", "pitch 128", "pitch 128"),
        ("note", "a low organ", "a low organ"),
        ("entities", "Paris (place); Anna Lee (person)",
         "<|startofentityvalue|>Paris<|endofentityvalue|><|startofentitytype|>place<|endofentitytype|>"
         "<|startofentityvalue|>Anna Lee<|endofentityvalue|><|startofentitytype|>person<|endofentitytype|>"),
        ("entities", "nobody", "nobody"),
        ("scene", "pitch 60", "pitch 60"),
    ],
)  # fmt: skip
def test_notes_and_names_are_written_in_tags_and_read_as_words(task, answer, tags):
    question = user(CLIP, Task(task))
    assert written(question, assistant(Text(answer))) == written(question, generate=True) + tags + "<|endoftext|>"
    assert get_dialect("qwen_audio").parse(tags, Conversation((question,))) == [Text(answer)]


def test_what_it_has_no_form_for_is_refused():
    with pytest.raises(DialectError, match="dialects that can: chatml, .*minigpt_v2"):
        written(user(Image("i.png")), generate=True)
    with pytest.raises(DialectError, match="'nl'"):
        written(user(CLIP, Task("transcribe", {"language": "nl"})), generate=True)
    with pytest.raises(DialectError, match='give the task "to"'):
        written(user(CLIP, Task("translate", {"language": "en"})), generate=True)
    with pytest.raises(DialectError, match="no place for words"):
        written(user(CLIP, Task("emotion"), Text("well?")), generate=True)
    with pytest.raises(DialectError, match="caption styles"):
        written(user(CLIP, Task("caption", {"style": "haiku"})), generate=True)


def test_its_tokens_are_all_in_the_released_vocabulary(shared):
    released = json.loads((shared / "parity/qwen_audio/special_tokens.json").read_text())
    dialect = get_dialect("qwen_audio")
    token, start, end = dialect.slot_tokens("audio")
    assert {*dialect.special_tokens(), token, start, end} <= set(released)


def test_times_are_of_the_last_clip_and_of_none_where_there_is_none():
    timed = Task("transcribe", {"language": "en", "timestamps": True})
    seen = Conversation((user(CLIP), assistant(Text("ok")), user(CLIP, timed)))
    answer = "<|sil|><|0.10|>world<|0.50|>"
    (words,) = get_dialect("qwen_audio").parse(answer, seen)
    assert words.audio == 1
    assert get_dialect("qwen_audio").parse(answer, Conversation((user(timed),))) == [Text("world")]
