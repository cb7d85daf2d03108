"""Converters: real files give the samples they hold, what does not fit is said, the rest is kept as it is."""

import json
from pathlib import Path

import pytest

from converter_files import clip, lines, made, picture, read, save
from weft.conversation import Box, Text, WeftError, Words
from weft.data.converters import CONVERTERS, BadEntry, Report, convert
from weft.data.converters.base import blip_caption
from weft.dialects import Plain, Special, get_dialect


@pytest.fixture(scope="session")
def layouts(shared: Path) -> Path:
    return shared / "real" / "layouts"


# ------------------------------------------------------------------------------------------------------- real files


def test_minigpt_refcoco_boxes_become_fractions_of_the_stated_size(layouts: Path, tmp_path: Path) -> None:
    source = layouts / "minigpt_refcoco_testA_head.json"
    raw = json.loads(source.read_text())
    for entry in raw:
        picture(tmp_path / "coco" / f"{entry['img_id'][:27]}.jpg", entry["width"], entry["height"])
    found = made("minigpt-refcoco", source, tmp_path / "out" / "a.jsonl", media=tmp_path / "coco", task="both")
    assert len(found) == 2 * len(raw)
    for entry, refer, identify in zip(raw, found[::2], found[1::2], strict=True):
        x, y, w, h = entry["bbox"]
        right = [x / entry["width"], y / entry["height"], (x + w) / entry["width"], (y + h) / entry["height"]]
        (box,) = refer.messages[1].parts
        assert isinstance(box, Box) and box.label == entry["sents"]
        assert box.boxes[0] == pytest.approx(right, abs=1e-9)
        assert refer.messages[0].text == entry["sents"] and refer.messages[0].task.name == "refer"
        assert identify.messages[1].text == entry["sents"] and identify.messages[0].task.name == "identify"
        assert identify.messages[0].parts[2].boxes == box.boxes
    line = json.loads((tmp_path / "out" / "a.jsonl").read_text().splitlines()[0])
    assert line["messages"][0]["content"][0]["image"] == "../coco/COCO_train2014_000000581282.jpg"
    assert len({c.id for c in found}) == len(found)


def test_a_picture_of_another_shape_than_annotated_is_no_place_for_its_boxes(layouts: Path, tmp_path: Path) -> None:
    picture(tmp_path / "COCO_train2014_000000581282.jpg", 480, 640)
    with pytest.raises(BadEntry, match=r"\[0\].*annotated at 640 x 480 .* is 480 x 640"):
        convert("minigpt-refcoco", layouts / "minigpt_refcoco_testA_head.json", tmp_path / "a.jsonl", media=tmp_path)
    picture(tmp_path / "COCO_train2014_000000581282.jpg", 320, 240)  # a smaller copy has the same fractions
    source = layouts / "minigpt_refcoco_testA_head.json"
    report = convert("minigpt-refcoco", source, tmp_path / "a.jsonl", media=tmp_path, on_bad="skip")
    assert report.samples == 2 and dict(report.left_out) == {"media file is missing": 21}


def test_qwen_audio_text_becomes_turns_and_its_times_words(layouts: Path, shared: Path, tmp_path: Path) -> None:
    source = layouts / "qwen_audio_sft_sample.txt"
    names = ("1272-128104-0000.flac", "sound_effect.flac", "dog_bark_y1589.mp3")
    for name in names:
        clip(tmp_path / "assets" / "audio" / name, 4)
    found = made("qwen-audio", source, tmp_path / "a.jsonl", media=tmp_path)
    assert [len(c.messages) for c in found] == [3, 5, 3]
    assert [len(c.audios) for c in found] == [1, 1, 2]
    assert found[0].messages[0].text == "You are a helpful assistant."
    assert found[0].messages[1].text == "what does the person say?"
    words = found[1].messages[4].parts[-1]
    assert isinstance(words, Words)
    assert [(w.text, w.start, w.end) for w in words.words] == [("middle classes", 2.33, 3.26)]
    assert found[2].messages[1].text == "what is the difference of the two recordings?"
    # Written again by the dialect, the words, times and turns of the file come back.
    dialect = get_dialect("qwen_audio", {"space_after_number": True})
    for conversation, line in zip(found, source.read_text().splitlines(), strict=True):
        pieces = dialect.render(conversation)
        said = "".join(p.text if isinstance(p, Plain) else p.token if isinstance(p, Special) else "" for p in pieces)
        wanted = line.replace("\\n", "\n").replace("<|im_end|><|im_start|>", "<|im_end|>\n<|im_start|>")
        for name in names:
            wanted = wanted.replace(f"assets/audio/{name}", "")
        wanted = wanted.replace("<audio></audio>", "")
        assert said.rstrip("\n").removesuffix("<|im_end|>") == wanted.removesuffix("<|im_end|>")


