"""Pictures with regions in the layouts of other tools; the small files are as those tools were seen to write them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from converter_files import made, picture, read, save
from weft.conversation import Box, Conversation, WeftError
from weft.data.converters import BadEntry, convert

WIDE, HIGH = 200, 100
CAT, DOG = [10.0, 20.0, 60.0, 80.0], [0.0, 0.0, 200.0, 100.0]


def told(found: list[Conversation]) -> dict[str, list[list[float]]]:
    """Boxes in pixels by what was asked for."""
    said = {}
    for conversation in found:
        (box,) = conversation.messages[1].parts
        assert isinstance(box, Box) and box.label == conversation.messages[0].text
        assert conversation.messages[0].task.name == "detection"
        said[box.label] = [[round(x * (WIDE, HIGH)[i % 2], 3) for i, x in enumerate(b)] for b in box.boxes]
    return said


def instances(*annotations: dict[str, Any]) -> dict[str, Any]:
    images = [{"id": 1, "file_name": "a.jpg", "width": WIDE, "height": HIGH}, {"id": 2, "file_name": "b.jpg"}]
    images[1] |= {"width": WIDE, "height": HIGH}
    return {
        "info": {},
        "images": images,
        "annotations": [{"id": i, "image_id": 1, "iscrowd": 0} | a for i, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def test_coco_masks_are_boxes_and_crowds_are_no_objects(tmp_path: Path) -> None:
    picture(tmp_path / "train2017" / "a.jpg", WIDE, HIGH)
    picture(tmp_path / "b.jpg", WIDE, HIGH)
    cat = {"category_id": 1, "bbox": [10, 20, 50, 60], "segmentation": [[10, 20, 60, 20, 60, 80]]}
    dog = {"category_id": 2, "bbox": [0, 0, 200, 100], "segmentation": []}
    more = {"category_id": 1, "bbox": [0, 0, 10, 10], "segmentation": {"counts": [2030, 20], "size": [HIGH, WIDE]}}
    source = save(tmp_path / "instances.json", instances(cat, dog, more, {**dog, "image_id": 7}))
    assert told(made("coco", source, tmp_path / "o.jsonl")) == {"cat": [CAT, [0, 0, 10, 10]], "dog": [DOG]}
    notes = convert("coco", source, tmp_path / "o.jsonl").notes
    assert notes["masks (polygons) are read as their boxes"] == notes["masks (RLE) are read as their boxes"] == 1
    assert notes["annotations of pictures that are not listed"] == notes["pictures without a region"] == 1
    save(source, instances(cat, dog, more | {"iscrowd": 1}))
    assert told(made("coco", source, tmp_path / "o.jsonl")) == {"dog": [DOG]}
    report = convert("coco", source, tmp_path / "o.jsonl", task="identify")
    assert report.notes["crowds: no detection of their label in that picture"] == 1
    assert [c.messages[1].text for c in read(tmp_path / "o.jsonl")] == ["cat", "dog"]
    save(source, instances(cat | {"category_id": 9}))
    with pytest.raises(BadEntry, match=r"annotations\[0\]\.category_id: 9 is not among the categories"):
        convert("coco", source, tmp_path / "o.jsonl")


def voc(*objects: tuple[str, str, str, str, str], name: str = "a.jpg") -> str:
    found = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        f"<part><name>head</name></part></object>"
        for label, a, b, c, d in objects
    )
    size = f"<size><width>{WIDE}</width><height>{HIGH}</height><depth>3</depth></size>"
    return f"<annotation><folder>VOC</folder><filename>{name}</filename>{size}{found}</annotation>"


def test_voc_counts_pixels_from_one_and_the_last_one_lies_inside(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.jpg", WIDE, HIGH)
    file = tmp_path / "Annotations" / "a.xml"
    file.parent.mkdir()
    file.write_text(voc(("cat", "11", "21", "60", "80"), ("dog", "1", "1", "200", "100")))
    assert told(made("voc", tmp_path, tmp_path / "o.jsonl")) == {"cat": [CAT], "dog": [DOG]}
    assert dict(convert("voc", file, tmp_path / "o.jsonl").notes) == {"parts of objects are not used": 2}
    file.write_text(voc(("cat", "10.0", "20.0", "60.0", "80.0"), ("dog", "0.0", "0.0", "200.0", "100.0")))
    assert told(made("voc", tmp_path, tmp_path / "o.jsonl")) == {"cat": [CAT], "dog": [DOG]}
    notes = convert("voc", tmp_path, tmp_path / "o.jsonl").notes
    assert notes["files that count pixels from 0 (a decimal point, or a 0)"] == 1
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b  1\n")
    with pytest.raises(WeftError, match="gives no sample"):
        convert("voc", tmp_path, tmp_path / "o.jsonl", split="val")
    file.write_text(voc(("cat", "", "20", "60", "80")))
    with pytest.raises(BadEntry, match="lacks a number"):
        convert("voc", tmp_path, tmp_path / "o.jsonl")


YAML = "path: .\ntrain: ../train/images\nval: [val.txt]\nnames: {0: cat, 1: dog}\n"


def test_yolo_finds_labels_of_pictures_in_all_its_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    picture(root / "train" / "images" / "a.jpg", WIDE, HIGH)
    picture(root / "train" / "images" / "empty.jpg", WIDE, HIGH)
    picture(root / "b.png", WIDE, HIGH)
    labels = root / "train" / "labels" / "a.txt"
    labels.parent.mkdir()
    labels.write_text("0 0.175 0.5 0.25 0.6 0.93\n1 0.5 0.5 1 1\n1 0.15 0.1 0.45 0.1 0.3 0.5\n")
    (root / "b.txt").write_text("0 0.05 0.2 0.3 0.2 0.3 0.8 0.05 0.8\n")
    (root / "val.txt").write_text("./b.png\n")
    (root / "data.yaml").write_text(YAML)
    found = told(made("yolo", root, tmp_path / "o.jsonl", split="train"))
    assert found == {"cat": [CAT], "dog": [DOG, [30, 10, 90, 50]]}
    monkeypatch.chdir(tmp_path)
    assert told(made("yolo", Path("set"), Path("r.jsonl"), split="train")) == found
    assert told(made("yolo", root / "data.yaml", tmp_path / "o.jsonl", split="val")) == {"cat": [CAT]}
    notes = convert("yolo", root, tmp_path / "o.jsonl").notes
    assert dict(notes) == {
        "polygons and turned boxes are read as the boxes around them": 2,
        "pictures without a region": 1,
    }
    (root / "data.yaml").write_text("nc: 2\nnames: [cat, dog]\n")  # supervision's
    assert len(made("yolo", root, tmp_path / "o.jsonl")) == 3
    (root / "data.yaml").unlink()
    (root / "obj.names").write_text("cat\ndog\n")  # darknet's
    assert len(made("yolo", root, tmp_path / "o.jsonl")) == 3
    labels.write_text("7 0.5 0.5 1 1\n")
    with pytest.raises(BadEntry, match=r"a\.txt:1: there is no name for class 7"):
        convert("yolo", root, tmp_path / "o.jsonl")
    labels.write_text("0 0.95 0.5 0.2 1\n")
    with pytest.raises(BadEntry, match="outside its image"):
        convert("yolo", root, tmp_path / "o.jsonl")
    assert convert("yolo", root, tmp_path / "o.jsonl", clip_boxes=True).samples == 2


def shape(label: str, kind: str, *points: list[float]) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, "mask": None}


def test_labelme_outlines_become_boxes_and_points_are_counted(tmp_path: Path) -> None:
    image = picture(tmp_path / "img" / "a.jpg", WIDE, HIGH)
    shapes = [shape("cat", "rectangle", CAT[2:], CAT[:2]), shape("dog", "polygon", [30, 10], [90, 10], [60, 50])]
    shapes += [shape("ball", "circle", [100, 50], [100, 60]), shape("tip", "point", [5, 5])]
    entry = {"version": "6.3.1", "flags": {}, "shapes": shapes, "imagePath": "..\\img\\a.jpg", "imageData": None}
    source = save(tmp_path / "json" / "a.json", entry | {"imageWidth": WIDE, "imageHeight": HIGH})
    said = {"cat": [CAT], "dog": [[30, 10, 90, 50]], "ball": [[90, 40, 110, 60]]}
    assert told(made("labelme", tmp_path / "json", tmp_path / "o.jsonl")) == said
    assert convert("labelme", source, tmp_path / "o.jsonl").notes["points have no box"] == 1
    data = base64.b64encode(image.read_bytes()).decode()
    image.unlink()
    with pytest.raises(BadEntry, match="no such file"):
        convert("labelme", source, tmp_path / "o.jsonl")
    save(source, entry | {"imageData": data, "imageWidth": WIDE, "imageHeight": HIGH})
    assert told(made("labelme", source, tmp_path / "o.jsonl")) == said


def result(kind: str, **value: Any) -> dict[str, Any]:
    labels = {kind: [value.pop("label")]} if "label" in value else {}
    return {
        "id": "x",
        "type": kind,
        "from_name": "l",
        "to_name": "image",
        "original_width": WIDE,
        "original_height": HIGH,
        "image_rotation": 0,
        "value": value | labels,
    }


def test_what_resembles_annotations_is_called_by_what_it_is(tmp_path: Path) -> None:
    found = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}]
    with pytest.raises(WeftError, match="is a list, as what a detector found is saved"):
        convert("auto", save(tmp_path / "results.json", found), tmp_path / "o.jsonl")
    panoptic = instances() | {"annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}]}
    with pytest.raises(BadEntry, match=r"is panoptic \(segments_info\): give the instances"):
        convert("coco", save(tmp_path / "panoptic.json", panoptic), tmp_path / "o.jsonl")
    label = {"x": 1, "y": 1, "width": 2, "height": 2, "rectanglelabels": ["cat"], "original_width": 9}
    with pytest.raises(BadEntry, match=r"has no annotations and no data \(JSON-MIN\?\): export it as JSON"):
        convert("auto", save(tmp_path / "min.json", [{"image": "a.jpg", "label": [label]}]), tmp_path / "o.jsonl")
    track = '<annotations><track id="0"><box frame="0" xtl="1" ytl="2" xbr="3" ybr="4"/></track></annotations>'
    (tmp_path / "video.xml").write_text(track)
    with pytest.raises(BadEntry, match="is of a video: export it as CVAT for images"):
        convert("auto", tmp_path / "video.xml", tmp_path / "o.jsonl")


def test_label_studio_turns_about_the_top_left_corner_in_pixels(tmp_path: Path) -> None:
    picture(tmp_path / "my cat-1.jpg", WIDE, HIGH)
    found = [result("rectanglelabels", x=5, y=20, width=25, height=60, rotation=0, label="cat")]
    # A quarter turn about (100, 20) of 40 x 60 pixels: to the left and below; in percent alone it would be 80 wide.
    found.append(result("rectanglelabels", x=50, y=20, width=20, height=60, rotation=90, label="dog"))
    found.append(result("ellipselabels", x=50, y=50, radiusX=10, radiusY=40, rotation=90, label="egg"))
    found.append(result("polygonlabels", points=[[15, 10], [45, 10], [30, 50]], label="kite"))
    found += [result("keypointlabels", x=1, y=1, width=0.5, label="tip"), result("choices", choices=["good"])]
    task = {"id": 3, "data": {"image": "/data/upload/1/0a1b2c3d-my%20cat-1.jpg"}, "meta": {}}
    task["annotations"] = [{"result": [], "was_cancelled": True}, {"result": found}, {"result": found}]
    source = save(tmp_path / "export.json", [task])
    said = {"cat": [CAT], "dog": [[40, 20, 100, 60]], "egg": [[60, 30, 140, 70]], "kite": [[30, 10, 90, 50]]}
    assert told(made("label-studio", source, tmp_path / "o.jsonl")) == said
    notes = convert("label-studio", source, tmp_path / "o.jsonl").notes
    assert notes["further annotations of a picture are not used"] == 1
    assert notes["keypointlabels results are not used"] == notes["choices results are not used"] == 1
    picture(tmp_path / "other.jpg", WIDE, HIGH)
    with pytest.raises(BadEntry, match="no such file"):  # only eight digits are the program's own
        other = task | {"data": {"image": "/data/upload/1/an-other.jpg"}}
        convert("label-studio", save(source, [other]), tmp_path / "o.jsonl")
    task["data"] = {"image": "/data/local-files/?d=pictures/my cat-1.jpg", "note": "a text beside it"}
    assert len(made("label-studio", save(source, [task]), tmp_path / "o.jsonl")) == 4
    save(source, [task, task | {"annotations": []}])
    report = convert("label-studio", source, tmp_path / "o.jsonl", on_bad="skip")
    assert dict(report.left_out) == {"no answer": 1}
    found[0]["image_rotation"] = 90
    with pytest.raises(BadEntry, match="was turned in the program"):
        convert("label-studio", save(source, [task]), tmp_path / "o.jsonl")


def test_cvat_turns_boxes_about_their_centre(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg", WIDE, HIGH)
    shapes = '<box label="cat" occluded="0" xtl="10.00" ytl="20.00" xbr="60.00" ybr="80.00" z_order="0"></box>'
    shapes += (
        '<box label="dog" xtl="80" ytl="40" xbr="120" ybr="60" rotation="90.0"><attribute name="x">1</attribute></box>'
    )
    shapes += '<polygon label="kite" points="30.00,10.00;90.00,10.00;60.00,50.00"></polygon>'
    shapes += (
        '<ellipse label="egg" cx="100" cy="50" rx="20" ry="10"></ellipse><points label="tip" points="1,1"></points>'
    )
    shapes += '<mask label="rug" rle="1" left="5" top="6" width="7" height="8"></mask>'
    source = tmp_path / "annotations.xml"
    head = "<annotations><version>1.1</version>"
    source.write_text(f'{head}<image id="0" name="a.jpg" width="{WIDE}" height="{HIGH}">{shapes}</image></annotations>')
    said = {"cat": [CAT], "dog": [[90, 30, 110, 70]], "kite": [[30, 10, 90, 50]], "egg": [[80, 40, 120, 60]]}
    assert told(made("cvat", source, tmp_path / "o.jsonl")) == said | {"rug": [[5, 6, 12, 14]]}
    notes = convert("cvat", source, tmp_path / "o.jsonl").notes
    assert notes["points have no box"] == 1
    assert notes["attributes are not used"] == notes["masks are read as the boxes around them"] == 1
    source.write_text(f'{head}<track id="0" label="cat"></track></annotations>')
    with pytest.raises(BadEntry, match="is of a video"):
        convert("cvat", source, tmp_path / "o.jsonl")


def test_both_questions_of_a_picture_can_be_asked(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", WIDE, HIGH)
    (tmp_path / "a.xml").write_text(voc(("cat", "11", "21", "60", "80"), ("cat", "1", "1", "20", "20")))
    found = made("voc", tmp_path, tmp_path / "o.jsonl", task="both")
    assert [c.messages[0].task.name for c in found] == ["detection", "identify", "identify"]
    assert len({c.id for c in found}) == 3
    line = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[1])
    assert line["messages"][0]["content"][2]["boxes"] == [[0.05, 0.2, 0.3, 0.8]]
