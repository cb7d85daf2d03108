"""Conversations of other tools: what they mark as not to be learned, what judges answers, and what is not used."""

import json
from pathlib import Path
from typing import Any

import pytest

from converter_files import clip, lines, made, picture, read, save
from weft.conversation import Audio, Image, Text
from weft.data.converters import BadEntry, convert

SPEAK = {
    "llava": ("conversations", "from", "value", "human", "gpt"),
    "llasm": ("conversations", "from", "value", "human", "gpt"),
    "llama-factory": ("messages", "role", "content", "user", "assistant"),
    "ms-swift": ("messages", "role", "content", "user", "assistant"),
}
READERS = sorted(SPEAK)


def talk(reader: str, *said: Any, **keys: Any) -> dict[str, Any]:
    """An entry in which user and assistant take turns; what is said is content, or content and further keys."""
    where, role, content, *sides = SPEAK[reader]
    turns = [one if isinstance(one, tuple) else (one, {}) for one in said]
    messages = [{role: sides[i % 2], content: words, **more} for i, (words, more) in enumerate(turns)]
    return {where: messages, **keys}


def converted(reader: str, tmp_path: Path, *entries: dict[str, Any], **options: Any) -> Any:
    return convert(reader, lines(tmp_path / "in.jsonl", *entries), tmp_path / "o.jsonl", on_bad="skip", **options)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("mark", "learn"),
    [({"loss": False}, False), ({"loss": True}, True), ({"loss_scale": 0}, False), ({"loss_scale": 0.0}, False),
     ({"loss_weight": 0.0}, False), ({"weight": 0}, False), ({"weight": 1}, True), ({"train": False}, False),
     ({"training": False}, False), ({"loss": True, "loss_scale": 0}, False), ({"loss": None}, True),
     ({"learn": False}, False), ({"masked": True}, False), ({"masked": False}, True)],
)  # fmt: skip
def test_an_answer_marked_by_another_tool_is_written_and_not_learned(
    reader: str, mark: dict[str, Any], learn: bool, tmp_path: Path
) -> None:
    entry = talk(reader, ("a", {"weight": 0}), ("b", mark), "c", ("d", {}))
    report = converted(reader, tmp_path, entry)
    assert not report.notes and not report.left_out
    (one,) = read(tmp_path / "o.jsonl")
    assert [m.learn for m in one.messages] == [True, learn, True, True]
    assert [m.text for m in one.messages] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("reader", READERS)
def test_an_entry_that_is_marked_as_a_whole_is_refused(reader: str, tmp_path: Path) -> None:
    plain = talk(reader, "a", "b")
    unlearned = [plain | mark for mark in ({"loss": False}, {"weight": 0}, {"loss_scale": 0.0}, {"masked": True})]
    report = converted(reader, tmp_path, *unlearned, plain, plain | {"weight": 0.5}, plain | {"train": "yes"})
    assert (report.samples, dict(report.left_out)) == (3, {"not to be learned": 4})
    assert dict(report.notes) == {'key "weight" is not used': 1, 'key "train" is not used': 1}


