"""Converters of speech and sound, on small files in the layouts their documentation gives."""

from pathlib import Path

import pytest

from converter_files import clip, made, read, save
from weft.conversation import Words
from weft.data.converters import BadEntry, convert
from weft.data.converters.textgrid import read_textgrid


def test_librispeech_lines_name_the_recordings_beside_them(tmp_path: Path) -> None:
    folder = tmp_path / "LibriSpeech" / "dev-clean" / "84" / "121123"
    clip(folder / "84-121123-0000.flac")
    (folder / "84-121123.trans.txt").write_text("84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT\n")
    with pytest.raises(BadEntry, match=r"trans.txt:2: audio: no such file"):
        convert("librispeech", tmp_path, tmp_path / "o.jsonl")
    report = convert("librispeech", tmp_path / "LibriSpeech", tmp_path / "o.jsonl", on_bad="skip")
    assert dict(report.left_out) == {"media file is missing": 1}
    (one,) = read(tmp_path / "o.jsonl")
    assert one.id == "84-121123-0000" and one.messages[1].text == "GO DO YOU HEAR"
    assert one.messages[0].task.fields == {"language": "en"}


def test_a_line_in_another_encoding_is_named_and_lines_after_it_are_read(tmp_path: Path) -> None:
    clip(tmp_path / "84" / "84-0.flac")
    clip(tmp_path / "84" / "84-1.flac")
    (tmp_path / "84" / "84.trans.txt").write_bytes("84-0 caf\xe9\r\n84-1 the\r\n".encode("latin-1"))
    with pytest.raises(BadEntry, match=r"84\.trans\.txt:1: is not UTF-8"):
        convert("librispeech", tmp_path, tmp_path / "o.jsonl")
    report = convert("librispeech", tmp_path, tmp_path / "o.jsonl", on_bad="skip")
    assert dict(report.left_out) == {"is not UTF-8": 1}
    assert [one.messages[1].text for one in read(tmp_path / "o.jsonl")] == ["the"]


def test_aishell_finds_the_split_of_a_recording(tmp_path: Path) -> None:
    root = tmp_path / "data_aishell"
    clip(root / "wav" / "train" / "S0002" / "BAC009S0002W0122.wav")
    clip(root / "wav" / "test" / "S0764" / "BAC009S0764W0121.wav")
    (root / "transcript").mkdir()
    text = "BAC009S0002W0122 而 对 楼市 成交\nBAC009S0764W0121 甚至 出现\nBAC009S0003W0001 无\n"
    (root / "transcript" / "aishell_transcript_v0.8.txt").write_text(text, encoding="utf-8")
    report = convert("aishell", root, tmp_path / "o.jsonl", on_bad="skip", split="test")
    assert dict(report.left_out) == {"media file is missing": 1} and report.notes["utterances of other splits"] == 1
    assert read(tmp_path / "o.jsonl")[0].messages[1].text == "甚至 出现"
    convert("aishell", root, tmp_path / "o.jsonl", on_bad="skip", clean=True)
    assert [c.messages[1].text for c in read(tmp_path / "o.jsonl")] == ["而对楼市成交", "甚至出现"]


def test_covost_tables_of_both_kinds(tmp_path: Path) -> None:
    clip(tmp_path / "clips" / "common_voice_fr_1.mp3")
    split = tmp_path / "covost_v2.fr_en.train.tsv"
    split.write_text(
        'path\tsentence\ttranslation\tclient_id\ncommon_voice_fr_1.mp3\tDit "oui\tSays "yes\tabc\n', encoding="utf-8"
    )
    (one,) = made("covost", split, tmp_path / "o.jsonl")  # the clips stand beside it
    assert one.messages[1].text == 'Says "yes' and one.messages[0].task.fields == {"language": "fr", "to": "en"}
    notes = convert("covost", split, tmp_path / "o.jsonl", media=tmp_path / "clips").notes
    assert dict(notes) == {'key "sentence" is not used': 1, 'key "client_id" is not used': 1}
    (one,) = made("covost", split, tmp_path / "o.jsonl", media=tmp_path / "clips", task="transcribe")
    assert one.messages[1].text == 'Dit "oui' and one.messages[0].task.fields == {"language": "fr"}
    released = tmp_path / "covost_v2.zh-CN_en.tsv"
    rows = "common_voice_fr_1\tA\ttrain_covost\ncommon_voice_fr_1\tB\tdev\n"
    released.write_text("path\ttranslation\tsplit\n" + rows)
    (one,) = made("covost", released, tmp_path / "o.jsonl", media=tmp_path / "clips", split="train")
    assert one.messages[1].text == "A" and one.messages[0].task.fields == {"language": "zh", "to": "en"}
    released.write_text("path\ttranslation\tsplit\ncommon_voice_fr_1\tA\n")
    with pytest.raises(BadEntry, match="tsv:2: has 2 columns, the first line names 3"):
        convert("covost", released, tmp_path / "o.jsonl", media=tmp_path / "clips")


