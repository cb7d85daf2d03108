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
    assert (s.samples, s.messages, s.turns, s.repeated_ids) == (5, 10, [1, 1, 1, 1, 0], 1)
    assert (s.images, s.image_files, s.clips, s.clip_files) == (2, 1, 2, 1)
    said = s.as_dict()
    assert [said[name] for name in ("turns", "box_answers", "boxes", "word_answers", "words")] == [4, 2, 3, 2, 2]
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


FORMATS = [("wav", "PCM_16"), ("wav", "ULAW"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", None)]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("ending", "subtype"), FORMATS)
def test_words_that_end_after_their_clip_are_named_from_its_header(
    tmp_path: Path, ending: str, subtype: str | None, deep: bool
) -> None:
    clip = tmp_path / f"a.{ending}"
    soundfile.write(clip, np.random.default_rng(0).normal(0, 0.1, 8000), 8000, subtype=subtype)
    if ending == "flac" and not deep:  # the body cannot be decoded: its header is enough
        clip.write_bytes(clip.read_bytes()[:-1000])
    file = write(
        tmp_path / "a.jsonl",
        transcribe(f"a.{ending}", ("x", 0, 1.04)),
        transcribe(f"a.{ending}", ("x", 0.9, 1.2)),
        transcribe(f"a.{ending}", ("x", 0.9, 1), ("y", 3600, 7200)),
    )
    _, mistakes = check(file, deep=deep)
    assert [(m.line, m.field, m.problem) for m in mistakes] == [
        (2, "messages[1].content[0]", "a word ends at 1.2 s, its clip at 1.000 s"),
        (3, "messages[1].content[0]", "a word ends at 7200 s, its clip at 1.000 s"),
    ]


@pytest.mark.parametrize("deep", [False, True])
def test_words_are_compared_with_the_clip_that_they_name(folder: Path, deep: bool) -> None:
    soundfile.write(folder / "long.wav", np.zeros(24000, np.float32), 8000)
    sample = transcribe("a.wav", ("x", 0, 2.5))
    sample["messages"][0]["content"].insert(1, {"type": "audio", "audio": "long.wav"})
    words = sample["messages"][1]["content"][0]
    lines = []
    for clip, end in ((1, 2.5), (0, 2.5), (1, 3.5)):
        words["words"][0]["end"], words["audio"] = end, clip
        lines.append(json.dumps(sample))
    _, mistakes = check(write(folder / "a.jsonl", *lines), deep=deep)
    assert [(m.line, m.problem[-7:]) for m in mistakes] == [(2, "1.000 s"), (3, "3.000 s")]


def test_a_clip_whose_header_does_not_tell_is_left_to_the_deep_check(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000, np.float32), 8000, subtype="IMA_ADPCM")
    file = write(tmp_path / "a.jsonl", transcribe("a.wav", ("x", 0, 2)))
    assert [len(check(file, deep=deep)[1]) for deep in (False, True)] == [0, 1]


def test_what_is_left_out_or_guessed_is_a_warning_once_a_file(folder: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(folder / "two.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(folder / "flat.png")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(folder / "dark.png")
    file = write(
        folder / "a.jsonl", *[refer(f, [0, 0, 1, 1]) for f in ("two.gif", "0.png", "dark.png", "two.gif", "flat.png")]
    )
    warnings: list[SampleError] = []
    s, mistakes = check(file, deep=True, on_warning=warnings.append)
    assert not mistakes and s.warnings == 2
    assert [(m.line, m.field) for m in warnings] == [
        (1, "messages[0].content[0].image"),
        (3, "messages[0].content[0].image"),
    ]
    assert "two.gif: holds 2 pictures" in warnings[0].problem and "dark.png: its samples" in warnings[1].problem
    assert validate([file]).warnings == 0


def test_words_on_an_mp3_that_does_not_state_its_delay_are_a_warning(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", np.zeros(16000, np.float32), 16000)
    data = (tmp_path / "a.mp3").read_bytes()
    tag = data.index(b"Xing") + 8 + 112
    (tmp_path / "b.mp3").write_bytes(data[:tag] + bytes(36) + data[tag + 36 :])
    file = write(
        tmp_path / "a.jsonl",
        transcribe("b.mp3"),
        transcribe("a.mp3", ("x", 0, 1)),
        transcribe("b.mp3", ("x", 0, 1)),
        transcribe("b.mp3", ("x", 0, 1)),
    )
    warnings: list[SampleError] = []
    assert not check(file, deep=True, on_warning=warnings.append)[1]
    ((line, problem),) = [(w.line, w.problem) for w in warnings]
    assert line == 3 and "b.mp3: times may be late by 36 ms" in problem


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


def test_a_box_without_area_is_a_mistake_and_among_others_a_warning(folder: Path) -> None:
    good, thin = [0.1, 0.1, 0.5, 0.5], [0.2, 0.3, 0.2, 0.6]
    file = write(folder / "a.jsonl", refer("0.png", good, thin, thin), refer("0.png", thin), refer("0.png", good))
    warnings: list[SampleError] = []
    s, mistakes = check(file, on_warning=warnings.append)
    assert [(m.line, m.field) for m in mistakes] == [(2, "messages[1].content[0].boxes[0]")]
    assert [(w.line, w.field) for w in warnings] == [(1, f"messages[1].content[0].boxes[{i}]") for i in (1, 2)]
    assert s.warnings == 2 and all("has no area" in w.problem for w in warnings)


def test_the_real_data_are_without_mistakes(shared: Path) -> None:
    s, mistakes = check(*sorted((shared / "real").glob("*/t*.jsonl")))
    assert not mistakes and s.samples == 1740


def test_a_document_over_many_lines_is_one_mistake(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps([refer("0.png", [0, 0, 1, 1])] * 3, indent=1))
    _, (mistake,) = check(folder / "a.json")
    assert mistake.line == 1 and "one sample a line" in mistake.problem


@pytest.mark.parametrize(
    "content",
    [b'[\n{"id": "1"},\n{"id": "2"}\n]', '{"id": "1"}\n{"id": "2"}\n'.encode("utf-16"), b"\x89PNG\r\n\x1a\n\0\n\xff\n"]
    + [b"name,text\na,caf\xe9\nb,c\n", b'[{"id": "1"},\n{"id": "2"}]\n', b"PAR1\x15\n\xff\n"],
)
def test_a_file_of_something_else_is_one_mistake(tmp_path, content):
    (tmp_path / "x.jsonl").write_bytes(content)
    found = []
    assert validate([tmp_path / "x.jsonl"], on_mistake=found.append).mistakes == 1
    assert found[0].line in (1, None)  # None: it is said of the file


def test_a_wrong_first_line_does_not_hide_the_others(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"id": "\xff"}\n{cut\n')
    assert validate([tmp_path / "x.jsonl"]).mistakes == 2