def test_llama_factory_tags_are_where_the_media_stand(layouts: Path, tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        picture(tmp_path / "mllm_demo_data" / name)
    for name in ("1.mp3", "2.wav", "3.flac"):
        clip(tmp_path / "mllm_demo_data" / name)
    found = made("llama-factory", layouts / "llama_factory_mllm_demo.json", tmp_path / "a.jsonl", media=tmp_path)
    assert len(found) == 6
    raw = json.loads((layouts / "llama_factory_mllm_demo.json").read_text())
    for entry, conversation in zip(raw, found, strict=True):
        for message, parsed in zip(entry["messages"], conversation.messages, strict=True):
            assert parsed.text == message["content"].replace("<image>", "")
    assert [type(p).__name__ for p in found[0].messages[2].parts] == ["Text", "Image"]  # "What are they doing?<image>"
    heard = made("llama-factory", layouts / "llama_factory_mllm_audio_demo.json", tmp_path / "b.jsonl", media=tmp_path)
    assert [len(c.audios) for c in heard] == [1, 1, 1]
    assert heard[2].messages[1].text.endswith("glad to welcome his gospel.")


def test_video_is_counted_and_never_dropped_silently(layouts: Path, tmp_path: Path) -> None:
    source = layouts / "llama_factory_mllm_video_audio_demo.json"
    with pytest.raises(BadEntry, match=r"json: \[0\].videos: holds video"):
        convert("llama-factory", source, tmp_path / "a.jsonl")
    with pytest.raises(WeftError, match="gives no sample, so nothing is written .left out: 3 video"):
        convert("llama-factory", source, tmp_path / "a.jsonl", on_bad="skip")
    assert not list(tmp_path.iterdir())
    clip(tmp_path / "1.wav")
    mixed = json.loads(source.read_text())
    mixed.append({"messages": [{"role": "user", "content": "hm<audio>?"}, {"role": "assistant", "content": "!"}]})
    mixed[-1]["audios"] = ["1.wav"]
    report = convert("llama-factory", save(tmp_path / "m.json", mixed), tmp_path / "a.jsonl", on_bad="skip")
    assert (report.samples, dict(report.left_out)) == (1, {"video": 3})


def test_ms_swift_query_response_files(layouts: Path, tmp_path: Path) -> None:
    picture(tmp_path / "demo.jpeg")
    with pytest.raises(BadEntry, match=r"jsonl:1: image: .* is on the network: download it"):
        convert("ms-swift", layouts / "ms_swift_multi_modal_1.jsonl", tmp_path / "a.jsonl")
    found = made("ms-swift", layouts / "ms_swift_multi_modal_1.jsonl", tmp_path / "a.jsonl", media=tmp_path)
    assert [len(c.images) for c in found] == [1, 2, 0]
    assert [m.text for m in found[1].messages] == ["hello", "123", "eeeee", "fffff"]
    assert [type(p).__name__ for p in found[1].messages[2].parts] == ["Image", "Image", "Text"]
    assert [m.text for m in found[2].messages] == ["AAAAA", "BBBBB", "CCCCC", "DDDDD", "EEEEE", "FFFFF"]
    for name, count in (("ms_swift_multi_modal_2.jsonl", 3), ("ms_swift_multi_modal_3.jsonl", 1)):
        report = convert("ms-swift", layouts / name, tmp_path / "b.jsonl", media=tmp_path)
        assert list(report.notes.values()) == [3]  # no tag says where: in front, as ms-swift does, and said
        last = read(tmp_path / "b.jsonl")[2]
        assert len(last.images) == count and last.images == tuple(last.messages[0].parts[:count])


# ------------------------------------------------------------------------------------------------------ the command


def test_the_command_converts_reports_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from weft import cli

    picture(tmp_path / "a.jpg")
    entry = {"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}]}
    entry["conversations"].append({"from": "gpt", "value": "It."})
    source = save(tmp_path / "in.json", [entry, {**entry, "image": "b.jpg"}])
    out = tmp_path / "o.jsonl"
    base = ["data", "convert", "llava", str(source), "-o", str(out)]
    assert cli.run(base) == 2 and not out.exists()
    assert "in.json: [1].image: no such file: 'b.jpg'" in capsys.readouterr().err
    assert cli.run([*base, "--on-bad-sample", "skip"]) == 0
    said = capsys.readouterr()
    assert "1 sample" in said.out and "1 entry: media file is missing" in said.err
    assert cli.run([*base, "--on-bad-sample", "skip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == {"media file is missing": 1}
    assert cli.run(["data", "convert", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in CONVERTERS)
    assert cli.run(["data", "convert", "lava", str(source), "-o", str(out)]) == 2
    assert 'did you mean "llava"?' in capsys.readouterr().err
    assert cli.run([*base, "--split", "train"]) == 2
    assert "has no use for --split" in capsys.readouterr().err
    assert cli.run(["data", "convert", "llava", str(source), "-o", str(source)]) == 2
    assert "written over what is read" in capsys.readouterr().err


def test_every_reader_says_where_its_layout_is_from_and_whether_it_was_verified() -> None:
    for name, converter in CONVERTERS.items():
        said = converter.read.__doc__ or ""
        assert ("verified on" in said) == bool(converter.verified), name
        assert "not verified" in said or converter.verified, name


# ---------------------------------------------------------------------------------------------------- shared duties


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    entry = {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "."}]}
    source = lines(tmp_path / "in.jsonl", entry, entry, {**entry, "conversations": []})
    out = tmp_path / "o.jsonl"
    out.write_text("before")
    with pytest.raises(BadEntry, match="in.jsonl:3: conversations"):
        convert("llava", source, out)
    assert out.read_text() == "before" and {p.name for p in tmp_path.iterdir()} == {"a.jpg", "in.jsonl", "o.jsonl"}


def test_text_is_kept_as_it_is_unless_the_originals_cleanup_is_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    question = 'Is "THIS" (really)   a dog?! ' + "word " * 60
    entry = {"image": "a.jpg", "question": question, "answer": ["Yes.", "no", "Yes."], "question_id": 5}
    source = save(tmp_path / "in.json", [entry])
    (kept,) = made("vqav2", source, tmp_path / "o.jsonl")
    assert kept.messages[0].text == question and kept.messages[1].text == "Yes."
    (clean,) = made("vqav2", source, tmp_path / "o.jsonl", clean=True)
    assert clean.messages[0].text.startswith("is this really a dog? word") and clean.messages[1].text == "yes"
    assert len(clean.messages[0].text.split(" ")) == 50
    assert [c.messages[1].text for c in made("vqav2", source, tmp_path / "o.jsonl", answers="every")] == entry["answer"]
    assert blip_caption("def f(x): return x*2") == "def f x return x 2"  # the specification's example


def test_bad_json_names_its_line_and_lines_after_it_are_read(tmp_path: Path) -> None:
    entry = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    good = json.dumps(entry)
    source = tmp_path / "in.jsonl"
    source.write_text(f"{good}\n{{bad\n\n{good}\n")
    with pytest.raises(BadEntry, match="in.jsonl:2: invalid JSON at column 2"):
        convert("llava", source, tmp_path / "o.jsonl")
    report = convert("llava", source, tmp_path / "o.jsonl", on_bad="skip")
    assert (report.samples, dict(report.left_out)) == (2, {"is not JSON": 1})
    source = tmp_path / "in.json"
    source.write_text(f"[{good},\n{good},\n{{bad}}]")
    with pytest.raises(WeftError, match="in.json:3: invalid JSON"):
        convert("llava", source, tmp_path / "o.jsonl", on_bad="skip")
    source.write_text(f"[{good},\n{good}")
    with pytest.raises(WeftError, match=r"in.json:2: invalid JSON: .*the file ends"):
        convert("llava", source, tmp_path / "o.jsonl")


def test_large_json_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weft.data.converters import jsonfile

    monkeypatch.setattr(jsonfile, "CHUNK", 7)
    value = [{"a": i, "b": ['ä\n"x', -1.5e-3, None, True], "c": {}} for i in range(50)]
    source = save(tmp_path / "a.json", {"info": {"x": [1, [2]]}, "other": [1, 2], "empty": [], "list": value, "n": 12})
    found = list(jsonfile.items(source, "list"))
    assert [e.value for e in found] == value and found[3].name == "list[3]"
    assert [e.value for e in jsonfile.members(source)] == [{"x": [1, [2]]}, [1, 2], [], value, 12]
    assert list(jsonfile.items(source, "empty")) == []
    with pytest.raises(WeftError, match='has no list "absent"'):
        list(jsonfile.items(source, "absent"))
    source.write_text("[1, 234567890123, 3]")
    assert [e.value for e in jsonfile.entries(source)] == [1, 234567890123, 3]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    import tracemalloc

    entry = {"conversations": [{"from": "human", "value": "a" * 9000}, {"from": "gpt", "value": "b" * 9000}]}
    peaks = []
    for count in (250, 1000):
        source = save(tmp_path / "a.json", [entry] * count)
        tracemalloc.start()
        convert("llava", source, tmp_path / "o.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2 and peaks[1] < 16e6  # the file itself has 18 MB


def test_a_limit_takes_the_first(tmp_path: Path) -> None:
    entry = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    source = save(tmp_path / "a.json", [{**entry, "id": i} for i in range(9)])
    report: Report = convert("llava", source, tmp_path / "o.jsonl", limit=4)
    assert report.samples == 4 and [c.id for c in read(tmp_path / "o.jsonl")] == ["0", "1", "2", "3"]
    assert all(isinstance(p, Text) for c in read(tmp_path / "o.jsonl") for p in c.parts())


def test_the_layout_may_be_told_from_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from weft import cli

    picture(tmp_path / "a.jpg")
    table = tmp_path / "list.csv"
    table.write_text("file_name,caption\na.jpg,A cat.\n")
    assert cli.run(["data", "convert", "auto", str(table), "-o", str(tmp_path / "o.jsonl")]) == 0
    assert "1 sample of imagefolder" in capsys.readouterr().out
    for command in ("validate", "stats"):
        assert cli.run(["data", command, str(table)]) == 2
        assert f"weft data convert imagefolder {table} -o samples.jsonl" in capsys.readouterr().err.replace("\n", "")
    table.write_text("a,b\n1,2\n")
    assert cli.run(["data", "convert", "auto", str(table), "-o", str(tmp_path / "o.jsonl")]) == 2
    assert "which layout it has cannot be told from it" in capsys.readouterr().err
