"""Files of other projects, given as samples, are recognised and answered with the command that converts them."""

import gzip
import json
from pathlib import Path

import pytest

from weft.conversation import SampleError, WeftError, read_samples
from weft.conversation.foreign import layout_of
from weft.data.converters import convert
from weft.data.sample_file import SampleFile
from weft.data.validate import validate

COCO = {"images": [{"id": 1, "file_name": "a.jpg", "width": 4}] * 3000, "annotations": [], "categories": [{"id": 1}]}
CAPTIONS = COCO | {"annotations": [{"image_id": 1, "id": 5, "caption": "A cat."}]}
SEGMENT = {"id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": " Hi", "tokens": [1]}
FOREIGN = {
    "coco": ("a.json", json.dumps(COCO)),
    "coco-captions": ("a.json", json.dumps(CAPTIONS)),
    "whisper": ("a.json", json.dumps([SEGMENT], indent=1)),
    "labelme": ("a.json", json.dumps({"version": "6", "shapes": [], "imagePath": "a.jpg"}, indent=2)),
    "label-studio": ("a.json", json.dumps([{"id": 1, "annotations": [{"result": []}], "data": {"image": "a.jpg"}}])),
    "llava": ("a.jsonl", json.dumps({"id": 1, "image": "a.jpg", "conversations": [{"from": "human", "value": "a"}]})),
    "openai": ("a.jsonl", json.dumps({"messages": [{"role": "user", "content": [{"type": "i", "image_url": {}}]}]})),
    "llama-factory": ("a.json", json.dumps([{"messages": [{"role": "user", "content": "a"}], "images": ["a.jpg"]}])),
    "imagefolder": ("metadata.csv", "file_name,text\na.jpg,A cat.\n"),
    "audiofolder": ("list.tsv", "path\ttext\na.wav\tHello.\n"),
    "subtitles": ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHello.\n"),
    "parquet": ("a.bin", "PAR1\0\0"),
    "cvat": ("a.xml", '<?xml version="1.0"?>\n<annotations><image id="0" name="a.jpg"></image></annotations>'),
    "voc": ("a.xml", "<annotation><filename>a.jpg</filename></annotation>"),
    "elan": ("a.eaf", "<ANNOTATION_DOCUMENT/>"),
    "ctm": ("a.ctm", "talk 1 0.5 0.2 hello\n"),
    "audacity": ("a.txt", "0.100000\t0.900000\thello\n"),
    "yolo": ("data.yaml", "nc: 2\nnames: [cat, dog]\n"),
}


@pytest.mark.parametrize("layout", FOREIGN)
def test_a_file_of_another_layout_is_answered_with_its_command(layout: str, tmp_path: Path) -> None:
    name, text = FOREIGN[layout]
    file = tmp_path / "a folder" / name
    file.parent.mkdir()
    file.write_text(text)
    said = f"is laid out as {layout}: make samples of it (weft data convert {layout} '{file}' -o samples.jsonl)"
    with pytest.raises(SampleError) as mistake:
        read_samples(file)
    assert str(mistake.value) == f"{file}: {said}"
    with pytest.raises(SampleError, match="is laid out as"):
        SampleFile(file)[0]
    found: list[SampleError] = []
    validate([file], on_mistake=found.append)
    assert [m.problem for m in found] == [said]  # once, and not for every line


@pytest.mark.parametrize(
    ("layout", "inside"),
    [
        ("kaldi", "wav.scp"),
        ("yolo", "data.yaml"),
        ("voc", "Annotations/a.xml"),
        ("audiofolder", "train/metadata.jsonl"),
        ("librispeech", "84/121/84-121.trans.txt"),
        ("parquet", "data/train-00000-of-00001.parquet"),
        ("mfa", "speaker/a.TextGrid"),
    ],
)
def test_a_folder_is_told_by_what_it_holds(layout: str, inside: str, tmp_path: Path) -> None:
    (tmp_path / inside).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / inside).write_text("x")
    (tmp_path / "a.wav").write_text("x")
    assert layout_of(tmp_path) == layout
    for open_ in (read_samples, SampleFile):
        with pytest.raises(WeftError, match=f"is laid out as {layout}: make samples of it"):
            open_(tmp_path)


