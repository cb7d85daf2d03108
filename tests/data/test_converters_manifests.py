"""Speech that toolkits list: utterances that are parts of recordings, and word times on the clock of the part."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from converter_files import clip, lines, made, read
from weft.conversation import Conversation, WeftError, Words
from weft.data.converters import BadEntry, convert
from weft.media import load_audio

RATE = 8000


def recording(path: Path, *at: float, seconds: float = 20) -> Path:
    """Silence with a click at each of these seconds, one channel for each."""
    wave = np.zeros((int(seconds * RATE), len(at)), np.float32)
    for channel, second in enumerate(at):
        wave[int(second * RATE), channel] = 0.9
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE)
    return path


def heard(conversation: Conversation) -> tuple[float, float]:
    """Seconds of a sample's clip, and where in it the click is."""
    wave = load_audio(conversation.audios[0].source, RATE)
    return len(wave) / RATE, float(np.abs(wave).argmax() / RATE)


def zipped(path: Path, *values: Any) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(v) + "\n" for v in values).encode()))
    return path


def cut(start: float, duration: float, at: float, **more: Any) -> dict[str, Any]:
    """A cut as lhotse 1.33 writes it: words stay on the recording's clock when the cut moves."""
    said = {
        "id": "s1",
        "recording_id": "rec",
        "start": at - start,
        "duration": 4.0,
        "channel": 0,
        "language": "English",
    }
    said["text"] = "hello world"
    said["alignment"] = {"word": [["hello", 10.5, 0.4, 0.9], ["world", 11.2, 0.5, None], ["", 11.7, 0.1, None]]}
    sound = {"id": "rec", "sources": [{"type": "file", "channels": [0], "source": "rec.wav"}], "sampling_rate": RATE}
    made = {"id": "c", "start": start, "duration": duration, "channel": 0, "supervisions": [said], "recording": sound}
    return made | {"type": "MonoCut"} | more


def test_words_of_a_lhotse_cut_count_from_the_cut(tmp_path: Path) -> None:
    recording(tmp_path / "rec.wav", 10.5)
    source = zipped(tmp_path / "cuts.jsonl.gz", cut(9.0, 6.0, 10.0), cut(0, 20.0, 10.0))
    first, whole = made("lhotse", source, tmp_path / "o" / "s.jsonl")
    for one, seconds, shift in ((first, 6.0, 9.0), (whole, 20.0, 0.0)):
        (words,) = one.messages[1].parts
        assert isinstance(words, Words)
        assert [w.text for w in words.words] == ["hello", "world"]
        assert words.words[0].start == pytest.approx(10.5 - shift) and words.words[1].end == pytest.approx(11.7 - shift)
        assert heard(one) == (seconds, pytest.approx(10.5 - shift, abs=2 / RATE))
        assert one.messages[0].task.fields["language"] == "en"
    assert Path(whole.audios[0].source).resolve() == tmp_path / "rec.wav"


def test_what_lhotse_would_compute_is_a_bad_entry(tmp_path: Path) -> None:
    recording(tmp_path / "rec.wav", 10.5)
    fast, slow = cut(9.0, 6.0, 10.0), cut(9.0, 6.0, 10.0)
    fast["recording"]["transforms"] = [{"name": "Speed", "kwargs": {"factor": 1.1}}]
    slow["recording"]["transforms"] = [{"name": "Resample", "kwargs": {}}]
    mixed = {"id": "m", "tracks": [{"cut": cut(9.0, 6.0, 10.0), "offset": 0.0}], "type": "MixedCut"}
    source = lines(tmp_path / "cuts.jsonl", fast, mixed, cut(12.0, 6.0, 10.0), slow)
    report = convert("lhotse", source, tmp_path / "o.jsonl", on_bad="skip")
    left = {"changed when loaded": 1, "mixed cuts": 1, "cut supervision": 1}
    assert report.samples == 1 and dict(report.left_out) == left


def test_supervisions_of_lhotse_find_their_recordings_and_channels(tmp_path: Path) -> None:
    recording(tmp_path / "st.wav", 1.0, 2.0)
    folder = tmp_path / "manifests"
    folder.mkdir()
    said = {"id": "s2", "recording_id": "st", "start": 1.5, "duration": 2.0, "channel": 1, "text": "one channel"}
    sound = {"id": "st", "sources": [{"type": "file", "channels": [0, 1], "source": "st.wav"}], "channel_ids": [0, 1]}
    supervisions = zipped(folder / "x_supervisions_dev.jsonl.gz", said)
    with pytest.raises(BadEntry, match="st is not among the recordings"):
        convert("lhotse", supervisions, tmp_path / "o.jsonl", media=tmp_path)
    zipped(folder / "x_recordings_dev.jsonl.gz", sound)
    (one,) = made("lhotse", folder, tmp_path / "o.jsonl", media=tmp_path)
    assert one.messages[1].text == "one channel" and heard(one) == (2.0, pytest.approx(0.5, abs=2 / RATE))


