"""Hugging Face's parquet files and folders, and conversations in parts as OpenAI and TRL write them."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

from converter_files import clip, lines, made, picture, read
from weft.conversation import Box, Conversation, Image, Task, Text, WeftError
from weft.data.converters import BadEntry, convert
from weft.media import image_size

MEDIUM = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(width: int = 200, height: int = 100) -> bytes:
    raw = io.BytesIO()
    Picture.new("RGB", (width, height)).save(raw, "PNG")
    return raw.getvalue()


def hugging(path: Path, features: dict[str, Any], *rows: dict[str, Any]) -> Path:
    """A parquet file with the metadata that datasets 5.2 writes."""
    said = pa.Table.from_pylist(list(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(said.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)
    return path


def kinds(conversation: Conversation, message: int = 0) -> list[str]:
    return [type(part).__name__ for part in conversation.messages[message].parts]


# ---------------------------------------------------------------------------------------------------------- parquet


def test_media_come_out_of_parquet_as_they_are(tmp_path: Path) -> None:
    wave = clip(tmp_path / "in" / "a.wav").read_bytes()
    heard = {"audio": {"bytes": wave, "path": "a.wav"}, "sentence": "hello", "locale": "en-GB"}
    source = hugging(tmp_path / "in" / "asr.parquet", {"audio": {"_type": "Audio"}}, heard)
    (one,) = made("parquet", source, tmp_path / "o" / "s.jsonl")
    assert one.messages[1].text == "hello" and one.messages[0].task == Task("transcribe", {"language": "en"})
    assert (tmp_path / "o" / "s_media" / "asr" / "0-audio.wav").read_bytes() == wave
    seen = [{"image": {"bytes": png(), "path": None}, "captions": ["A cat.", "It."], "image_id": 7}]
    seen.append({"image": {"bytes": None, "path": "b.png"}, "captions": ["A dog."], "image_id": 8})
    picture(tmp_path / "in" / "b.png")
    source = hugging(tmp_path / "in" / "train-0.parquet", {"image": {"_type": "Image"}}, *seen)
    hugging(tmp_path / "in" / "test-0.parquet", {}, heard)
    report = convert("parquet", tmp_path / "in", tmp_path / "o" / "s.jsonl", split="train")
    assert dict(report.notes) == {"files of other splits": 2, 'key "image_id" is not used': 2}
    found = read(tmp_path / "o" / "s.jsonl")
    assert [c.messages[1].text for c in found] == ["A cat.", "It.", "A dog."] and len({c.id for c in found}) == 3
    source.write_bytes(source.read_bytes()[:90])
    with pytest.raises(BadEntry, match="cannot be read further as parquet"):
        convert("parquet", source, tmp_path / "o" / "s.jsonl")


def test_a_saved_dataset_is_read_from_its_arrow_files(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png(), "path": None}, "label": i % 2} for i in range(20)]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.Table.from_pylist(rows).replace_schema_metadata(said)
    file = tmp_path / "saved" / "train" / "data-00000-of-00001.arrow"  # as save_to_disk of datasets 5.2 has it
    file.parent.mkdir(parents=True)
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    found = made("auto", tmp_path / "saved", tmp_path / "o.jsonl", task="caption")
    assert [c.messages[1].text for c in found] == ["cat", "dog"] * 10
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(BadEntry, match="cannot be read further as arrow"):
        convert("parquet", file, tmp_path / "o.jsonl", task="caption")


@pytest.mark.parametrize("name", ["memo.caf", "memo.amr", "memo.3GP", "memo.aiff", "photo.heif", "scan.pgm"])
def test_files_of_a_folder_are_found_whatever_their_kind_is_called(name: str, tmp_path: Path) -> None:
    kind = clip if name.startswith("memo") else picture
    made_as = kind(
        tmp_path / "in" / "thing" / ("a.wav" if kind is clip else "a.png")
    )  # read by its bytes, not its name
    made_as.rename(made_as.with_name(name))
    (one,) = made("imagefolder", tmp_path / "in", tmp_path / "o.jsonl", task="caption")
    assert one.messages[1].text == "thing" and kinds(one)[0] == ("Audio" if kind is clip else "Image")


@pytest.mark.parametrize("listed", [True, False])
def test_labels_of_objects_are_words(listed: bool, tmp_path: Path) -> None:
    names = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    boxes = [[10.0, 20.0, 50.0, 60.0], [0.0, 0.0, 200.0, 100.0]]
    if listed:
        objects: Any = [{"bbox": box, "category": i} for i, box in enumerate(boxes)]
        feature: Any = {"_type": "List", "feature": {"category": names}}
    else:
        objects = {"bbox": boxes, "category": [0, 1], "area": [1, 2]}
        feature = {"category": {"_type": "List", "feature": names}}
    row = {"image": {"bytes": png(), "path": "a.png"}, "objects": objects}
    source = hugging(tmp_path / "o.parquet", {"image": {"_type": "Image"}, "objects": feature}, row)
    cat, dog = made("parquet", source, tmp_path / "s.jsonl")
    assert cat.messages[0].text == "cat" and cat.messages[1].parts == (Box(((0.05, 0.2, 0.3, 0.8),), "cat"),)
    assert dog.messages[1].parts == (Box(((0, 0, 1, 1),), "dog"),)
    assert len(made("parquet", source, tmp_path / "s.jsonl", task="identify")) == 2


def test_a_label_needs_to_be_told_what_it_is_of(tmp_path: Path) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["siren", "bark"]}}
    wave = clip(tmp_path / "a.wav").read_bytes()
    source = hugging(tmp_path / "l.parquet", features, {"audio": {"bytes": wave, "path": "a.wav"}, "label": 1})
    with pytest.raises(BadEntry, match=r'has a label in "label": say with --task what it is of'):
        convert("parquet", source, tmp_path / "s.jsonl")
    (one,) = made("parquet", source, tmp_path / "s.jsonl", task="event")
    assert one.messages[0].task == Task("event") and one.messages[1].text == "bark"


def test_questions_of_rows_have_the_most_frequent_answer(tmp_path: Path) -> None:
    row = {"image": {"bytes": png(), "path": None}, "question": "What?", "answers": ["cat", "dog", "dog"]}
    source = hugging(tmp_path / "v.parquet", {}, row)
    (one,) = made("parquet", source, tmp_path / "s.jsonl")
    assert one.messages[1].text == "dog" and one.messages[0].task == Task("vqa")
    assert len(made("parquet", source, tmp_path / "s.jsonl", answers="every")) == 3


def test_conversations_of_trl_in_parquet(tmp_path: Path) -> None:
    seen = {"bytes": png(), "path": None}
    asked = [{"type": "image", "text": None}, {"type": "text", "text": "What is <image>?"}]
    said = [{"type": "text", "text": "It."}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    source = hugging(tmp_path / "t.parquet", {}, {"images": [seen], "messages": messages, "tools": None})
    (one,) = made("parquet", source, tmp_path / "s.jsonl")
    assert kinds(one) == ["Image", "Text"] and one.messages[0].text == "What is <image>?"
    assert not convert("parquet", source, tmp_path / "s.jsonl").notes
    prompt = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    prompt.append({"role": "user", "content": "And?"})
    pair = {"images": [seen], "prompt": prompt, "completion": [{"role": "assistant", "content": "It."}]}
    (one,) = made("parquet", hugging(tmp_path / "p.parquet", {}, pair), tmp_path / "s.jsonl")
    assert kinds(one) == ["Image", "Text"]  # in front of the first question, as TRL does where nothing says it
    assert [m.learn for m in one.messages] == [True, False, True, True]  # only the completion is learned
    source = hugging(tmp_path / "x.parquet", {}, {"prompt": "a", "completion": "b"})
    assert [m.text for m in made("parquet", source, tmp_path / "s.jsonl")[0].messages] == ["a", "b"]
    judged = hugging(tmp_path / "j.parquet", {}, {"prompt": "a", "chosen": "b", "rejected": "c", "completion": "b"})
    with pytest.raises(BadEntry, match="preference pair"):
        convert("parquet", judged, tmp_path / "s.jsonl")


# ---------------------------------------------------------------------------------------------------------- folders


def test_a_folder_is_read_by_its_table_of_metadata(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.png", 200, 100)
    picture(tmp_path / "test" / "b.png")
    objects = {"bbox": [[10.0, 20.0, 50.0, 60.0]], "categories": ["cat"]}
    lines(tmp_path / "train" / "metadata.jsonl", {"file_name": "a.png", "objects": objects, "split": "x"})
    (tmp_path / "test" / "metadata.csv").write_text('file_name,text\nb.png,"A cat, asleep."\n')
    first, second = made("imagefolder", tmp_path, tmp_path / "o" / "s.jsonl")
    assert {first.messages[1].text, second.messages[1].parts[0]} == {
        "A cat, asleep.",
        Box(((0.05, 0.2, 0.3, 0.8),), "cat"),
    }
    assert len(made("imagefolder", tmp_path, tmp_path / "o" / "s.jsonl", split="train")) == 1
    clip(tmp_path / "clips" / "c.wav")
    table = tmp_path / "clips" / "my list.tsv"
    table.write_text("path\tsentence\n" + 'c.wav\tA "word"\n')
    (one,) = made("audiofolder", table, tmp_path / "o" / "s.jsonl")
    assert one.messages[0].task == Task("transcribe") and one.messages[1].text == 'A "word"'
    pair = {"images_file_names": ["a.png", "../test/b.png"], "question": "Same?", "answer": "no"}
    lines(tmp_path / "train" / "metadata.jsonl", pair)
    (one,) = made("imagefolder", tmp_path / "train", tmp_path / "o" / "s.jsonl")
    assert [image_size(i.source) for i in one.images] == [(200, 100), (64, 48)]
    lines(tmp_path / "train" / "metadata.jsonl", {"text": "of nothing"})
    with pytest.raises(BadEntry, match=r"metadata\.jsonl:1: names no file"):
        convert("imagefolder", tmp_path / "train", tmp_path / "o" / "s.jsonl")


def test_a_folder_without_a_table_has_labels_for_names(tmp_path: Path) -> None:
    clip(tmp_path / "in" / "siren" / "a.WAV")
    clip(tmp_path / "in" / "train" / "bark" / "b.flac")
    with pytest.raises(BadEntry, match="say with --task what it is of"):
        convert("audiofolder", tmp_path / "in", tmp_path / "s.jsonl")
    found = made("audiofolder", tmp_path / "in", tmp_path / "s.jsonl", task="event")
    assert [(c.messages[0].task.name, c.messages[1].text) for c in found] == [("event", "siren"), ("event", "bark")]
    with pytest.raises(WeftError, match="cannot give --task vqa"):
        convert("audiofolder", tmp_path / "in", tmp_path / "s.jsonl", task="vqa")


# ----------------------------------------------------------------------------------------------------------- OpenAI


def test_parts_of_openai_become_parts(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    wave = base64.b64encode(clip(tmp_path / "a.wav").read_bytes()).decode()
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    asked = [{"type": "text", "text": "A <image> tag, "}, {"type": "image_url", "image_url": {"url": "a.png"}}]
    asked += [{"type": "image_url", "image_url": {"url": url, "detail": "high"}}]
    asked += [
        {"type": "input_audio", "input_audio": {"data": wave, "format": "wav"}},
        {"type": "text", "text": "What?"},
    ]
    asked += [{"type": "input_image", "image_url": "file://" + str(tmp_path / "a.png")}]
    body = {"messages": [{"role": "developer", "content": "S"}, {"role": "user", "content": asked}]}
    answered = {"messages": [*body["messages"], {"role": "assistant", "content": "It is <image>.", "weight": 0}]}
    source = lines(tmp_path / "in.jsonl", answered, {"custom_id": "r", "method": "POST", "url": "/v1", "body": body})
    one, request = made("openai", source, tmp_path / "o.jsonl")
    assert [m.role for m in one.messages] == ["system", "user", "assistant"] and not one.messages[2].learn
    assert kinds(one, 1) == ["Text", "Image", "Image", "Audio", "Text", "Image"]
    assert one.messages[1].parts[0] == Text("A <image> tag, ") and one.messages[2].text == "It is <image>."
    assert len(request.messages) == 2
    notes = convert("openai", source, tmp_path / "o.jsonl").notes
    assert notes['key "messages[].content[].image_url.detail" is not used'] == 1
    tool = {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]}
    with pytest.raises(BadEntry, match='weft has no role "tool"'):
        convert("openai", lines(source, tool), tmp_path / "o.jsonl")


def test_samples_of_weft_with_parts_of_others_become_strict(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 200, 100)
    seen: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "task", "task": "refer"},
    ]
    box = {"type": "box", "boxes": [[10, 20, 60, 80]], "unit": "pixel", "label": "cat"}
    answer = [{"type": "text", "text": "Here: "}, box]
    sample = {"id": "7", "messages": [{"role": "user", "content": [*seen, {"type": "text", "text": "cat"}]}]}
    sample["messages"].append({"role": "assistant", "content": answer})
    (one,) = made("openai", lines(tmp_path / "in.jsonl", sample), tmp_path / "o.jsonl")
    assert one.id == "7" and one.messages[0].parts[1:] == (Task("refer"), Text("cat"))
    assert isinstance(one.messages[0].parts[0], Image)
    assert one.messages[1].parts == (Text("Here: "), Box(((0.05, 0.2, 0.3, 0.8),), "cat"))


def test_the_shared_case_of_openai_is_read(shared: Path, tmp_path: Path) -> None:
    case = shared / "cases" / "openai_parts"
    for name in ("openai.jsonl", "lf_v1.jsonl"):
        (one,) = made("openai", case / name, tmp_path / "o.jsonl")
        assert kinds(one) == ["Image", "Text"] and one.messages[1].text == "A red square."