def test_clotho_gives_a_sample_for_each_caption(tmp_path: Path) -> None:
    clip(tmp_path / "development" / "Distorted AM Radio noise.wav")
    table = tmp_path / "clotho_captions_development.csv"
    heads = ",".join(f"caption_{i}" for i in range(1, 6))
    table.write_text(f'file_name,{heads}\nDistorted AM Radio noise.wav,"A muddled noise, far off.",B,C,D,E.\n')
    found = made("clotho", table, tmp_path / "o.jsonl", media=tmp_path / "development")
    assert [c.messages[1].text for c in found] == ["A muddled noise, far off.", "B", "C", "D", "E."]
    assert found[0].messages[0].task.fields == {"language": "en", "style": "clotho"}
    assert found[4].id == "Distorted AM Radio noise.wav#5"


LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.0
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.0
        intervals: size = 4
        intervals [1]:
            xmin = 0.0
            xmax = 0.31
            text = ""
        intervals [2]:
            xmin = 0.31
            xmax = 0.62
            text = "hello"
        intervals [3]:
            xmin = 0.62
            xmax = 1.5
            text = "say ""hi"" 3"
        intervals [4]:
            xmin = 1.5
            xmax = 2.0
            text = "<eps>"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.0
        intervals: size = 1
        intervals [1]:
            xmin = 0.0
            xmax = 2.0
            text = "spn"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
2
<exists>
3
"TextTier"
"marks"
0
2
1
1.25
"here"
"IntervalTier"
"anna - words"
0
2
1
1
2
"b"
"IntervalTier"
"bert - words"
0
2
2
0
0.5
"a"
0.5
2
""
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_textgrids_give_word_times(tmp_path: Path, encoding: str) -> None:
    aligned = tmp_path / "aligned" / "anna"
    aligned.mkdir(parents=True)
    (aligned / "one.TextGrid").write_text(LONG, encoding=encoding)
    (aligned / "two.TextGrid").write_text(SHORT, encoding=encoding)
    clip(tmp_path / "corpus" / "anna" / "one.wav", 2)
    clip(tmp_path / "corpus" / "anna" / "two.flac", 2)
    options = {"media": tmp_path / "corpus", "language": "en"}
    one, two = made("mfa", tmp_path / "aligned", tmp_path / "o.jsonl", **options)
    assert one.id == "anna/one" and one.messages[0].task.fields == {"language": "en", "timestamps": True}
    (words,) = one.messages[1].parts
    assert isinstance(words, Words)
    assert [(w.text, w.start, w.end) for w in words.words] == [("hello", 0.31, 0.62), ('say "hi" 3', 0.62, 1.5)]
    assert [(w.text, w.start, w.end) for w in two.messages[1].parts[0].words] == [("a", 0, 0.5), ("b", 1, 2)]
    notes = convert("mfa", tmp_path / "aligned", tmp_path / "o.jsonl", **options).notes
    assert dict(notes) == {'tier "phones" is not used': 1, 'tier "marks" is not used': 1}
    assert [(t.name, len(t.spans)) for t in read_textgrid(aligned / "one.TextGrid")] == [("words", 4), ("phones", 1)]