def test_a_sample_with_a_mistake_is_still_a_sample(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    words = {"type": "words", "words": [{"text": "a", "start": 0, "end": 1, "duration": 1}]}
    sample = {"id": "1", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [words]}]}
    file.write_text(json.dumps(sample | {"recording_id": 1, "duration": 2, "channel": 0}) + "\n")
    assert layout_of(file) is None
    with pytest.raises(SampleError, match=r"s\.jsonl:1: recording_id: unknown key"):
        read_samples(file)
    good = json.dumps({"messages": [{"role": "user", "content": "a"}]})
    part = {"type": "image_url", "image_url": {"url": "a.png"}}
    bad = json.dumps({"messages": [{"role": "user", "content": [part]}]})
    file.write_text(f"{good}\n{bad}\n")
    with pytest.raises(
        SampleError, match=r"s\.jsonl:2: messages\[0\].* \(the file is laid out as openai: make samples"
    ):
        read_samples(file)
    assert layout_of(tmp_path / "nowhere") is None


def test_files_of_a_folder_and_inside_of_gzip_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "json" / "a.json").write_text(FOREIGN["labelme"][1])
    assert layout_of(tmp_path / "json") == "labelme"
    cut = {"id": "c", "recording": {"id": "r"}, "supervisions": [], "start": 0}
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(json.dumps(cut).encode()))
    assert layout_of(tmp_path / "x.jsonl.gz") == "lhotse"
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b"x" * 99)[:20])
    assert layout_of(tmp_path / "x.jsonl.gz") is None


@pytest.mark.parametrize("layout", ["coco", "coco-captions", "label-studio", "llava", "openai", "llama-factory"])
def test_a_folder_of_files_that_are_converted_one_by_one_is_answered_with_one(layout: str, tmp_path: Path) -> None:
    name, text = FOREIGN[layout]
    file = tmp_path / "part" / name
    file.parent.mkdir()
    file.write_text(text)
    said = f"holds files laid out as {layout}: make samples of each by itself (weft data convert {layout} {file} -o"
    assert layout_of(tmp_path) == layout
    with pytest.raises(WeftError) as mistake:
        convert("auto", tmp_path, tmp_path / "out.jsonl")
    assert said in str(mistake.value)
    with pytest.raises(WeftError) as mistake:
        read_samples(tmp_path)
    assert said in str(mistake.value)


def test_a_folder_of_several_layouts_is_told_by_all_of_them(tmp_path: Path) -> None:
    for name, text in (FOREIGN["subtitles"], FOREIGN["ctm"], ("b.srt", FOREIGN["subtitles"][1])):
        (tmp_path / name).write_text(text)
    said = f"several layouts, ctm ({tmp_path / 'a.ctm'}), subtitles ({tmp_path / 'a.srt'}): make samples of one"
    for ask in (lambda: convert("auto", tmp_path, tmp_path / "out.jsonl"), lambda: read_samples(tmp_path)):
        with pytest.raises(WeftError) as mistake:
            ask()
        assert said in str(mistake.value)


def test_llama_factory_s_newest_form_is_told_by_its_weights(tmp_path: Path) -> None:
    file, text = tmp_path / "v1.jsonl", {"type": "text", "value": "a"}
    turns = [{"role": r, "content": [text], "loss_weight": w} for r, w in (("user", 0.0), ("assistant", 1.0))]
    file.write_text(json.dumps({"messages": turns}))
    assert convert("auto", file, tmp_path / "out.jsonl").layout == "llama-factory"


def test_samples_have_nothing_to_convert(tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}))
    with pytest.raises(WeftError, match="holds weft's own samples: there is nothing to convert"):
        convert("auto", file, tmp_path / "out.jsonl")
