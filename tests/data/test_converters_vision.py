"""Converters of pictures, on small files in the layouts their documentation gives."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from converter_files import lines, made, picture, read, save
from weft.conversation import Box, Text, WeftError
from weft.data.converters import BadEntry, convert


def test_refs_are_joined_with_the_boxes_of_instances(tmp_path: Path) -> None:
    picture(tmp_path / "train2014" / "COCO_train2014_000000000009.jpg", 200, 100)
    ref = {"ref_id": 3, "ann_id": 7, "image_id": 9, "split": "train", "file_name": "COCO_train2014_000000000009_0.jpg"}
    ref["sentences"] = [{"raw": "The LEFT cup.", "sent": "the left cup", "sent_id": 1}, {"sent": "cup", "sent_id": 2}]
    save(tmp_path / "refcoco" / "refs.json", [ref, {**ref, "ref_id": 4, "split": "val"}])
    instances = {"info": {}, "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}]}
    instances["images"][0] |= {"width": 200, "height": 100}
    instances["annotations"] = [{"id": 7, "image_id": 9, "bbox": [20, 10, 100, 50.5]}]
    save(tmp_path / "refcoco" / "instances.json", instances)
    found = made("refcoco", tmp_path / "refcoco", tmp_path / "o.jsonl", media=tmp_path, split="train")
    assert [c.messages[0].text for c in found] == ["The LEFT cup.", "cup"]
    assert found[0].messages[1].parts[0].boxes[0] == pytest.approx((0.1, 0.1, 0.6, 0.605))
    save(tmp_path / "refcoco" / "refs.json", [{**ref, "ann_id": 8}])
    with pytest.raises(BadEntry, match=r"refs.json: \[0\].ann_id: 8 is not in"):
        convert("refcoco", tmp_path / "refcoco", tmp_path / "o.jsonl", media=tmp_path)
    (tmp_path / "refcoco" / "refs.json").rename(tmp_path / "refcoco" / "refs(unc).p")
    with pytest.raises(WeftError, match="is a pickle"):
        convert("refcoco", tmp_path / "refcoco", tmp_path / "o.jsonl", media=tmp_path)


@pytest.mark.parametrize("with_data", [True, False])
def test_visual_genome_regions_one_entry_each(tmp_path: Path, with_data: bool) -> None:
    picture(tmp_path / "VG_100K_2" / "1.jpg", 100, 50)
    region = {"region_id": 1, "image_id": 1, "phrase": "a Red door", "x": 10, "y": 5, "width": 20, "height": 10}
    over = {**region, "region_id": 2, "x": 90, "width": 13}
    large = {**region, "region_id": 3, "x": 0, "y": 0, "width": 100, "height": 50}
    save(tmp_path / "region_descriptions.json", [{"id": 1, "regions": [region, over, large]}])
    if with_data:
        url = "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg"
        save(tmp_path / "image_data.json", [{"image_id": 1, "url": url, "width": 100, "height": 50}])
    with pytest.raises(BadEntry, match=r"\[0\].regions\[1\].*outside its image"):
        convert("visual-genome", tmp_path, tmp_path / "o.jsonl")
    report = convert("visual-genome", tmp_path, tmp_path / "o.jsonl", on_bad="skip", max_area=5000)
    assert report.samples == 1 and dict(report.left_out) == {"box outside its picture": 1}
    assert dict(report.notes) == {"regions of 5000 square pixels or more": 1}
    (one,) = read(tmp_path / "o.jsonl")
    assert one.messages[0].text == "a Red door" and one.messages[1].parts[0].boxes[0] == (0.1, 0.1, 0.3, 0.3)
    report = convert("visual-genome", tmp_path, tmp_path / "o.jsonl", clip_boxes=True)
    assert report.samples == 3 and report.notes["boxes cut at the edge of their picture"] == 1
    assert read(tmp_path / "o.jsonl")[1].messages[1].parts[0].boxes[0] == (0.9, 0.1, 1.0, 0.3)


def flickr(folder: Path) -> None:
    picture(folder / "images" / "36979.jpg", 500, 250)
    caption = "[/EN#1/people Two men] by [/EN#2/scene/other the sea] and [/EN#3/other a dog] ( wet ) ."
    (folder / "Sentences").mkdir()
    (folder / "Sentences" / "36979.txt").write_text(caption + "\nA dog [/EN#0/notvisual it] .\n")
    (folder / "Annotations").mkdir()

    def outline(names: str, *sides: int) -> str:
        keys = ("xmin", "ymin", "xmax", "ymax")
        inner = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, sides, strict=True))
        return "<object>" + "".join(f"<name>{n}</name>" for n in names) + f"<bndbox>{inner}</bndbox></object>"

    scene = "<object><name>2</name><scene>1</scene><nobndbox>1</nobndbox></object>"
    found = outline("1", 1, 1, 251, 126) + outline("13", 251, 1, 500, 250) + scene
    size = "<size><width>500</width><height>250</height><depth>3</depth></size>"
    (folder / "Annotations" / "36979.xml").write_text(f"<annotation>{size}{found}</annotation>")
    (folder / "train.txt").write_text("36979\n")
    (folder / "test.txt").write_text("12\n")


def test_flickr30k_phrases_carry_their_boxes(tmp_path: Path) -> None:
    flickr(tmp_path)
    media = {"media": tmp_path / "images"}
    grounded, plain = made("flickr30k", tmp_path, tmp_path / "o.jsonl", split="train", **media)
    men, by, dog, rest = grounded.messages[1].parts
    assert isinstance(men, Box) and men.label == "Two men" and len(men.boxes) == 2
    assert men.boxes[0] == (0, 0, 0.5, 0.5) and men.boxes[1] == pytest.approx((0.5, 0, 499 / 500, 249 / 250))
    assert isinstance(dog, Box) and dog.label == "a dog" and dog.boxes == (men.boxes[1],)
    assert (by, rest) == (Text(" by the sea and "), Text(" ( wet ) ."))
    assert plain.messages[1].text == "A dog it ."
    found = made("flickr30k", tmp_path, tmp_path / "o.jsonl", task="detection", **media)
    assert [c.messages[0].text for c in found] == ["Two men", "a dog"] and found[0].messages[1].parts == (men,)
    found = made("flickr30k", tmp_path, tmp_path / "o.jsonl", task="caption", **media)
    assert found[0].messages[1].text == "Two men by the sea and a dog ( wet ) ."
    with pytest.raises(WeftError, match="gives no sample"):
        convert("flickr30k", tmp_path, tmp_path / "o.jsonl", split="test", **media)


def test_vqa_questions_and_answers_are_joined(tmp_path: Path) -> None:
    picture(tmp_path / "COCO_val2014_000000000042.jpg")
    questions = [{"image_id": 42, "question": "What?", "question_id": n} for n in (420, 421)]
    source = save(tmp_path / "q.json", {"info": {}, "task_type": "Open-Ended", "questions": questions})
    answers = [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(["net", "nets", "nets"])]
    rows: list[dict[str, Any]] = [{"question_id": 420, "image_id": 42, "answers": answers}]
    rows[0]["multiple_choice_answer"] = "nets"
    target = save(tmp_path / "a.json", {"annotations": rows})
    report = convert("vqav2", source, tmp_path / "o.jsonl", annotations=target, on_bad="skip")
    assert dict(report.left_out) == {"no answer": 1}
    (one,) = read(tmp_path / "o.jsonl")
    assert (one.id, one.messages[0].task.name, one.messages[1].text) == ("420", "vqa", "nets")
    report = convert("okvqa", source, tmp_path / "o.jsonl", annotations=target, answers="every", on_bad="skip")
    assert [c.messages[1].text for c in read(tmp_path / "o.jsonl")] == ["net", "nets", "nets"]
    assert all(c.answer is None for c in made("vqav2", source, tmp_path / "o.jsonl"))  # requests
    save(target, {"annotations": [{"question_id": 420, "answers": "net"}]})
    with pytest.raises(WeftError, match=r"a.json: annotations\[0\].answers: must be a list"):
        convert("vqav2", source, tmp_path / "o.jsonl", annotations=target)


def test_aokvqa_and_gqa(tmp_path: Path) -> None:
    picture(tmp_path / "train2017" / "000000299207.jpg")
    entry = {"split": "train", "image_id": 299207, "question_id": "22MexNkBPpdZGX6sxbxVBH", "question": "What is it?"}
    entry |= {"choices": ["ramp", "mat"], "correct_choice_idx": 0, "direct_answers": ["ramp", "Ramp", "ramp"]}
    source = save(tmp_path / "aokvqa.json", [entry])
    (one,) = made("aokvqa", source, tmp_path / "o.jsonl", split="train")
    assert one.messages[1].text == "ramp" and one.id == entry["question_id"]
    picture(tmp_path / "2405722.jpg")
    questions = {"02930152": {"imageId": "2405722", "question": "Is it dark?", "answer": "yes", "fullAnswer": "Yes."}}
    source = save(tmp_path / "gqa.json", questions)
    assert made("gqa", source, tmp_path / "o.jsonl")[0].messages[1].text == "yes"
    (one,) = made("gqa", source, tmp_path / "o.jsonl", answers="full")
    assert one.messages[1].text == "Yes." and one.id == "02930152"
    save(source, [{"image": "x/2405722.jpg", "question": "?", "answer": "yes", "question_id": 1}])
    assert made("gqa", source, tmp_path / "o.jsonl")[0].messages[1].text == "yes"


def test_llava_tags_lose_their_line_break_and_nothing_else(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    talk = [{"from": "human", "value": "What\nnow?\n<image>"}, {"from": "gpt", "value": "A <image> \nof it."}]
    more = [{"from": "human", "value": "And?"}, {"from": "gpt", "value": "No."}]
    alone = {"id": "b", "conversations": more, "model": "x"}
    video = {"id": "c", "video": "v.mp4", "conversations": more}
    source = save(tmp_path / "in.json", [{"id": "a", "image": "a.jpg", "conversations": talk + more}, alone, video])
    report = convert("llava", source, tmp_path / "o.jsonl", on_bad="skip")
    assert dict(report.left_out) == {"video": 1} and dict(report.notes) == {'key "model" is not used': 1}
    found = read(tmp_path / "o.jsonl")
    assert [p.text for p in found[0].messages[0].parts if isinstance(p, Text)] == ["What\nnow?"]
    assert found[0].messages[1].text == "A <image> \nof it."  # an answer's tag is text
    assert not found[1].images
    convert("llava", source, tmp_path / "o.jsonl", on_bad="skip", clean=True)
    cleaned = read(tmp_path / "o.jsonl")
    assert cleaned[0].messages[0].text == "Whatnow?" and cleaned[1].messages[0].text == "and?"


def test_shards_are_unpacked_beside_the_output(tmp_path: Path) -> None:
    raw = io.BytesIO()
    Image.new("RGB", (4, 4)).save(raw, "JPEG")
    files = {
        "000.jpg": raw.getvalue(),
        "000.txt": b"A Cat.",
        "000.json": b'{"caption": "other"}',
        "../001.jpg": raw.getvalue(),
        "../001.json": b'{"caption": "A dog"}',
        "002.txt": b"no picture",
        "003.jpg": raw.getvalue(),
    }
    shard = tmp_path / "00000.tar"
    with tarfile.open(shard, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    report = convert("webdataset", tmp_path, tmp_path / "out" / "s.jsonl", on_bad="skip")
    assert dict(report.left_out) == {"no picture": 1, "no answer": 1}
    found = read(tmp_path / "out" / "s.jsonl")
    assert [c.messages[1].text for c in found] == ["A Cat.", "A dog"]
    first = json.loads((tmp_path / "out" / "s.jsonl").read_text().splitlines()[0])
    assert first["messages"][0]["content"][0]["image"] == "s_media/00000/000.jpg"
    assert (tmp_path / "out" / "s_media" / "00000" / "001.jpg").is_file()  # no name leads out of the folder
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(BadEntry, match="00000.tar: cannot be read further"):
        convert("webdataset", shard, tmp_path / "o.jsonl")


def test_ms_swift_objects_become_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "x.jpg", 200, 100)
    picture(tmp_path / "y.jpg", 100, 100)
    describe = [{"role": "system", "content": "S"}, {"role": "user", "content": "<image>Describe <bbox>."}]
    describe.append(
        {"role": "assistant", "content": "<ref-object><bbox><bbox> and <ref-object> or <ref-object><bbox>!"}
    )
    objects: dict[str, Any] = {"ref": ["a dog", "a tree", "a woman"], "bbox": [[0, 0, 20, 10], [20, 10, 100, 50]]}
    objects["bbox"] += [[0, 0, 200, 100], [10, 10, 20, 20]]
    entry = {"messages": describe, "images": ["x.jpg"], "objects": objects}
    two = [{"role": "user", "content": "<image><image>Where?"}, {"role": "assistant", "content": "<bbox><bbox>"}]
    both = {"messages": two, "images": ["x.jpg", "y.jpg"], "objects": {"ref": [], "bbox": [[20, 10, 100, 50]] * 2}}
    both["objects"] |= {"image_id": [0, 1]}
    norm = {
        "messages": two,
        "images": ["x.jpg", "y.jpg"],
        "objects": {"bbox": [[0, 0, 0.5, 1]] * 2, "bbox_type": "norm1"},
    }
    source = lines(tmp_path / "in.jsonl", entry, both, norm)
    first, second, third = made("ms-swift", source, tmp_path / "o.jsonl")
    assert first.messages[1].parts[2] == Box(((0, 0, 0.1, 0.1),))
    assert first.messages[2].parts == (
        Box(((0.1, 0.1, 0.5, 0.5), (0, 0, 1, 1)), "a dog"),
        Text(" and a tree or "),
        Box(((0.05, 0.1, 0.1, 0.2),), "a woman"),
        Text("!"),
    )
    assert second.messages[1].parts == (Box(((0.1, 0.1, 0.5, 0.5),), None, 0), Box(((0.2, 0.1, 1, 0.5),), None, 1))
    assert third.messages[1].parts == (Box(((0, 0, 0.5, 1), (0, 0, 0.5, 1)), None, 0),)
    point = {**entry, "objects": {"ref": [], "bbox": [[1, 2]]}}
    tools = {**both, "tools": "[{}]"}
    pair = {**both, "rejected_response": "no"}
    report = convert("ms-swift", lines(source, point, tools, pair, both), tmp_path / "o.jsonl", on_bad="skip")
    assert dict(report.left_out) == {"points": 1, "tools": 1, "preference data": 1}


def test_llama_factory_alpaca_and_mismatches(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    alpaca = {"instruction": "Look.<image>", "input": "What?", "output": "A dot.", "system": "S", "images": ["a.png"]}
    alpaca["history"] = [["hi", "ho"]]
    tool = {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "{}"}]}
    short = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "images": ["a.png"]}
    report = convert(
        "llama-factory", save(tmp_path / "in.json", [alpaca, tool, short]), tmp_path / "o.jsonl", on_bad="skip"
    )
    assert dict(report.left_out) == {"tools": 1, "tags and media differ in number": 1}
    (one,) = read(tmp_path / "o.jsonl")
    assert [(m.role, m.text) for m in one.messages] == [
        ("system", "S"),
        ("user", "hi"),
        ("assistant", "ho"),
        ("user", "Look.\nWhat?"),
        ("assistant", "A dot."),
    ]


def shard(path: Path, *files: tuple[str, bytes | tuple[int, int, int]]) -> Path:
    """A tar file; a picture is given by its colour."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            raw = io.BytesIO(data) if isinstance(data, bytes) else io.BytesIO()
            if not isinstance(data, bytes):
                Image.new("RGB", (4, 4), data).save(raw, "PNG")
            info = tarfile.TarInfo(name)
            info.size = raw.seek(0, 2)
            raw.seek(0)
            tar.addfile(info, raw)
    return path


RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def test_a_name_that_comes_again_in_a_shard_is_a_sample_with_a_picture_of_its_own(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    shard(
        shards / "0.tar",
        *[
            ("a.png", RED),
            ("a.txt", b"red"),
            ("b.png", GREEN),
            ("b.txt", b"green"),
            ("a.png", BLUE),
            ("a.txt", b"blue"),
        ],
        *[("a-2.png", GREEN), ("a-2.txt", b"green"), ("../a.png", RED), ("../a.txt", b"red")],
    )
    shard(shards / "1.tar", ("a.png", GREEN), ("a.txt", b"green"))
    found = made("webdataset", shards, tmp_path / "o" / "s.jsonl")
    assert len({c.images[0].source for c in found}) == len(found) == 6
    assert len({c.id for c in found}) == 5  # one name in two shards is two samples, as in webdataset
    for conversation in found:
        colour = Image.open(conversation.images[0].source).getpixel((0, 0))
        assert {RED: "red", BLUE: "blue", GREEN: "green"}[colour] == conversation.messages[1].text


def test_a_name_twice_in_a_row_is_a_bad_entry(tmp_path: Path) -> None:
    files = [
        ("a.png", RED),
        ("a.txt", b"red"),
        ("a.png", BLUE),
        ("a.txt", b"blue"),
        ("b.png", GREEN),
        ("b.txt", b"green"),
    ]
    report = convert("webdataset", shard(tmp_path / "0.tar", *files), tmp_path / "o.jsonl", on_bad="skip")
    assert report.samples == 1 and dict(report.left_out) == {"name twice in a row": 1}
    assert read(tmp_path / "o.jsonl")[0].messages[1].text == "green"
    with pytest.raises(BadEntry, match=r"0\.tar: a: holds two files \.txt, .* name ends at its first dot"):
        convert("webdataset", tmp_path / "0.tar", tmp_path / "o.jsonl")


def test_names_with_dots_are_one_name_up_to_the_first(tmp_path: Path) -> None:
    files = [("cat.1.png", RED), ("cat.1.txt", b"red"), ("cat.2.png", BLUE), ("cat.2.txt", b"blue")]
    said = r"cat: holds no picture .* but \.1\.png, \.1\.txt, \.2\.png, \.2\.txt: a sample's name ends at its first dot"
    with pytest.raises(BadEntry, match=said):
        convert("webdataset", shard(tmp_path / "0.tar", *files), tmp_path / "o.jsonl")


def test_what_a_shard_holds_beside_picture_and_caption_is_counted(tmp_path: Path) -> None:
    meta = json.dumps({"caption": "blue", "url": "x", "size": {"w": 4}}).encode()
    files = [("a.png", RED), ("a.txt", b"red"), ("a.json", meta), ("a.cls", b"1"), ("b.png", BLUE), ("b.json", meta)]
    report = convert("webdataset", shard(tmp_path / "0.tar", *files), tmp_path / "o.jsonl")
    keys = ("json", "cls", "json.url", "json.size")
    assert dict(report.notes) == {f'key "{key}" is not used': 1 for key in keys}


def test_keys_of_annotations_and_tables_that_are_not_used_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", 100, 50)
    images = [{"id": 9, "file_name": "a.jpg", "width": 100, "height": 50, "license": 3}]
    found = [{"id": 7, "image_id": 9, "bbox": [0, 0, 50, 25], "segmentation": [{"x": 1}], "area": 5}]
    instances = save(tmp_path / "instances.json", {"images": images, "annotations": found})
    ref = {"ref_id": 1, "ann_id": 7, "image_id": 9, "split": "train", "sentences": [{"raw": "it", "tokens": ["it"]}]}
    report = convert("refcoco", save(tmp_path / "refs.json", [ref]), tmp_path / "o.jsonl", annotations=instances)
    paths = ("images[].license", "annotations[].image_id", "annotations[].segmentation", "annotations[].area")
    assert set(report.notes) == {f'key "{p}" is not used' for p in (*paths, "split", "sentences[].tokens")}
    captions = {"images": images, "annotations": [{"id": 1, "image_id": 9, "caption": "it", "score": 1}]}
    report = convert("coco-captions", save(tmp_path / "c.json", captions), tmp_path / "o.jsonl")
    unused = [f"images[].{key}" for key in ("width", "height", "license")] + ["annotations[].score"]
    assert set(report.notes) == {f'key "{p}" is not used' for p in unused}
    region = {"region_id": 1, "phrase": "it", "x": 0, "y": 0, "width": 9, "height": 9, "synsets": []}
    regions = save(tmp_path / "region_descriptions.json", [{"id": "a", "url": "x", "regions": [region, region]}])
    report = convert("visual-genome", regions, tmp_path / "o.jsonl")
    assert dict(report.notes) == {'key "regions[].synsets" is not used': 2, 'key "url" is not used': 1}
