"""Samples: whatever is right survives writing and reading; whatever is wrong is named by file, line and field."""

import base64
import copy
import json
import pickle
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from weft.conversation import (
    TASKS,
    Audio,
    Box,
    Conversation,
    Image,
    Message,
    SampleError,
    Task,
    Text,
    WeftError,
    Word,
    Words,
    dump_parts,
    dump_sample,
    iter_samples,
    parse_line,
    parse_messages,
    parse_sample,
    read_samples,
    write_samples,
)
from weft.conversation.roots import within

PICTURE: dict[str, Any] = {
    "id": "7",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": "img/7.jpg"},
                {"type": "task", "task": "refer"},
                {"type": "text", "text": "the red cup"},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "box", "boxes": [[0.12, 0.30, 0.18, 0.36]], "label": "the red cup", "image": 0}],
        },
    ],
}
SPEECH: dict[str, Any] = {
    "id": "8",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "audio", "audio": "wav/8.flac"},
                {"type": "task", "task": "transcribe", "language": "en", "timestamps": True},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "words", "words": [{"text": "hello", "start": 0.31, "end": 0.62}], "audio": 0}],
        },
    ],
}
ANY_PATH = {"exists": lambda path: True}
SIZE = {"probe": lambda source: (200, 100)}


def changed(sample: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The sample with one place changed; ``path`` is dotted, a last ``+`` appends, a value of ... deletes."""
    sample = copy.deepcopy(sample)
    *steps, last = [int(s) if s.isdigit() else s for s in path.split(".")]
    place: Any = sample
    for step in steps:
        place = place[step]
    if last == "+":
        place.append(value)
    elif value is ...:
        del place[last]
    else:
        place[last] = value
    return sample


def mistake(sample: Any, **options: Any) -> SampleError:
    with pytest.raises(SampleError) as caught:
        parse_sample(sample, where="train.jsonl", line=3, **(ANY_PATH | options))
    assert str(caught.value).startswith("train.jsonl:3")
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_documented_samples_are_read() -> None:
    picture, speech = (parse_sample(s, root="data", **ANY_PATH) for s in (PICTURE, SPEECH))
    assert picture == Conversation(
        (
            Message("user", (Image("data/img/7.jpg"), Task("refer"), Text("the red cup"))),
            Message("assistant", (Box(((0.12, 0.30, 0.18, 0.36),), "the red cup", 0),)),
        ),
        "7",
    )
    assert speech.messages[0].task == Task("transcribe", {"language": "en", "timestamps": True})
    assert speech.answer == Message("assistant", (Words((Word("hello", 0.31, 0.62),), 0),))


BOX, WORDS = "messages.1.content.0", "messages.1.content.0"
MISTAKES = [
    # sample, what is changed, to what, the field that is named, a part of what is said
    (PICTURE, "extra", 1, "extra", "unknown key"),
    (PICTURE, "id", [], "id", "must be a string"),
    (PICTURE, "id", True, "id", "must be a string"),
    (PICTURE, "messages", ..., None, '"messages"'),
    (PICTURE, "messages", [], "messages", "is empty"),
    (PICTURE, "messages", {}, "messages", "must be a list"),
    (PICTURE, "messages.0", "hello", "messages[0]", "a message is an object"),
    (PICTURE, "messages.1.learn", 0, "messages[1].learn", "must be true or false"),
    (PICTURE, "messages.1.lern", False, "messages[1].lern", 'did you mean "learn"'),
    (PICTURE, "messages.0.name", "x", "messages[0].name", "unknown key"),
    (PICTURE, "messages.0.content", ..., "messages[0]", '"content" is missing'),
    (PICTURE, "messages.0.content", [], "messages[0].content", "is empty"),
    (PICTURE, "messages.0.content", None, "messages[0].content", "must be a string or a list"),
    (PICTURE, "messages.0.content", "", "messages[0].content", "holds no text"),
    (PICTURE, "messages.0.role", "usr", "messages[0].role", 'did you mean "user"'),
    (PICTURE, "messages.0.role", 3, "messages[0].role", "3 is no role"),
    (PICTURE, "messages.0.role", "assistant", "messages[0].role", "take turns"),
    (PICTURE, "messages.1.role", "user", "messages[1].role", "take turns"),
    (PICTURE, "messages.1.role", "system", "messages[1].role", "comes first"),
    (PICTURE, "messages.0.content.0", "x", "messages[0].content[0]", "a part is an object"),
    (PICTURE, "messages.0.content.0.type", "imag", "messages[0].content[0].type", 'did you mean "image"'),
    (PICTURE, "messages.0.content.0.type", ..., "messages[0].content[0]", 'a part has a "type"'),
    (PICTURE, "messages.0.content.0.type", ["image"], "messages[0].content[0].type", "is no type of part"),
    (PICTURE, "messages.0.content.0.alt", "x", "messages[0].content[0].alt", "unknown key"),
    (PICTURE, "messages.0.content.0.image", ..., "messages[0].content[0]", '"image"'),
    (PICTURE, "messages.0.content.0.image", 5, "messages[0].content[0].image", "must be a path"),
    (PICTURE, "messages.0.content.0.image", "", "messages[0].content[0].image", "empty path"),
    (PICTURE, "messages.0.content.0.image", "http://a/b.png", "messages[0].content[0].image", "network"),
    (PICTURE, "messages.0.content.0.image", "data:image/png", "messages[0].content[0].image", "without data"),
    (PICTURE, "messages.0.content.0.image", "a\0b", "messages[0].content[0].image", "no such file"),
    (PICTURE, "messages.0.content.2.text", 5, "messages[0].content[2].text", "must be a string"),
    (PICTURE, "messages.0.content.2.text", "\ud800", "messages[0].content[2].text", "half a character"),
    (PICTURE, "messages.0.content.2", {"type": "text"}, "messages[0].content[2]", '"text"'),
    (PICTURE, "messages.0.content.1.task", "reffer", "messages[0].content[1].task", 'did you mean "refer"'),
    (PICTURE, "messages.0.content.1.task", None, "messages[0].content[1].task", "null is no task"),
    (PICTURE, "messages.0.content.1.task", ..., "messages[0].content[1]", "its name"),
    (PICTURE, "messages.0.content.1.language", "en", "messages[0].content[1].language", "it takes none"),
    (PICTURE, "messages.0.content.1.task", "transcribe", "messages[0].content[1].task", "needs an audio clip"),
    (PICTURE, "messages.0.content.1.task", "identify", "messages[0].content[1].task", "needs a box"),
    (PICTURE, "messages.0.content.2", ..., "messages[0].content[1].task", "needs a text"),
    (PICTURE, "messages.0.content.+", {"type": "task", "task": "vqa"}, "messages[0].content[3].task", "at most one"),
    (PICTURE, "messages.0.content.+", {"type": "words", "words": []}, "messages[0].content[3].type", "user message"),
    (PICTURE, "messages.1.content.+", {"type": "image", "image": "x"}, "messages[1].content[1].type", "assistant"),
    (PICTURE, "messages.1.content.+", {"type": "task", "task": "vqa"}, "messages[1].content[1].type", "no task"),
    (PICTURE, f"{BOX}.boxes", 5, "messages[1].content[0].boxes", "must be a list"),
    (PICTURE, f"{BOX}.boxes", [0, 0, 1, 1], "messages[1].content[0].boxes[0]", "four numbers"),
    (PICTURE, f"{BOX}.boxes.+", [0, 0, 1], "messages[1].content[0].boxes[1]", "four numbers"),
    (PICTURE, f"{BOX}.boxes.0.2", 0.1, "messages[1].content[0].boxes[0]", "less than left"),
    (PICTURE, f"{BOX}.boxes.0.3", 0.1, "messages[1].content[0].boxes[0]", "less than top"),
    (PICTURE, f"{BOX}.boxes.0.3", "0.4", "messages[1].content[0].boxes[0]", "must be a number"),
    (PICTURE, f"{BOX}.boxes.0.3", True, "messages[1].content[0].boxes[0]", "must be a number"),
    (PICTURE, f"{BOX}.boxes.0.3", float("inf"), "messages[1].content[0].boxes[0]", "finite"),
    (PICTURE, f"{BOX}.boxes.0.3", 10**400, "messages[1].content[0].boxes[0]", "too large"),
    (PICTURE, f"{BOX}.boxes.0.2", 1.2, "messages[1].content[0].boxes[0]", "outside its image"),
    (PICTURE, f"{BOX}.boxes.0", [48, 120, 72, 144], "messages[1].content[0].boxes[0]", '"unit": "pixel"'),
    (PICTURE, f"{BOX}.label", 4, "messages[1].content[0].label", "must be a string"),
    (PICTURE, f"{BOX}.unit", "percent", "messages[1].content[0].unit", "is no unit"),
    (PICTURE, f"{BOX}.image", 1, "messages[1].content[0].image", "there is no image 1"),
    (PICTURE, f"{BOX}.image", -1, "messages[1].content[0].image", "counted from 0"),
    (PICTURE, f"{BOX}.image", 0.0, "messages[1].content[0].image", "counted from 0"),
    (PICTURE, f"{BOX}.boxs", [], "messages[1].content[0].boxs", 'did you mean "boxes"'),
    (SPEECH, "messages.0.content.1.timestamps", "yes", "messages[0].content[1].timestamps", "true or false"),
    (SPEECH, "messages.0.content.1.language", 5, "messages[0].content[1].language", "language code"),
    (SPEECH, "messages.0.content.1.language", "", "messages[0].content[1].language", "language code"),
    (SPEECH, "messages.0.content.1.langage", "en", "messages[0].content[1].langage", 'did you mean "language"'),
    (SPEECH, f"{WORDS}.words", {}, "messages[1].content[0].words", "must be a list"),
    (SPEECH, f"{WORDS}.words.0", "hello", "messages[1].content[0].words[0]", "a word is"),
    (SPEECH, f"{WORDS}.words.0.end", ..., "messages[1].content[0].words[0]", '"end" is missing'),
    (SPEECH, f"{WORDS}.words.0.stop", 1, "messages[1].content[0].words[0].stop", "unknown key"),
    (SPEECH, f"{WORDS}.words.0.text", " ", "messages[1].content[0].words[0].text", "is empty"),
    (SPEECH, f"{WORDS}.words.0.end", 0.2, "messages[1].content[0].words[0]", "before it starts"),
    (SPEECH, f"{WORDS}.words.0.start", -0.1, "messages[1].content[0].words[0]", "before the clip"),
    (SPEECH, f"{WORDS}.words.0.start", None, "messages[1].content[0].words[0].start", "must be a number"),
    (SPEECH, "messages.0.content.0.transcript", 3, "messages[0].content[0].transcript", "must be a string"),
    (SPEECH, f"{WORDS}.audio", 2, "messages[1].content[0].audio", "there is no clip 2"),
    (SPEECH, "messages.0.content.0", {"type": "text", "text": "x"}, "messages[0].content[1].task", "audio clip"),
]


@pytest.mark.parametrize(("sample", "path", "value", "field", "said"), MISTAKES)
def test_a_mistake_is_named_by_file_line_and_field(
    sample: dict[str, Any], path: str, value: Any, field: str | None, said: str
) -> None:
    error = mistake(changed(sample, path, value), **SIZE)
    assert (error.file, error.line, error.field) == ("train.jsonl", 3, field)
    assert said in error.problem


def test_a_missing_file_is_named_with_the_folder_it_was_looked_for_in(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"x\.jsonl:1: messages\[0\]\.content\[0\]\.image: no such file: 'img/7.jpg'"):
        parse_sample(PICTURE, where="x.jsonl", line=1, root=tmp_path)
    (tmp_path / "img" / "7.jpg").mkdir(parents=True)
    with pytest.raises(SampleError, match="is a folder"):
        parse_sample(PICTURE, where="x.jsonl", line=1, root=tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": "1", "messages": [}', "invalid JSON at column 26"),
        (b'{"id": "1", "messages"', "invalid JSON"),
        (b'{"id": "1"\n', "invalid JSON at column 11"),
        ('{"id": "1"}'.encode("utf-16"), "is UTF-16: save the file as UTF-8"),
        (b"[1, 2]", "a sample is an object"),
        (b"null", "a sample is an object"),
        (
            b'{"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}',
            "it is OpenAI's (weft data convert openai",
        ),
        (b"PAR1\x15\x04\xff\n", "is a Parquet table, not JSON Lines: weft data convert parquet PATH"),
        (b"\x89PNG\r\n", "is a PNG picture, not JSON Lines: name the .jsonl file"),
        (b"PK\3\4\xff", "is a zip archive, not JSON Lines: unpack it"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"BMI,age", "this is a line of text or of a table: weft data convert LAYOUT PATH"),
        (b"file_name,caption\n", "this is a line of text or of a table: weft data convert LAYOUT PATH"),
        (b'[{"id": "1",', "is one JSON document over many lines"),
        (
            b'{"image": "a.png", "conversations": []}',
            "is in another layout (llava or llama-factory): weft data convert",
        ),
        (b'[{"conversations": []}]', "is in another layout (llava or llama-factory): weft data convert"),
        (b'{"audio_filepath": "a.wav", "text": "x"}', "is in another layout (nemo): weft data convert"),
        (b'{"messages": [], "images": ["a"]}', "is in another layout (ms-swift or llama-factory)"),
        (b'{"id": "\xff"}', "byte 9 is not UTF-8"),
        (b'{"id": NaN}', "NaN is not a number"),
        (b'{"id": -Infinity}', "-Infinity is not a number"),
        (b'{"id": "1", "id": "2"}', 'key "id" stands twice'),
        (b"[" * 100_000, "invalid JSON: nested too deep"),
        (b'{"id": ' + b"1" * 5000 + b"}", "invalid JSON"),
    ],
)
def test_a_line_that_is_no_sample_is_named(line: bytes, said: str) -> None:
    with pytest.raises(SampleError) as caught:
        parse_line(line, where="a.jsonl", line=9)
    assert str(caught.value).startswith("a.jsonl:9: ") and said in str(caught.value)


# ---------------------------------------------------------------------------------------------------- boxes and indices


def boxes_of(sample: dict[str, Any], **options: Any) -> Any:
    box = parse_sample(sample, **(ANY_PATH | options)).messages[1].parts[0]
    assert isinstance(box, Box)
    return box.boxes


def test_pixels_become_fractions_of_the_image() -> None:
    sample = changed(changed(PICTURE, f"{BOX}.unit", "pixel"), f"{BOX}.boxes", [[20, 10, 100, 50]])
    assert boxes_of(sample, **SIZE) == ((0.1, 0.1, 0.5, 0.5),)


@pytest.mark.parametrize("unit", ["pixel", "fraction"])
def test_what_sticks_out_by_up_to_half_a_pixel_is_clamped_and_more_is_a_mistake(unit: str) -> None:
    """The image is 200 by 100 pixels, so half a pixel is 0.0025 across and 0.005 down."""

    def sample(box: list[float]) -> dict[str, Any]:
        box = box if unit == "pixel" else [box[0] / 200, box[1] / 100, box[2] / 200, box[3] / 100]
        return changed(changed(PICTURE, f"{BOX}.unit", unit), f"{BOX}.boxes", [box])

    assert boxes_of(sample([-0.5, -0.5, 200.5, 100.5]), **SIZE) == ((0, 0, 1, 1),)
    for edge, value in ((0, -0.51), (1, -0.51), (2, 200.51), (3, 100.51)):
        box = [0.0, 0.0, 200.0, 100.0]
        box[edge] = value
        assert "200 x 100 pixels" in mistake(sample(box), **SIZE).problem


@pytest.mark.parametrize(
    ("unit", "boxes"),
    [
        ("fraction", [[0.5, 0.1, 0.5, 0.9]]),
        ("fraction", [[0.1, 0.5, 0.9, 0.5]]),
        ("fraction", [[1.0, 0.1, 1.002, 0.9]]),  # once clamped
        ("fraction", [[0.2, 0.2, 0.2, 0.2], [0.3, 0.3, 0.3, 0.5]]),
        ("pixel", [[20, 10, 20, 50]]),
        ("pixel", [[200, 10, 200.4, 50]]),
        ("pixel", [[20, -0.4, 40, 0]]),
    ],
)
def test_boxes_without_area_are_a_mistake(unit: str, boxes: list[list[float]]) -> None:
    sample = changed(changed(PICTURE, f"{BOX}.unit", unit), f"{BOX}.boxes", boxes)
    error = mistake(sample, **SIZE)
    assert error.field == "messages[1].content[0].boxes[0]" and "has no area" in str(error)
    asked = {"role": "user", "content": [*PICTURE["messages"][0]["content"][:1], sample["messages"][1]["content"][0]]}
    assert mistake({"messages": [asked]}, **SIZE).field == "messages[0].content[1].boxes[0]"
    assert parse_messages(sample["messages"], **ANY_PATH, **SIZE).answer  # programs hand back what a model said


def test_among_boxes_with_an_area_one_without_stays() -> None:
    boxes = [[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2]]
    assert boxes_of(changed(PICTURE, f"{BOX}.boxes", boxes)) == tuple(map(tuple, boxes))


def test_without_a_size_only_rounding_of_floats_is_clamped() -> None:
    assert boxes_of(changed(PICTURE, f"{BOX}.boxes", [[0, 0, 1.0000001, 1]])) == ((0, 0, 1, 1),)
    assert "outside" in mistake(changed(PICTURE, f"{BOX}.boxes", [[0, 0, 1.001, 1]])).problem
    assert "probe" in mistake(changed(PICTURE, f"{BOX}.unit", "pixel")).problem


def test_the_image_is_asked_for_its_size_only_where_a_box_needs_it() -> None:
    asked = []

    def probe(source: str) -> tuple[int, int]:
        asked.append(source)
        return 200, 100

    parse_sample(PICTURE, probe=probe, **ANY_PATH)
    assert not asked
    parse_sample(changed(PICTURE, f"{BOX}.boxes", [[0, 0, 1.001, 1]]), probe=probe, **ANY_PATH)
    assert asked == ["img/7.jpg"]


def test_an_unreadable_image_is_a_mistake_of_the_box_that_needs_it() -> None:
    def probe(source: str) -> tuple[int, int]:
        raise WeftError("broken.jpg: is damaged")

    error = mistake(changed(PICTURE, f"{BOX}.unit", "pixel"), probe=probe)
    assert error.field == "messages[1].content[0].boxes" and "is damaged" in error.problem


def with_image(name: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image", "image": name}, {"type": "text", "text": "where?"}]}


def with_box(**keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "box", "boxes": [[0, 0, 1, 1]], **keys}]}


def test_an_index_may_be_left_out_where_only_one_is_possible() -> None:
    one = parse_sample({"messages": [with_image("a"), with_box()]}, **ANY_PATH)
    assert one.messages[1].parts[0].image is None  # type: ignore[union-attr]
    # A second image later in the conversation: the first answer could only mean image 0, and says so from now on.
    two = parse_sample({"messages": [with_image("a"), with_box(), with_image("b"), with_box(image=1)]}, **ANY_PATH)
    assert [m.parts[0].image for m in two.messages if m.role == "assistant"] == [0, 1]  # type: ignore[union-attr]


def test_an_index_that_is_open_absent_or_still_to_come_is_a_mistake() -> None:
    open_ = mistake({"messages": [with_image("a"), with_box(), with_image("b"), with_box()]})
    assert open_.field == "messages[3].content[0].image" and "which of the 2 images" in open_.problem
    early = mistake({"messages": [with_image("a"), with_box(image=1), with_image("b")]})
    assert early.field == "messages[1].content[0].image" and "only later" in early.problem
    none = mistake({"messages": [{"role": "user", "content": "where?"}, with_box()]})
    assert none.field == "messages[1].content[0]" and "no image" in none.problem


def test_a_later_question_may_be_about_an_earlier_image() -> None:
    question = {"role": "user", "content": [{"type": "task", "task": "refer"}, {"type": "text", "text": "the cup"}]}
    answer = {"role": "assistant", "content": "here"}
    parse_sample({"messages": [with_image("a"), answer, question]}, **ANY_PATH)
    assert mistake({"messages": [question]}).field == "messages[0].content[0].task"


def test_an_answer_may_be_empty() -> None:
    """Silence transcribed, nothing detected."""
    for content in ("", [{"type": "words", "words": []}]):
        conversation = parse_sample(changed(SPEECH, "messages.1.content", content), **ANY_PATH)
        assert parse_sample(dump_sample(conversation), **ANY_PATH) == conversation


def test_every_task_of_the_table_can_be_written() -> None:
    for name, spec in TASKS.items():
        content: list[dict[str, Any]] = [{"type": m, m: "file"} for m in spec.media]
        content += [{"type": "text", "text": "what?"}] * spec.text
        content += [{"type": "box", "boxes": [[0, 0, 1, 1]]}] * spec.box
        fields = {key: True if "true" in kind else "en" for key, kind in spec.fields.items()}
        content.append({"type": "task", "task": name, **fields})
        conversation = parse_sample({"messages": [{"role": "user", "content": content}]}, **ANY_PATH)
        assert conversation.messages[0].task == Task(name, fields)


def test_a_language_of_null_is_not_the_absence_of_one() -> None:
    asked = parse_sample(changed(SPEECH, "messages.0.content.1.language", None), **ANY_PATH).messages[0].task
    absent = parse_sample(changed(SPEECH, "messages.0.content.1.language", ...), **ANY_PATH).messages[0].task
    assert asked is not None and absent is not None
    assert "language" in asked.fields and "language" not in absent.fields


# ------------------------------------------------------------------------------------------------------------- files


def test_lines_end_at_a_line_feed_only_and_blank_ones_are_passed_over(tmp_path: Path) -> None:
    text = {"messages": [{"role": "user", "content": "one\u2028two\x0bthree\x85"}]}
    line = json.dumps(text, ensure_ascii=False)
    file = tmp_path / "a.jsonl"
    file.write_bytes(f"\ufeff{line}\r\n\n  \n{line}".encode())
    assert [c.messages[0].text for c in iter_samples(file)] == ["one\u2028two\x0bthree\x85"] * 2
    file.write_bytes(f"\n{line}\nnonsense\n".encode())
    with pytest.raises(SampleError, match=r"a\.jsonl:3: invalid JSON"):
        read_samples(file)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_a_file_without_samples_is_a_mistake(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(SampleError, match="no samples"):
        read_samples(tmp_path / "a.jsonl")


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="no such file"):
        read_samples(tmp_path / "a.jsonl")
    with pytest.raises(SampleError, match="is a folder"):
        read_samples(tmp_path)


def test_media_paths_are_relative_to_the_file_in_both_directions(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "7.jpg").touch()
    (tmp_path / "a.jsonl").write_text(json.dumps(PICTURE))
    (there,) = read_samples(tmp_path / "a.jsonl")
    assert there.images[0].source == str(tmp_path / "img" / "7.jpg")
    write_samples(tmp_path / "deep" / "b.jsonl", [there])
    assert "../img/7.jpg" in (tmp_path / "deep" / "b.jsonl").read_text()
    (again,) = read_samples(tmp_path / "deep" / "b.jsonl")
    assert Path(again.images[0].source).samefile(there.images[0].source)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    good = parse_sample(PICTURE, **ANY_PATH)
    in_memory = Conversation((Message("user", (Image(object()),)),))
    write_samples(tmp_path / "a.jsonl", [good])
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(WeftError, match="only in memory"):
        write_samples(tmp_path / "a.jsonl", [good, in_memory])
    assert (tmp_path / "a.jsonl").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_mistake_survives_the_way_from_a_worker_process() -> None:
    error = mistake(changed(PICTURE, "extra", 1))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.line == 3 and again.field == "extra" and again.problem == error.problem


# --------------------------------------------------------------------------------------------- the door of programs


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image", "path": "a.png"}, Image("a.png")),
        ({"type": "image", "url": "data:image/png;base64,AAAA"}, Image("data:image/png;base64,AAAA")),
        ({"type": "image", "base64": "AAAA"}, Image("data:image/*;base64,AAAA")),
        ({"type": "image", "image": Path("a.png")}, Image("a.png")),
        ({"type": "image", "image": b"bytes"}, Image(b"bytes")),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            Image("data:image/png;base64,AAAA"),
        ),
        ({"type": "audio_url", "audio_url": {"url": "a.wav"}}, Audio("a.wav")),
        ({"type": "audio", "url": "a.wav"}, Audio("a.wav")),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            Audio("data:audio/wav;base64,AAAA"),
        ),
        (Image("a.png"), Image("a.png")),
    ],
)
def test_other_spellings_of_media_are_taken_from_programs_and_not_from_files(part: Any, expected: Any) -> None:
    assert parse_messages(user(part), **ANY_PATH).messages[0].parts == (expected,)
    with pytest.raises(SampleError):
        parse_sample({"messages": user(part)}, **ANY_PATH)


def test_media_of_strangers_lie_inside_one_folder(tmp_path: Path) -> None:
    root, beside = tmp_path / "root", tmp_path / "root-2"
    for folder in (root / "deep", beside):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(b"x")
    (root / "link.png").symlink_to(beside / "a.png")
    (root / "up").symlink_to(tmp_path)
    (root / "fine.png").symlink_to(root / "deep" / "a.png")
    (tmp_path / "alias").symlink_to(root)
    for top in (root, str(root), tmp_path / "alias"):
        for path in ("deep/a.png", "fine.png", "deep/../fine.png", str(root / "deep" / "a.png"), "up/root/fine.png"):
            parse_messages(user({"type": "image", "image": path}), root=root, exists=within(top))
        parse_messages(user({"type": "image", "image": "data:image/png;base64,AAAA"}), root=root, exists=within(top))
        outside = [str(beside / "a.png"), "../root-2/a.png", "link.png", "up/root-2/a.png", "/etc/passwd", "..", "/"]
        outside += ["../nothing.png", "deep/../../root-2/a.png"]
        for path in outside:
            for named in (path, f"file://{path}", Path(path)):
                with pytest.raises(SampleError, match="leads outside of") as caught:
                    parse_messages(user({"type": "image", "image": named}), root=root, exists=within(top))
                assert caught.value.field == "messages[0].content[0].image"
        with pytest.raises(SampleError, match="no such file"):
            parse_messages(user({"type": "image", "image": "nothing.png"}), root=root, exists=within(top))
    sample_file = root / "samples.jsonl"
    sample_file.write_text(json.dumps({"messages": user({"type": "image", "image": "link.png"})}))
    assert len(read_samples(sample_file)) == len(read_samples(sample_file, exists=within(tmp_path))) == 1
    with pytest.raises(SampleError, match=r"samples.jsonl:1: messages\[0\].content\[0\].image: leads outside"):
        read_samples(sample_file, exists=within(root))
    with pytest.raises(WeftError, match="no such folder"):
        within(tmp_path / "nowhere")


def test_media_in_memory_stay_what_they_are() -> None:
    wave, picture = np.zeros(160, np.float32), np.zeros((4, 4, 3), np.uint8)
    parts = (
        parse_messages(
            user(
                {"type": "audio", "audio": wave},
                {"type": "audio", "audio": (wave, 8000)},
                {"type": "audio", "audio": {"array": wave, "sampling_rate": 8000}},
                {"type": "image", "image": picture},
            )
        )
        .messages[0]
        .parts
    )
    assert [p.source is wave for p in parts[:1]] == [True]  # type: ignore[union-attr]
    assert parts[1].source == parts[2].source == (wave, 8000)  # type: ignore[union-attr]
    assert parts[3].source is picture  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "image_url", "image_url": {"url": "https://a/b.png"}}, "network"),
        ({"type": "image_url", "image_url": {}}, "url"),
        ({"type": "input_audio", "input_audio": "AAAA"}, "base64"),
        ({"type": "image", "image": None}, "must be a path"),
        ({"type": "image"}, '"image"'),
        ({"type": "image", "path": "a", "url": "b"}, "unknown key"),
        ({"type": "audio", "audio": [0.0, 0.1]}, "sound in memory"),
        ({"type": "video", "video": "a"}, "is no type of part"),
    ],
)
def test_programs_are_told_what_is_wrong_too(part: Any, said: str) -> None:
    with pytest.raises(SampleError) as caught:
        parse_messages(user(part), where="request", **ANY_PATH)
    assert str(caught.value).startswith("request: messages[0].content[0]") and said in str(caught.value)


def test_a_conversation_is_given_back_as_it_is() -> None:
    conversation = parse_sample(SPEECH, **ANY_PATH)
    assert parse_messages(conversation) is conversation
    assert parse_messages(list(conversation.messages)).messages == conversation.messages


def test_bytes_in_memory_are_written_as_a_data_url() -> None:
    (part,) = dump_parts([Image(b"\x89PNG")])
    assert part["image"] == "data:image/*;base64," + base64.b64encode(b"\x89PNG").decode()


# ----------------------------------------------------------------------------------------------------- random samples

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
WORD_TEXTS = st.text(string.ascii_letters + "é語", min_size=1, max_size=6)
PATHS = st.text(string.ascii_letters + "/._- é", min_size=1, max_size=12)


@st.composite
def box(draw: st.DrawFn) -> tuple[float, float, float, float]:
    two = st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True)
    across, down = sorted(draw(two)), sorted(draw(two))
    return across[0], down[0], across[1], down[1]


@st.composite
def word(draw: st.DrawFn) -> Word:
    start, end = sorted(draw(st.tuples(*[st.floats(0, 1e4)] * 2)))
    return Word(draw(WORD_TEXTS), start, end)


@st.composite
def conversation(draw: st.DrawFn) -> Conversation:
    """Any conversation the format can hold: turns, interleaved media, tasks with what they need, grounded parts."""
    messages = []
    if draw(st.booleans()):
        messages.append(Message("system", (Text(draw(TEXTS.filter(bool))),)))
    turns = draw(st.integers(1, 3))
    asked = [
        draw(
            st.lists(
                st.one_of(st.builds(Image, PATHS), st.builds(Audio, PATHS, st.none() | TEXTS), st.builds(Text, TEXTS)),
                max_size=4,
            )
        )
        for _ in range(turns)
    ]
    totals = [sum(isinstance(p, kind) for parts in asked for p in parts) for kind in (Image, Audio)]
    seen = [0, 0]
    for parts in asked:
        seen = [seen[i] + sum(isinstance(p, kind) for p in parts) for i, kind in enumerate((Image, Audio))]

        def index(i: int, seen: list[int] = seen) -> int | None:
            return None if totals[i] == 1 and draw(st.booleans()) else draw(st.integers(0, seen[i] - 1))

        tasks = [n for n, s in TASKS.items() if any(seen[("image", "audio").index(m)] for m in s.media)]
        if tasks and draw(st.booleans()):
            name = draw(st.sampled_from(tasks))
            spec = TASKS[name]
            kinds = {k: st.booleans() if "true" in v else st.sampled_from(["en", "zh"]) for k, v in spec.fields.items()}
            fields = draw(st.fixed_dictionaries({}, optional=kinds))
            parts = [*parts, Task(name, fields)] + [Text("what?")] * spec.text
            if spec.box:
                parts.append(Box((draw(box()),), image=index(0)))
        if all(isinstance(p, Text) and not p.text for p in parts):
            parts = [*parts, Text("hello")]
        messages.append(Message("user", tuple(parts)))
        answer: list[Any] = draw(st.lists(st.builds(Text, TEXTS), max_size=2))
        if seen[0] and draw(st.booleans()):
            boxes = tuple(draw(st.lists(box(), max_size=3)))
            answer.append(Box(boxes, draw(st.none() | TEXTS), index(0)))
        if seen[1] and draw(st.booleans()):
            answer.append(Words(tuple(draw(st.lists(word(), max_size=4))), index(1)))
        messages.append(Message("assistant", tuple(answer) or (Text(""),)))
    if draw(st.booleans()):
        messages = messages[:-1]
    messages = [replace(message, learn=draw(st.booleans())) for message in messages]
    return Conversation(tuple(messages), draw(st.none() | TEXTS))


@examples(150)
@given(conversation())
def test_any_conversation_survives_writing_and_reading(it: Conversation) -> None:
    line = json.dumps(dump_sample(it), ensure_ascii=False, allow_nan=False)
    assert parse_line(line, **ANY_PATH) == it
    assert parse_messages(dump_sample(it)["messages"], **ANY_PATH).messages == it.messages


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@examples(300)
@given(st.sampled_from([PICTURE, SPEECH]), st.randoms(use_true_random=False), JSON)
def test_whatever_stands_anywhere_is_read_or_named(sample: dict[str, Any], random: Any, value: Any) -> None:
    """Any value in any place: a conversation or a SampleError, never another exception."""
    sample = copy.deepcopy(sample)
    place: Any = sample
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = random.choice(keys)
        if not isinstance(place[key], dict | list) or not place[key] or random.random() < 0.2:
            break
        place = place[key]
    place[key] = value
    for read in (lambda: parse_sample(sample, **ANY_PATH), lambda: parse_messages(sample.get("messages"), **ANY_PATH)):  # type: ignore[arg-type]
        try:
            assert isinstance(read(), Conversation)
        except SampleError as e:
            assert "\n" not in str(e)
            str(e).encode()


def test_programs_may_use_minigpt_v2s_own_spellings(tmp_path):
    (tmp_path / "i.png").write_bytes(b"x")
    image = {"type": "image", "image": str(tmp_path / "i.png")}
    region = {"type": "text", "text": "what is this {<1><2><3><4>}"}
    for task, name in (("grounding", "grounded_caption"), ("identify", "identify")):
        messages = [{"role": "user", "content": [image, {"type": "task", "task": task}, region]}]
        assert parse_messages(messages).messages[0].task == Task(name)
        with pytest.raises(SampleError, match="task"):  # sample files keep to their format
            parse_sample({"messages": messages})
