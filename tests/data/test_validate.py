"""The check of sample files: counts what is there, lists every mistake, and decodes only when asked to."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from weft.conversation import SampleError
from weft.data.validate import LISTED_AFTER, Folders, Summary, validate


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """Two pictures and a clip of one second."""
    for i in range(2):
        Image.new("RGB", (40, 20), (i * 90, 0, 0)).save(tmp_path / f"{i}.png")
    soundfile.write(tmp_path / "a.wav", np.zeros(8000, np.float32), 8000)
    return tmp_path


def refer(image: str, *boxes: list[float], **keys: Any) -> dict[str, Any]:
    asked = [{"type": "image", "image": image}, {"type": "task", "task": "refer"}, {"type": "text", "text": "it"}]
    answer = [{"type": "box", "boxes": list(boxes), **keys}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def transcribe(clip: str, *words: tuple[str, float, float], **keys: Any) -> dict[str, Any]:
    asked = [{"type": "audio", "audio": clip}, {"type": "task", "task": "transcribe", **keys}]
    answer = [{"type": "words", "words": [{"text": t, "start": s, "end": e} for t, s, e in words]}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def write(path: Path, *samples: Any) -> Path:
    path.write_text("".join((s if isinstance(s, str) else json.dumps(s)) + "\n" for s in samples))
    return path


def check(*files: Path, **options: Any) -> tuple[Summary, list[SampleError]]:
    mistakes: list[SampleError] = []
    summary = validate(files, on_mistake=mistakes.append, **options)
    assert summary.mistakes == len(mistakes)
    return summary, mistakes


def test_what_is_in_the_files_is_counted(folder: Path) -> None:
    first = write(
        folder / "a.jsonl",
        {"id": "1", **refer("0.png", [0, 0, 1, 1], [0, 0, 0.5, 0.5])},
        {"id": "1", **refer("0.png", [0, 0, 10, 10], unit="pixel")},
        "",
        transcribe("a.wav", ("one", 0, 0.4), ("two", 0.5, 1), language="en"),
    )
    request = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]}
    second = write(folder / "b.jsonl", transcribe("a.wav", language=None), request)
    s, mistakes = check(first, second)
    assert not mistakes
    assert (s.samples, s.messages, s.turns, s.repeated_ids) == (5, 10, 4, 1)
    assert (s.images, s.image_files, s.clips, s.clip_files) == (2, 1, 2, 1)
    assert (s.box_answers, s.boxes, s.word_answers, s.words) == (2, 3, 2, 2)
    assert s.tasks == {"refer": 2, "transcribe": 2, "": 1}
    assert s.languages == {"en": 1, "to predict": 1}
    assert s.bytes == sum(
        len(line) for f in (first, second) for line in f.read_bytes().splitlines(True) if line.strip()
    )
    assert s.media_bytes == (folder / "0.png").stat().st_size + (folder / "a.wav").stat().st_size
    json.dumps(s.as_dict())


def test_every_sample_with_a_mistake_is_listed_and_the_others_are_counted(folder: Path) -> None:
    file = write(
        folder / "a.jsonl",
        refer("0.png", [0, 0, 1, 1]),
        refer("absent.png", [0, 0, 1, 1]),
        "{",
        refer("1.png", [0, 0, 1.02, 1]),  # 0.8 pixels of 40
        refer("1.png", [0, 0, 1.01, 1]),  # 0.4
        refer("1.png", [0, 0, 1, 1], label=3),
    )
    s, mistakes = check(file)
    assert s.samples == 2
    assert [(m.line, m.field) for m in mistakes] == [
        (2, "messages[0].content[0].image"),
        (3, None),
        (4, "messages[1].content[0].boxes[0]"),
        (6, "messages[1].content[0].label"),
    ]
    assert all(m.file == str(file) for m in mistakes)


def test_files_that_cannot_be_read_or_hold_nothing_are_mistakes_and_the_others_are_checked(folder: Path) -> None:
    empty, good = write(folder / "empty.jsonl"), write(folder / "good.jsonl", refer("0.png", [0, 0, 1, 1]))
    s, mistakes = check(empty, folder / "absent.jsonl", folder, good)
    assert s.samples == 1
    assert [m.problem.split(":")[0] for m in mistakes] == ["no samples in it", "no such file", "is a folder"]


def test_an_empty_media_file_is_a_mistake_of_the_line_that_first_names_it(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"")
    file = write(folder / "a.jsonl", refer("0.png", [0, 0, 1, 1]), *[refer("1.png", [0, 0, 1, 1])] * 2)
    for deep in (False, True):
        _, (mistake,) = check(file, deep=deep)
        assert mistake.line == 2 and "1.png" in mistake.problem and "empty" in mistake.problem


def test_only_the_deep_check_decodes(folder: Path) -> None:
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "b.wav").write_bytes(b"not a sound at all")
    file = write(folder / "a.jsonl", refer("1.png", [0, 0, 1, 1]), transcribe("b.wav"), transcribe("a.wav"))
    assert not check(file)[1]
    s, mistakes = check(file, deep=True, threads=2)
    assert s.samples == 3
    fields = sorted((m.line, m.field) for m in mistakes)
    assert fields == [(1, "messages[0].content[0].image"), (2, "messages[0].content[0].audio")]


def test_the_deep_check_compares_word_times_with_the_clip(folder: Path) -> None:
    file = write(folder / "a.jsonl", transcribe("a.wav", ("x", 0, 1.04)), transcribe("a.wav", ("x", 0.9, 1.2)))
    assert not check(file)[1]
    _, (mistake,) = check(file, deep=True)
    assert (mistake.line, mistake.field) == (2, "messages[1].content[0]")
    assert "1.2 s" in mistake.problem and "1.000 s" in mistake.problem


def test_a_data_url_needs_no_file_and_is_decoded_by_the_deep_check(folder: Path) -> None:
    file = write(folder / "a.jsonl", refer("data:image/png;base64,AAAA", [0, 0, 1, 1]))
    s, mistakes = check(file)
    assert not mistakes and s.images == 1 and s.image_files == 0
    assert len(check(file, deep=True)[1]) == 1


def test_many_questions_about_one_folder_are_answered_from_one_listing(folder: Path) -> None:
    exists = Folders()
    for _ in range(LISTED_AFTER + 1):
        assert exists(str(folder / "0.png")) and not exists(str(folder / "9.png")) and not exists(str(folder))
    (folder / "late.png").touch()
    assert exists(str(folder / "late.png"))  # what a listing lacks is asked for again


def test_progress_adds_up_to_the_lines_read(folder: Path) -> None:
    file = write(folder / "a.jsonl", *[refer("0.png", [0, 0, 1, 1])] * 5)
    steps: list[int] = []
    validate([file], on_progress=steps.append)
    assert len(steps) == 5 and sum(steps) == file.stat().st_size


def test_the_real_data_are_without_mistakes(shared: Path) -> None:
    s, mistakes = check(*sorted((shared / "real").glob("*/t*.jsonl")))
    assert not mistakes and s.samples == 1740


def test_a_document_over_many_lines_is_one_mistake(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps([refer("0.png", [0, 0, 1, 1])] * 3, indent=1))
    _, (mistake,) = check(folder / "a.json")
    assert mistake.line == 1 and "one sample a line" in mistake.problem


@pytest.mark.parametrize(
    "content",
    [b'[\n{"id": "1"},\n{"id": "2"}\n]', '{"id": "1"}\n{"id": "2"}\n'.encode("utf-16"), b"\x89PNG\r\n\x1a\n\0\n\xff\n"],
)
def test_a_file_of_something_else_is_one_mistake(tmp_path, content):
    (tmp_path / "x.jsonl").write_bytes(content)
    found = []
    assert validate([tmp_path / "x.jsonl"], on_mistake=found.append).mistakes == 1
    assert found[0].line == 1


def test_a_wrong_first_line_does_not_hide_the_others(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"id": "\xff"}\n{cut\n')
    assert validate([tmp_path / "x.jsonl"]).mistakes == 2
