"""A cell without an answer, and a region without area, are bad entries of every layout."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from converter_files import clip, lines, picture, save
from weft.conversation import read_samples
from weft.conversation.foreign import layout_of
from weft.data.converters import CONVERTERS, BadEntry, convert
from weft.media import image_size

Layout = Callable[[Path, list[Any]], tuple[Path, dict[str, Any]]]


def columns(head: str, row: str, name: str) -> Layout:
    def write(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
        clip(folder / "a.wav")
        file = folder / name
        file.write_text("\n".join([head, *(row.format("" if a is None else a) for a in answers)]) + "\n")
        return file, {}

    return write


def listed(entry: Callable[[Any], dict[str, Any]], name: str = "in.jsonl", **options: Any) -> Layout:
    def write(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
        picture(folder / "a.jpg")
        picture(folder / "000000000007.jpg")
        clip(folder / "a.wav")
        return lines(folder / name, *map(entry, answers)), options

    return write


def vqa(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
    picture(folder / "COCO_train2014_000000000007.jpg")
    rows = [{"question_id": i, "answers": [{"answer": a}] * 3} for i, a in enumerate(answers)]
    questions = [{"question_id": i, "image_id": 7, "question": "?"} for i in range(len(answers))]
    source = save(folder / "q.json", {"questions": questions})
    return source, {"annotations": save(folder / "a.json", {"annotations": rows})}


def coco(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
    picture(folder / "a.jpg")
    rows = [{"id": i, "image_id": 1, "caption": a} for i, a in enumerate(answers)]
    return save(folder / "c.json", {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": rows}), {}


def textcaps(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
    picture(folder / "a.jpg")
    return save(folder / "t.json", {"data": [{"image_id": "a", "caption_str": a} for a in answers]}), {}


def members(entry: Callable[[Any], dict[str, Any]]) -> Layout:
    def write(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
        for i in range(len(answers)):
            picture(folder / f"{i}.jpg")
        return save(folder / "m.json", {str(i): entry(a) | {"imageId": str(i)} for i, a in enumerate(answers)}), {}

    return write


def speech(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
    clip(folder / "a.flac")
    (folder / "a.trans.txt").write_text("".join(f"a {a or ''}\n" for a in answers))
    return folder, {}


def rows(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
    data = {"bytes": picture(folder / "a.jpg").read_bytes(), "path": "a.jpg"}
    pq.write_table(pa.Table.from_pylist([{"image": data, "text": a} for a in answers]), folder / "t.parquet")
    return folder / "t.parquet", {}


def kaldi(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
    clip(folder / "a.wav")
    (folder / "wav.scp").write_text("".join(f"{i} a.wav\n" for i in range(len(answers))))
    (folder / "text").write_text("".join(f"{i} {a or ''}\n" for i, a in enumerate(answers)))
    return folder, {}


def cut(answer: Any) -> dict[str, Any]:
    said = [{"id": "s", "recording_id": "a", "start": 0, "duration": 1.0, "channel": 0, "text": answer}]
    heard = {"id": "a", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}]}
    return {"id": "c", "start": 0, "duration": 1.0, "channel": 0, "supervisions": said, "recording": heard}


def aishell(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
    clip(folder / "wav" / "train" / "S0002" / "BAC009S0002W0122.wav")
    (folder / "transcript").mkdir()
    text = "".join(f"BAC009S0002W0122 {a or ''}\n" for a in answers)
    (folder / "transcript" / "aishell_transcript_v0.8.txt").write_text(text)
    return folder, {}


def shard(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
    raw = io.BytesIO()
    Image.new("RGB", (4, 4)).save(raw, "JPEG")
    with tarfile.open(folder / "s.tar", "w") as tar:
        for i, answer in enumerate(answers):
            for name, data in ((f"{i}.jpg", raw.getvalue()), (f"{i}.json", json.dumps({"caption": answer}).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder / "s.tar", {}


def chatml(folder: Path, answers: list[Any]) -> tuple[Path, dict[str, Any]]:
    turn = "<|im_start|>user\\nhi<|im_end|>\\n<|im_start|>assistant\\n"
    (folder / "in.txt").write_text("".join(f"{turn}{a or ''}<|im_end|>\n" for a in answers))
    return folder / "in.txt", {}


def said(where: str, role: str, content: str, sides: tuple[str, str]) -> Callable[[Any], dict[str, Any]]:
    more = [{role: sides[0], content: "and?"}, {role: sides[1], content: "so"}]
    return lambda a: {where: [{role: sides[0], content: "hi"}, {role: sides[1], content: a}, *more]}


# For each layout what writes a file in it with these answers: words, or nothing in its several forms.
LAYOUTS: dict[str, Layout] = {
    "covost": columns("path\tsentence\ttranslation", "a.wav\ths\t{}", "covost_v2.en_de.tsv"),
    "clotho": columns("file_name,caption_1", "a.wav,{}", "c.csv"),
    "common-voice": columns("path\tsentence\tlocale", "a.wav\t{}\ten", "train.tsv"),
    "fleurs": columns("", "1\ta.wav\t{}\tx\tx|\t9\tMALE", "dev.tsv"),
    "nemo": listed(lambda a: {"audio_filepath": "a.wav", "duration": 1.0, "text": a or ""}),
    "kaldi": kaldi,
    "espnet": kaldi,
    "lhotse": listed(cut, "cuts.jsonl"),
    "librispeech": speech,
    "aishell": aishell,
    "vqav2": vqa,
    "okvqa": vqa,
    "aokvqa": listed(lambda a: {"question_id": "q", "image_id": 7, "question": "?", "direct_answers": [a]}),
    "gqa": members(lambda a: {"question": "?", "answer": a}),
    "ocrvqa": members(lambda a: {"imageURL": "x.jpg", "split": 1, "questions": ["?"], "answers": [a]}),
    "coco-captions": coco,
    "textcaps": textcaps,
    "llava": listed(said("conversations", "from", "value", ("human", "gpt"))),
    "llasm": listed(said("conversations", "from", "value", ("human", "gpt"))),
    "llama-factory": listed(said("messages", "role", "content", ("user", "assistant"))),
    "openai": listed(said("messages", "role", "content", ("user", "assistant"))),
    "imagefolder": listed(lambda a: {"file_name": "a.jpg", "text": a}, "metadata.jsonl"),
    "audiofolder": columns("file_name,text", "a.wav,{}", "metadata.csv"),
    "parquet": rows,
    "ms-swift": listed(said("messages", "role", "content", ("user", "assistant"))),
    "webdataset": shard,
    "qwen-audio": chatml,
}
# Where an answer is a box, words with times, or text that an annotation file cannot leave out.
GROUNDED = {"minigpt-refcoco", "refcoco", "visual-genome", "flickr30k", "mfa"}
REGIONS = {"coco", "voc", "yolo", "labelme", "label-studio", "cvat"}
TIMES = {"whisper", "subtitles", "ctm", "stm", "rttm", "elan", "audacity"}


def test_every_layout_is_tried() -> None:
    assert set(LAYOUTS) | GROUNDED | REGIONS | TIMES == set(CONVERTERS)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_missing_answer_is_a_bad_entry(name: str, tmp_path: Path) -> None:
    source, options = LAYOUTS[name](tmp_path, ["yes", "", None, " ", "no"])
    if name not in ("aishell", "webdataset", "kaldi", "espnet"):
        options["media"] = tmp_path
    report = convert(name, source, tmp_path / "o" / "s.jsonl", on_bad="skip", **options)
    assert (report.samples, dict(report.left_out)) == (2, {"no answer": 3})
    assert all(c.answer is not None for c in read_samples(tmp_path / "o" / "s.jsonl", probe=image_size))


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("llama-factory", lambda a: {"instruction": "hi", "output": a}),
        ("ms-swift", lambda a: {"instruction": "hi", "output": a}),
        ("aokvqa", lambda a: {"image": "a.jpg", "question": "?", "question_id": 1, "direct_answers": a}),
        ("vqav2", lambda a: {"image": "a.jpg", "question": "?", "question_id": 1, "answer": a}),
        ("gqa", lambda a: {"image": "a.jpg", "question": "?", "question_id": 1, "answer": a}),
    ],
)
def test_so_it_is_in_the_other_forms_of_a_layout(name: str, entry: Any, tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    source = save(tmp_path / "in.json", [entry(a) for a in ("yes", "", None, "\t")])
    report = convert(name, source, tmp_path / "o.jsonl", on_bad="skip")
    assert (report.samples, dict(report.left_out)) == (1, {"no answer": 3})


def region(side: str) -> list[float]:
    """x, y, width, height in pixels, one side of them 0."""
    return [10, 5, 0 if side == "width" else 20, 0 if side == "height" else 10]


def refs(folder: Path, box: list[float]) -> tuple[Path, dict[str, Any]]:
    images = [{"id": 9, "file_name": "a.jpg", "width": 64, "height": 48}]
    found = {"images": images, "annotations": [{"id": 7, "bbox": box}]}
    ref = {"ref_id": 1, "ann_id": 7, "image_id": 9, "sentences": [{"raw": "it"}]}
    return save(folder / "refs.json", [ref]), {"annotations": save(folder / "i.json", found)}


def flickr(folder: Path, box: list[float]) -> tuple[Path, dict[str, Any]]:
    for name in ("Sentences", "Annotations"):
        (folder / name).mkdir()
    (folder / "Sentences" / "a.txt").write_text("[/EN#1/people A man] .\n")
    sides = zip(("xmin", "ymin", "xmax", "ymax"), (box[0], box[1], box[0] + box[2], box[1] + box[3]), strict=True)
    outline = "".join(f"<{key}>{side + 1}</{key}>" for key, side in sides)
    size = "<size><width>64</width><height>48</height></size>"
    thing = f"<object><name>1</name><bndbox>{outline}</bndbox></object>"
    (folder / "Annotations" / "a.xml").write_text(f"<a>{size}{thing}</a>")
    return folder, {"media": folder}


def genome(folder: Path, box: list[float]) -> tuple[Path, dict[str, Any]]:
    sides = dict(zip(("x", "y", "width", "height"), box, strict=True))
    entry = {"id": "a", "regions": [{"region_id": 1, "phrase": "it", **sides}]}
    return save(folder / "region_descriptions.json", [entry]), {}


def swift(folder: Path, box: list[float]) -> tuple[Path, dict[str, Any]]:
    entry = said("messages", "role", "content", ("user", "assistant"))("<bbox><bbox>")
    entry["messages"][0]["content"] = "<image>"
    whole = [0, 0, 64, 48]
    thin = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    return lines(folder / "in.jsonl", entry | {"images": ["a.jpg"], "objects": {"bbox": [whole, thin]}}), {}


def referred(folder: Path, box: list[float]) -> tuple[Path, dict[str, Any]]:
    entry = {"img_id": "a", "sents": "it", "bbox": box, "width": 64, "height": 48}
    return save(folder / "r.json", [entry]), {}


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize("clip_boxes", [False, True])
@pytest.mark.parametrize(
    ("name", "layout"),
    [("refcoco", refs), ("minigpt-refcoco", referred), ("flickr30k", flickr), ("visual-genome", genome),
     ("ms-swift", swift)],
)  # fmt: skip
def test_a_region_without_area_is_a_bad_entry(
    name: str, layout: Callable[[Path, list[float]], Any], clip_boxes: bool, side: str, tmp_path: Path
) -> None:
    picture(tmp_path / "a.jpg", 64, 48)
    source, options = layout(tmp_path, region(side))
    with pytest.raises(BadEntry, match="has no area") as caught:
        convert(name, source, tmp_path / "o.jsonl", clip_boxes=clip_boxes, **options)
    assert caught.value.reason == "box without area"


def test_one_empty_answer_among_several_costs_that_one(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    entry = {"image": "a.jpg", "question": "?", "question_id": 1, "answer": ["yes", "", "yes", None, "no"]}
    source = save(tmp_path / "in.json", [entry, {**entry, "answer": ["", "no", ""]}])
    report = convert("vqav2", source, tmp_path / "o.jsonl", on_bad="skip")
    assert (report.samples, dict(report.left_out)) == (1, {"no answer": 1})  # the majority said yes, and nothing
    report = convert("vqav2", source, tmp_path / "o.jsonl", on_bad="skip", answers="every")
    assert (report.samples, dict(report.left_out)) == (4, {"no answer": 4})
    with pytest.raises(BadEntry, match="answers: must be a string"):
        convert("vqav2", save(tmp_path / "in.json", [entry | {"answer": [5]}]), tmp_path / "o.jsonl")


def test_an_answer_that_lacks_the_form_asked_for_is_a_missing_one(tmp_path: Path) -> None:
    entry = {"question": "?", "answer": "yes"}
    source, _ = members(lambda a: entry | a)(tmp_path, [{"fullAnswer": "Yes."}, {}, {"fullAnswer": None}])
    report = convert("gqa", source, tmp_path / "o.jsonl", on_bad="skip", answers="full")
    assert (report.samples, dict(report.left_out)) == (1, {"no answer": 2})


def test_an_empty_media_file_is_a_bad_entry(tmp_path: Path) -> None:
    entry = {"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "a"}]}
    picture(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").touch()
    source = lines(tmp_path / "in.jsonl", *(entry | {"images": [name]} for name in ("a.jpg", "b.jpg")))
    report = convert("ms-swift", source, tmp_path / "o.jsonl", on_bad="skip")
    assert (report.samples, dict(report.left_out)) == (1, {"media file is empty": 1})
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, data in (
            ("c.jpg", b""),
            ("c.txt", b"C"),
            ("d.jpg", (tmp_path / "a.jpg").read_bytes()),
            ("d.txt", b"D"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    report = convert("webdataset", tmp_path / "s.tar", tmp_path / "o.jsonl", on_bad="skip")
    assert (report.samples, dict(report.left_out)) == (1, {"media file is empty": 1})


def test_boxes_of_swift_within_one_pixel_are_in_another_unit(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    messages = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "<bbox>"}]
    entry = {"messages": messages, "images": ["a.jpg"], "objects": {"bbox": [[0.1, 0.2, 0.9, 1.0]]}}
    with pytest.raises(BadEntry, match=r'objects\.bbox\[0\]: .* "bbox_type": "norm1"'):
        convert("ms-swift", lines(tmp_path / "in.jsonl", entry), tmp_path / "o.jsonl")


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_layout_is_told_from_its_files(name: str, tmp_path: Path) -> None:
    source, _ = LAYOUTS[name](tmp_path, ["yes", "no"])
    same = {"okvqa": "vqav2", "espnet": "kaldi", "llasm": "llava"}  # what nothing in the files tells apart
    if name in ("llama-factory", "ms-swift", "openai"):  # samples, but for what their content holds
        assert layout_of(source) is None
        return
    assert layout_of(source) == same.get(name, name)