def test_words_past_the_end_of_their_clip_are_a_bad_entry(tmp_path: Path) -> None:
    (tmp_path / "a.TextGrid").write_text(LONG)
    clip(tmp_path / "a.wav", 0.5)
    with pytest.raises(BadEntry, match=r"a word ends at .* its clip at 0\.500 s"):
        convert("mfa", tmp_path, tmp_path / "o.jsonl")
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(BadEntry, match="is not a sound") as caught:
        convert("mfa", tmp_path, tmp_path / "o.jsonl")
    assert caught.value.reason == "media file cannot be read"


def test_only_an_empty_label_and_eps_are_silence_among_words(tmp_path: Path) -> None:
    spans = ["", "sil", "sp", "SIL", "<eps>", "spa"]
    rows = "".join(f'{i}\n{i + 1}\n"{label}"\n' for i, label in enumerate(spans))
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n6\n<exists>\n1\n"IntervalTier"\n"words"\n0\n6\n'
    (tmp_path / "a.TextGrid").write_text(f"{head}{len(spans)}\n{rows}")
    clip(tmp_path / "a.wav", 6)
    (one,) = made("mfa", tmp_path, tmp_path / "o.jsonl")
    found = [(w.text, w.start) for w in one.messages[1].parts[0].words]
    assert found == [("sil", 1), ("sp", 2), ("SIL", 3), ("spa", 5)]


def test_textgrids_that_are_not_whole_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.TextGrid").write_text(LONG.replace("hello", "<unk>"))
    (tmp_path / "b.TextGrid").write_text(LONG[:400])
    (tmp_path / "c.TextGrid").write_text(LONG.replace('"words"', '"utt"'))
    (tmp_path / "d.TextGrid").write_text("Praat chronological text file")
    (tmp_path / "e.TextGrid").write_text(LONG)
    clip(tmp_path / "e.wav", 2)
    report = convert("mfa", tmp_path, tmp_path / "o.jsonl", on_bad="skip")
    assert report.samples == 1 and sum(report.left_out.values()) == 4
    assert report.left_out["word without text"] == report.left_out["no word tier"] == 1


def test_qwen_audio_lines_that_are_no_chat_are_said(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav")
    turn = "<|im_start|>user\\nAudio 1:<audio>a.wav</audio>\\nwhat?<|im_end|>\\n<|im_start|>assistant\\n"
    (tmp_path / "in.txt").write_text(f"{turn}rain\nplain text\n{turn}at <|0.10|> or <|0.20|><|im_end|>\n")
    report = convert("qwen-audio", tmp_path / "in.txt", tmp_path / "o.jsonl", on_bad="skip")
    assert report.samples >= 1 and report.left_out.total() == 3 - report.samples
    first = read(tmp_path / "o.jsonl")[0]
    assert first.messages[0].text == "what?" and first.messages[1].text == "rain" and len(first.audios) == 1


def test_llasm_spans_are_where_the_clips_stand(tmp_path: Path) -> None:
    for name in ("0.mp3", "1.mp3"):
        clip(tmp_path / name)
    span = "<au_start>" + "<au_patch>" * 64 + "<au_end>"
    talk = [{"from": "human", "value": f"Transcribe.\n{span}"}, {"from": "gpt", "value": "Hi."}]
    entry = {
        "instruction": "S",
        "conversations": [*talk, {"from": "human", "value": span}],
        "audios": ["0.mp3", "1.mp3"],
    }
    asked = {"conversations": [{"from": "human", "value": span}, {"from": "gpt", "value": ""}], "audio": "1.mp3"}
    first, second = made("llasm", save(tmp_path / "in.json", [entry, asked]), tmp_path / "o.jsonl")
    assert [m.role for m in first.messages] == ["system", "user", "assistant", "user"] and len(first.audios) == 2
    assert first.messages[1].text == "Transcribe.\n" and second.answer is None
    with pytest.raises(BadEntry, match="has 2 audios and tags for 1"):
        bad = {**asked, "audio": ["0.mp3", "1.mp3"]}
        convert("llasm", save(tmp_path / "in.json", [bad]), tmp_path / "o.jsonl")
