"""Converters of captions and of questions about covers, on small files in the layouts of their documentation."""

from pathlib import Path

import pytest

from converter_files import made, picture, save
from weft.conversation import WeftError
from weft.data.converters import BadEntry, convert

NAME = "COCO_train2014_000000000009.jpg"


def test_coco_captions_are_joined_with_the_names_of_their_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "train2014" / NAME)
    file = tmp_path / "annotations" / "captions_train2014.json"
    one = {"id": 5, "image_id": 9, "caption": "A Cup on a table.\n"}
    whole = {"info": {}, "annotations": [one, {**one, "id": 6, "caption": "Tea! "}]}
    save(file, whole | {"images": [{"id": 9, "file_name": NAME, "height": 48, "width": 64}]})  # in any order
    found = made("coco-captions", file, tmp_path / "o.jsonl", media=tmp_path)
    assert [(c.id, c.messages[0].task.name, c.messages[1].text) for c in found] == [
        ("5", "caption", "A Cup on a table."),
        ("6", "caption", "Tea!"),
    ]
    (one_clean, _) = made("coco-captions", file, tmp_path / "o.jsonl", media=tmp_path, clean=True)
    assert one_clean.messages[1].text == "a cup on a table"
    save(file, {"images": [], "annotations": [one]})
    with pytest.raises(BadEntry, match=r"annotations\[0\].image_id: 9 is not among the images"):
        convert("coco-captions", file, tmp_path / "o.jsonl", media=tmp_path)


def test_coco_captions_as_minigpt4_lists_them(tmp_path: Path) -> None:
    picture(tmp_path / "train2014" / NAME)
    entry = {"caption": "A cup.", "image": f"train2014/{NAME}", "image_id": "coco_9"}
    file = save(tmp_path / "coco_karpathy_train.json", [entry, {**entry, "caption": ["One.", "Two."]}])
    found = made("coco-captions", file, tmp_path / "o.jsonl")
    assert [c.messages[1].text for c in found] == ["A cup.", "One.", "Two."]
    assert len({c.id for c in found}) == 3
    save(file, [entry, {**entry, "caption": " "}])
    report = convert("coco-captions", file, tmp_path / "o.jsonl", on_bad="skip")
    assert report.samples == 1 and dict(report.left_out) == {"no answer": 1}


def test_textcaps_captions_and_its_test_file(tmp_path: Path) -> None:
    picture(tmp_path / "train_images" / "0054c9.jpg")
    picture(tmp_path / "test_images" / "0f.jpg")
    row = {"caption_id": 1, "image_id": "0054c9", "image_name": "0054c9", "image_path": "train/0054c9.jpg"}
    row |= {"caption_str": "A bottle that says BEER.", "reference_strs": ["a", "b"], "set_name": "train"}
    file = save(
        tmp_path / "TextCaps_0.1_train.json", {"dataset_type": "train", "data": [row, {**row, "caption_id": 2}]}
    )
    found = made("textcaps", file, tmp_path / "o.jsonl")
    assert [(c.id, c.messages[1].text) for c in found] == [(i, "A bottle that says BEER.") for i in ("1", "2")]
    test = save(tmp_path / "TextCaps_0.1_test.json", {"data": [{"image_id": "0f", "image_path": "test/0f.jpg"}]})
    (request,) = made("textcaps", test, tmp_path / "o.jsonl")
    assert request.id == "0f" and [m.role for m in request.messages] == ["user"]
    save(file, {"data": [{**row, "image_id": "gone", "image_path": "train/gone.jpg"}]})
    with pytest.raises(BadEntry, match=r"data\[0\].image: no such file: 'train_images/gone.jpg'"):
        convert("textcaps", file, tmp_path / "o.jsonl")


def test_ocrvqa_questions_of_one_split(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "0761183272.jpg")
    cover = {"imageURL": "http://ecx.images-amazon.com/images/I/61Y5cOdHJbL.jpg", "title": "Mom's Calendar", "split": 1}
    cover |= {
        "questions": ["Who wrote this book?", "What is the title?"],
        "answers": ["Sandra Boynton", "Mom's Calendar"],
    }
    file = save(tmp_path / "dataset.json", {"0761183272": cover, "0761183273": {**cover, "split": 3}})
    found = made("ocrvqa", file, tmp_path / "o.jsonl", split="train")
    assert [(c.id, c.messages[0].text, c.messages[1].text) for c in found] == [
        ("0761183272-0", "Who wrote this book?", "Sandra Boynton"),
        ("0761183272-1", "What is the title?", "Mom's Calendar"),
    ]
    notes = {"covers of other splits": 1, 'key "title" is not used': 1}
    assert convert("ocrvqa", file, tmp_path / "o.jsonl", split="train").notes == notes
    with pytest.raises(BadEntry, match="0761183273.image: no such file: '0761183273.jpg'"):
        convert("ocrvqa", file, tmp_path / "o.jsonl")
    with pytest.raises(WeftError, match="--split dev: OCR-VQA has train, val, test"):
        convert("ocrvqa", file, tmp_path / "o.jsonl", split="dev")
    for wrong, said in (({"answers": ["one"]}, "2 questions and 1 answers"), ({"split": 4}, "must be 1, 2 or 3")):
        save(file, {"0761183272": cover | wrong})
        with pytest.raises(BadEntry, match=said):
            convert("ocrvqa", file, tmp_path / "o.jsonl")