def test_a_manifest_of_nemo_names_parts_of_its_files(tmp_path: Path) -> None:
    recording(tmp_path / "a.wav", 10.5)
    part = {"audio_filepath": "a.wav", "offset": 10.0, "duration": 2.0, "text": "tock", "lang": "en"}
    german = {"audio_filepath": "a.wav", "duration": 20.0, "text": "tick", "source_lang": "en", "target_lang": "de"}
    source = lines(tmp_path / "m.json", part, german, {"audio_filepath": "a.wav", "duration": None})
    first, second, asked = made("nemo", source, tmp_path / "o" / "s.jsonl")
    assert heard(first) == (2.0, pytest.approx(0.5, abs=2 / RATE)) and first.messages[1].text == "tock"
    assert second.messages[0].task.name == "translate"
    assert second.messages[0].task.fields == {"language": "en", "to": "de"}
    assert len(asked.messages) == 1  # without text it is a request
    timed = part | {"text": "<|0|> tock <|4|>"}
    with pytest.raises(BadEntry, match=r"m\.json:1: has times in a form weft does not read"):
        convert("nemo", lines(source, timed), tmp_path / "o.jsonl")
    with pytest.raises(BadEntry, match="is said to be at 19 to 21 s"):
        convert("nemo", lines(source, part | {"offset": 19.0}), tmp_path / "o.jsonl")


def test_a_data_folder_of_kaldi_is_read_by_its_segments(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    recording(folder / "rec.wav", 10.5)
    (folder / "wav.scp").write_text(
        "rec rec.wav\npiped flac -c -d -s rec.wav |\nst sph2pipe -f wav st.sph |\nark x.ark:13\n"
    )
    segments = "s1 rec 10.0 14.0\ns2 piped 10.25 -1\ns3 st 0 1\ns4 ark 0 1\ns5 rec 1 2\ns6 nowhere 1 2\n"
    (folder / "segments").write_text(segments)
    (folder / "text").write_text("s1 hello world\ns2 again\ns3 x\ns4 x\ns6 x\nelse x\n")
    (folder / "utt2lang").write_text("s1 en\n")
    (folder / "utt2spk").write_text("s1 A\n")
    with pytest.raises(BadEntry, match="is a command, and weft runs none: sph2pipe"):
        convert("kaldi", folder, tmp_path / "o" / "s.jsonl")
    report = convert("espnet", folder, tmp_path / "o" / "s.jsonl", on_bad="skip")
    bad = {"recording from a command": 1, "recording in an archive": 1, "no answer": 1, "media file is missing": 1}
    assert dict(report.left_out) == bad
    assert dict(report.notes) == {'file "utt2spk" is not used': 1, "texts without a recording": 1}
    one, two = read(tmp_path / "o" / "s.jsonl")
    assert one.messages[1].text == "hello world" and one.messages[0].task.fields == {"language": "en"}
    assert heard(one) == (4.0, pytest.approx(0.5, abs=2 / RATE))
    assert heard(two) == (9.75, pytest.approx(0.25, abs=2 / RATE))
    (folder / "segments").unlink()
    (folder / "text").unlink()
    (folder / "wav.scp").write_text("rec rec.wav\n")
    (asked,) = made("kaldi", folder, tmp_path / "o.jsonl")
    assert asked.id == "rec" and len(asked.messages) == 1
    with pytest.raises(WeftError, match=r"holds no wav\.scp"):
        convert("kaldi", tmp_path, tmp_path / "o.jsonl")


def test_common_voice_sentences_are_read_as_meant(tmp_path: Path) -> None:
    clip(tmp_path / "clips" / "cv_1.mp3")
    head = "client_id\tpath\tsentence\tup_votes\tlocale\n"
    rows = ('"""Yes"" he said"', '"Quoted whole."', 'A "word" and \\n.')
    source = tmp_path / "train.tsv"
    source.write_text(head + "".join(f"x\tcv_1.mp3\t{row}\t2\tzh-CN\n" for row in rows))
    found = made("common-voice", source, tmp_path / "o.jsonl")
    assert [c.messages[1].text for c in found] == ['"Yes" he said', '"Quoted whole."', 'A "word" and \\n.']
    assert found[0].messages[0].task.fields == {"language": "zh"}
    assert len(made("common-voice", tmp_path, tmp_path / "o.jsonl", split="train")) == 3
    with pytest.raises(WeftError, match="name a table in it"):
        convert("common-voice", tmp_path, tmp_path / "o.jsonl")


def test_fleurs_has_two_spellings(tmp_path: Path) -> None:
    folder = tmp_path / "en_us"
    clip(folder / "audio" / "dev" / "12.wav")
    (folder / "dev.tsv").write_text("904\t12.wav\tA Cat, 2 dogs.\ta cat two dogs\ta | c\t8000\tMALE\n")
    (one,) = made("fleurs", folder, tmp_path / "o.jsonl")
    assert one.messages[1].text == "A Cat, 2 dogs." and one.messages[0].task.fields == {"language": "en"}
    (one,) = made("fleurs", folder / "dev.tsv", tmp_path / "o.jsonl", clean=True)
    assert one.messages[1].text == "a cat two dogs"
    (folder / "dev.tsv").write_text("904\t12.wav\tA Cat\n")
    with pytest.raises(BadEntry, match="has 3 columns, a row has 7"):
        convert("fleurs", folder, tmp_path / "o.jsonl")