@pytest.mark.parametrize("reader", READERS)
def test_a_mark_that_weft_cannot_say_is_counted_or_refused(reader: str, tmp_path: Path) -> None:
    learned = talk(reader, ("a", {"train": True}), ("b", {"loss_scale": 0.3}), "c", ("d", {"loss_scale": 2.0}))
    report = converted(reader, tmp_path, learned)
    assert dict(report.notes) == {
        '"train" asks to learn a turn of the user, and weft learns answers alone': 1,
        '"loss_scale" is neither 0 nor 1: learned as with 1': 2,
    }
    assert all(m.learn for m in read(tmp_path / "o.jsonl")[0].messages)
    wrong = [{"weight": -1}, {"weight": "0"}, {"loss": [True, False]}, {"weight": float("nan")}]
    details = [{"train_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}]}]
    report = converted(reader, tmp_path, learned, *(talk(reader, "a", ("b", more)) for more in wrong + details))
    assert report.samples == 1
    assert dict(report.left_out) == {"does not fit its layout": 4, "to be learned in part": 1}
    where = SPEAK[reader][0]
    assert [str(e).partition("jsonl:2: ")[2] for e in report.examples][0].startswith(f"{where}[1].weight: must be true")


def test_parts_of_a_turn_are_learned_together_or_refused(tmp_path: Path) -> None:
    def answer(*marks: dict[str, Any], **more: Any) -> Any:
        return talk("ms-swift", "a", ([{"type": "text", "text": str(i), **m} for i, m in enumerate(marks)], more))

    no, yes = {"train": False}, {"weight": 1}
    report = converted(
        "ms-swift", tmp_path, answer({}, {}), answer(no, no), answer({}, {}, loss=False), answer(yes, {})
    )
    assert [c.messages[1].learn for c in read(tmp_path / "o.jsonl")] == [True, False, False, True]
    assert [c.messages[1].text for c in read(tmp_path / "o.jsonl")] == ["01"] * 4 and not report.notes
    report = converted(
        "ms-swift", tmp_path, answer(yes, {}), answer(no, yes), answer(no, {}), answer(yes, {}, loss=False)
    )
    assert (report.samples, dict(report.left_out)) == (1, {"to be learned in part": 3})


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("keys", "reason"),
    [({"label": False}, "label"), ({"label": True}, "label"), ({"label": 0}, "label"),
     ({"kto_tag": False}, "preference data"), ({"rejected": {"from": "gpt", "value": "no"}}, "preference data"),
     ({"rejected_response": "no"}, "preference data"), ({"rejected_messages": [{}]}, "preference data"),
     ({"rejected_images": ["b.png"]}, "preference data"), ({"chosen": "yes"}, "preference data"),
     ({"chosen_messages": [{}]}, "preference data"), ({"margin": 0.5}, "preference data"),
     ({"negative_messages": [[{}]]}, "retrieval data"), ({"videos": ["v.mp4"]}, "video"), ({"tools": "[{}]"}, "tools"),
     ({"functions": [{}]}, "tools")],
)  # fmt: skip
def test_what_judges_answers_is_refused_entry_by_entry(
    reader: str, keys: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    plain = talk(reader, "a", "b")
    with pytest.raises(BadEntry, match=rf"in\.jsonl:2: {next(iter(keys))}: "):
        convert(reader, lines(tmp_path / "in.jsonl", plain, plain | keys), tmp_path / "o.jsonl")
    empty = plain | dict.fromkeys(keys)
    report = converted(reader, tmp_path, plain | keys, empty, plain)
    assert (report.samples, dict(report.left_out), dict(report.notes)) == (2, {reason: 1}, {})


def test_a_preference_pair_without_a_conversation_of_its_own_is_named_as_one(tmp_path: Path) -> None:
    pair = {"chosen_messages": talk("llama-factory", "a", "b")["messages"], "rejected_messages": []}
    with pytest.raises(BadEntry, match="chosen_messages: is a preference pair"):
        convert("llama-factory", lines(tmp_path / "in.jsonl", pair), tmp_path / "o.jsonl")


@pytest.mark.parametrize("reader", READERS)
def test_every_key_that_is_not_used_is_counted_with_its_path(reader: str, tmp_path: Path) -> None:
    where = SPEAK[reader][0]
    entry = talk(reader, ("a", {"name": "x", "meta": {"deep": 1}}), ("b", {"name": "y"}), source="web", more=[{"x": 1}])
    report = converted(reader, tmp_path, entry, entry, limit=1)  # of the last entry too
    assert dict(report.notes) == {
        f'key "{where}[].name" is not used': 2,
        f'key "{where}[].meta" is not used': 1,
        'key "source" is not used': 1,
        'key "more" is not used': 1,
    }


def test_keys_of_parts_and_objects_are_counted_too(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 100, 100)
    look = [{"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}, "cache_control": {"type": "e"}}]
    entry = talk("ms-swift", [*look, {"type": "text", "text": "Where?"}], "<bbox>")
    entry["objects"] = {"bbox": [[10, 10, 50, 50]], "score": [0.9], "image_id": [0]}
    report = converted("ms-swift", tmp_path, entry)
    assert dict(report.notes) == {
        'key "messages[].content[].image_url.detail" is not used': 1,
        'key "messages[].content[].cache_control" is not used': 1,
        'key "objects.score" is not used': 1,
    }


def test_content_in_parts_is_read_in_the_spellings_of_apis_and_tools(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    clip(tmp_path / "a.wav")
    url = "data:image/png;base64,iVBORw0KGgo="
    spellings: list[tuple[dict[str, Any], Any]] = [
        ({"type": "image_url", "image_url": {"url": "a.png"}}, Image("a.png")),
        ({"type": "image_url", "image_url": "a.png"}, Image("a.png")),
        ({"type": "image_url", "value": "a.png"}, Image("a.png")),  # LLaMA-Factory's v1 files
        ({"type": "image", "image": "a.png"}, Image("a.png")),
        ({"type": "image", "path": "a.png"}, Image("a.png")),
        ({"type": "image_url", "image_url": {"url": url}}, Image(url)),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": url[22:]}}, Image(url)),
        ({"type": "audio_url", "audio_url": {"url": "a.wav"}}, Audio("a.wav")),
        ({"type": "audio", "audio": "a.wav"}, Audio("a.wav")),
        (
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
            Audio("data:audio/wav;base64,UklG"),
        ),
    ]
    for part, expected in spellings:
        for reader in ("ms-swift", "llama-factory"):
            entry = talk(reader, [{"type": "text", "text": "before "}, part, {"type": "text", "value": "after"}], "it")
            convert(reader, lines(tmp_path / "in.jsonl", entry), tmp_path / "o.jsonl")
            asked, answer = json.loads((tmp_path / "o.jsonl").read_text())["messages"]
            kind = type(expected).__name__.lower()
            assert [p["type"] for p in asked["content"]] == ["text", kind, "text"] and answer["content"] == "it"
            assert asked["content"][1][kind] == expected.source


def test_parts_without_a_source_take_the_next_of_the_entrys_list(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    image = {"type": "image"}
    entry = talk("ms-swift", [image, {"type": "text", "text": "and <image>"}], "two", images=["a.png", "b.png"])
    (one,) = made("ms-swift", lines(tmp_path / "in.jsonl", entry), tmp_path / "o.jsonl")
    assert [Path(p.source).name if isinstance(p, Image) else p for p in one.messages[0].parts] == [
        "a.png",
        Text("and "),
        "b.png",
    ]


@pytest.mark.parametrize(
    ("part", "said"),
    [({"type": "video_url", "video_url": "v.mp4"}, r'content\[0\]: holds a part "video_url"'),
     ({"type": "tool_use", "name": "f"}, 'holds a part "tool_use"'), ({"type": "text"}, "its words as a string"),
     ("words", 'a part is an object with a "type"'), ({"type": "image_url", "image_url": {}}, "more <image> tags"),
     ({"type": "image", "image": {"x": 1}}, "more <image> tags"), ({"type": "image", "image": 5}, "must be a path")],
)  # fmt: skip
def test_parts_that_are_none_are_named(part: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadEntry, match=said):
        convert("ms-swift", lines(tmp_path / "in.jsonl", talk("ms-swift", [part], "a")), tmp_path / "o.jsonl")


def test_media_named_twice_and_media_in_answers_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    part = {"type": "image_url", "image_url": "a.png"}
    twice = talk("llama-factory", [part], "a", images=["a.png"])
    drawn = talk("llama-factory", "draw", [part])
    calls = talk("llama-factory", "a", ("b", {"tool_calls": [{"id": "1"}]}))
    older = talk("llama-factory", "a", ("b", {"function_call": {"name": "f"}}))
    report = converted("llama-factory", tmp_path, twice, drawn, calls, older, talk("llama-factory", "a", "b"))
    assert dict(report.left_out) == {"does not fit its layout": 1, "media in an answer": 1, "tools": 2}


def test_ms_swift_query_and_response_without_an_answer(tmp_path: Path) -> None:
    request = {"query": "what?"}
    missing = [{**request, "response": x} for x in (None, "", " ")]
    report = converted("ms-swift", tmp_path, request, *missing, {**request, "response": "it"})
    assert (report.samples, dict(report.left_out)) == (2, {"no answer": 3})
    pairs = {"conversation": [{"human": "a", "assistant": "b", "loss": False}, {"human": "c", "assistant": "d"}]}
    (one,) = made("ms-swift", save(tmp_path / "in.json", [pairs]), tmp_path / "o.jsonl")
    assert [m.learn for m in one.messages] == [True, False, True, True]
