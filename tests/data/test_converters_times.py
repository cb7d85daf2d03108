"""Recordings with times in the layouts of other tools; the small files are as those tools were seen to write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from converter_files import clip, made, read, save
from weft.conversation import Conversation, Words
from weft.data.converters import BadEntry, convert
from weft.media import load_audio


def times(conversation: Conversation) -> list[tuple[str, float, float]]:
    (words,) = conversation.messages[1].parts
    assert isinstance(words, Words)
    return [(w.text, w.start, w.end) for w in words.words]


def click(path: Path, at: float, seconds: float, rate: int = 8000) -> Path:
    """Silence with one full sample."""
    wave = np.zeros(int(seconds * rate), np.float32)
    wave[int(at * rate)] = 0.9
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)
    return path


def segment(start: float, end: float, *words: tuple[Any, ...], text: str | None = None, **more: Any) -> dict[str, Any]:
    said = [dict(zip(("word", "start", "end"), w, strict=False)) for w in words]
    return {"start": start, "end": end, "text": text or "".join(w[0] for w in words), "words": said} | more


HELLO = segment(0.0, 1.2, (" Hello", 0.1, 0.5), (" world.", 0.5, 1.2), id=0, tokens=[1, 2], avg_logprob=-0.2)


@pytest.mark.parametrize(
    "doc, language",
    [
        ({"text": " Hello world.", "segments": [HELLO], "language": "en"}, {"language": "en"}),  # whisper
        ({"segments": [HELLO], "word_segments": HELLO["words"], "language": "en"}, {"language": "en"}),  # WhisperX
        ([HELLO], {}),  # faster-whisper's segments, dumped
        (
            {"task": "transcribe", "language": "english", "duration": 2.0, "text": "x", "words": HELLO["words"]},
            {"language": "en"},
        ),  # OpenAI's verbose_json
    ],
)
def test_words_of_a_recogniser_keep_their_times(doc: Any, language: dict[str, str], tmp_path: Path) -> None:
    clip(tmp_path / "talk.wav", 2)
    source = save(tmp_path / "talk.json", doc)
    (one,) = made("whisper", source, tmp_path / "o.jsonl")
    assert times(one) == [("Hello", 0.1, 0.5), ("world.", 0.5, 1.2)]
    assert one.messages[0].task.fields == language | {"timestamps": True}
    assert any("is not used" in note for note in convert("whisper", source, tmp_path / "o.jsonl").notes)


def test_whisper_cpp_counts_in_milliseconds(tmp_path: Path) -> None:
    clip(tmp_path / "talk.wav", 2)
    said = [{"timestamps": {"from": "00:00:00,310", "to": "00:00:01,500"}, "offsets": {"from": 310, "to": 1500}}]
    doc = {"result": {"language": "en"}, "transcription": [said[0] | {"text": " And so."}]}
    (one,) = made("whisper", save(tmp_path / "talk.wav.json", doc), tmp_path / "o.jsonl")
    assert times(one) == [("And so.", 0.31, 1.5)] and one.messages[0].task.fields["language"] == "en"


def test_a_word_without_times_leaves_its_segment_one_span(tmp_path: Path) -> None:
    clip(tmp_path / "talk.wav", 3)
    number = segment(1.4, 2.4, ("It's", 1.4, 1.8), ("2014.",), text=" It's 2014.")
    source = save(tmp_path / "talk.json", {"segments": [HELLO, number]})
    (one,) = made("whisper", source, tmp_path / "o.jsonl")
    assert times(one)[2:] == [("It's 2014.", 1.4, 2.4)]
    notes = convert("whisper", source, tmp_path / "o.jsonl").notes
    assert notes["segments with a word that has no times: one span each"] == 1


def test_segments_become_clips_whose_words_count_from_their_start(tmp_path: Path) -> None:
    click(tmp_path / "in" / "talk.flac", 9.5, 12)
    doc = {"segments": [segment(9.0, 11.0, (" tock", 9.5, 10.0)), segment(11.0, 11.5, text=" plain")]}
    doc["segments"][1]["words"] = []
    found = made("whisper", save(tmp_path / "in" / "talk.json", doc), tmp_path / "o" / "s.jsonl", task="segments")
    assert times(found[0]) == [("tock", 0.5, 1.0)] and found[1].messages[1].text == "plain"
    wave = load_audio(found[0].audios[0].source, 8000)
    assert len(wave) == 16000 and np.abs(wave).argmax() == 4000
    line = json.loads((tmp_path / "o" / "s.jsonl").read_text().splitlines()[0])
    assert line["messages"][0]["content"][0]["audio"] == "s_media/talk-0.flac"
    doc["segments"][1] |= {"start": 12.5, "end": 13.0}
    save(tmp_path / "in" / "talk.json", doc)
    report = convert("whisper", tmp_path / "in", tmp_path / "o" / "s.jsonl", task="segments", on_bad="skip")
    assert report.samples == 1 and dict(report.left_out) == {"stretch outside its recording": 1}


SRT = """1
00:00:00,500 --> 00:00:01,500
<i>Hello</i> you
5 < 6 &amp; {\\an8}more

2
00:00:01,500 --> 00:00:01,900

00:00:02,000 --> 00:00:02,500
[SPEAKER_00]: no number

and a blank line within
"""


def test_subrip_keeps_all_its_text(tmp_path: Path) -> None:
    clip(tmp_path / "talk.wav", 3)
    source = tmp_path / "talk.en.srt"
    source.write_bytes(("\ufeff" + SRT.replace("\n", "\r\n")).encode())
    (one,) = made("subtitles", source, tmp_path / "o.jsonl")
    said = [("Hello you 5 < 6 &amp; more", 0.5, 1.5), ("no number and a blank line within", 2.0, 2.5)]
    assert times(one) == said and one.messages[0].task.fields["language"] == "en"
    notes = convert("subtitles", source, tmp_path / "o.jsonl").notes
    assert dict(notes) == {"speakers are not used": 1, "segments without text": 1}


def test_whispers_table_counts_in_milliseconds(tmp_path: Path) -> None:
    clip(tmp_path / "talk.wav", 3)
    source = tmp_path / "talk.tsv"
    source.write_text("start\tend\ttext\n0\t1240\tHello there.\n1240\t2500\tBye.\n")  # as its writer has it
    (one,) = made("auto", source, tmp_path / "o.jsonl")
    assert times(one) == [("Hello there.", 0.0, 1.24), ("Bye.", 1.24, 2.5)]
    source.write_text("start\tend\ttext\n0.5\t1.5\tHello.\n")
    with pytest.raises(BadEntry, match="line 2: start and end are whole milliseconds"):
        convert("subtitles", source, tmp_path / "o.jsonl")


def test_one_recording_in_two_forms_is_one_sample(tmp_path: Path) -> None:
    clip(tmp_path / "in" / "talk.WAV", 3)  # as recorders name it
    (tmp_path / "in" / "talk.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello.\n")
    (tmp_path / "in" / "talk.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHello.\n")
    report = convert("subtitles", tmp_path / "in", tmp_path / "o.jsonl")
    assert report.samples == 1 and dict(report.notes) == {"files .vtt beside a .srt of their name are not used": 1}
    assert len(made("subtitles", tmp_path / "in" / "talk.vtt", tmp_path / "o.jsonl")) == 1


VTT = """WEBVTT - title
Kind: captions
Language: de

NOTE a comment

STYLE
::cue { color: red }

intro
00:00.500 --> 00:01.500 align:start position:0%
<v Roger Bingham>We are &amp; in <c.red>New</c> York

100:00:03.000 --> 100:00:05.000
<00:00:03.500><c> hello</c><00:00:04.000><c> world</c>
"""


def test_webvtt_marks_are_taken_out_and_counted(tmp_path: Path) -> None:
    source = tmp_path / "talk.vtt"
    source.write_text(VTT)
    clip(tmp_path / "talk.mp3", 2)
    with pytest.raises(BadEntry, match=r"a word ends at 360005 s, its clip at 2\.\d+ s"):
        convert("subtitles", source, tmp_path / "o.jsonl")
    source.write_text(VTT.replace("100:00:0", "00:0"))
    clip(tmp_path / "talk.mp3", 6)
    (one,) = made("subtitles", source, tmp_path / "o.jsonl")
    assert times(one) == [("We are & in New York", 0.5, 1.5), ("hello world", 3.0, 5.0)]
    assert one.messages[0].task.fields["language"] == "de"
    notes = convert("subtitles", source, tmp_path / "o.jsonl").notes
    assert dict(notes) == {"speakers are not used": 1, "times inside cues are not used": 2}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("1\n00:00:01,000 --> 00:00:02,000\nok\n\n2\n00:00:03,000 -> 00:00:04,000\nbad\n", "is no line of times"),
        (
            "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n\n00:01.000 --> 00:02.000\na\n",
            "piece of a stream",
        ),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\na\n\nb\n", "belongs to no cue"),
        (
            "WEBVTT\n\n00:00.100 --> 00:00.500\n<u>Hello</u> world.\n\n00:00.500 --> 00:01.200\nHello <u>world.</u>\n",
            "repeats its text",
        ),
        ("WEBVTT\n\n", "holds no text with times"),
        ("1\n00:00:02,000 --> 00:00:01,000\nback\n", "ends .1 s. before it starts"),
    ],
)
def test_a_subtitle_that_cannot_be_told_is_named(text: str, problem: str, tmp_path: Path) -> None:
    clip(tmp_path / "talk.wav", 3)
    source = tmp_path / f"talk.{'vtt' if text.startswith('W') else 'srt'}"
    source.write_text(text)
    with pytest.raises(BadEntry, match=problem):
        convert("subtitles", source, tmp_path / "o.jsonl")


def test_ctm_stm_and_rttm_are_gathered_by_recording(tmp_path: Path) -> None:
    for name in ("talk", "other"):
        clip(tmp_path / f"{name}.wav", 4)
    rows = "talk 1 0.75 0.25 there 0.9\ntalk 1 0.5 0.25 hello 0.9\ntalk 1 1.0 0.5 <eps> 1\nother A 1 .5 yes\n"
    (tmp_path / "a.ctm").write_text(";; made by hand\n" + rows)
    one, two = made("ctm", tmp_path / "a.ctm", tmp_path / "o.jsonl", language="en")
    assert times(one) == [("hello", 0.5, 0.75), ("there", 0.75, 1.0)] and times(two) == [("yes", 1.0, 1.5)]
    segments = "talk 1 alice 0.5 2.25 <o,f0,female> hello there world\ntalk 1 bob 3.0 4.0 \n"
    (tmp_path / "a.stm").write_text(segments + "talk 1 x 2.25 3.0 IGNORE_TIME_SEGMENT_IN_SCORING\n")
    report = convert("stm", tmp_path / "a.stm", tmp_path / "o.jsonl")
    assert dict(report.notes) == {"segments without text": 2}
    assert times(read(tmp_path / "o.jsonl")[0]) == [("hello there world", 0.5, 2.25)]
    turns = "talk 1 2.000 1.500 <NA> <NA> bob_smith <NA> <NA>\nSPEAKER talk 1 0.500 1.750 <NA> <NA> alice <NA> <NA>\n"
    words = "LEXEME talk 1 0.5 0.25 hello lex alice 0.9 <NA>\n"
    (tmp_path / "a.rttm").write_text("SPEAKER " + turns + words)
    (one,) = made("rttm", tmp_path / "a.rttm", tmp_path / "o.jsonl")
    assert times(one) == [("alice", 0.5, 2.25), ("bob_smith", 2.0, 3.5)] and one.messages[0].task.name == "speaker"
    (one,) = made("rttm", tmp_path / "a.rttm", tmp_path / "o.jsonl", task="transcribe")
    assert times(one) == [("hello", 0.5, 0.75)]


def test_a_line_of_a_timeline_that_does_not_fit_is_named(tmp_path: Path) -> None:
    clip(tmp_path / "talk.wav", 4)
    (tmp_path / "a.ctm").write_text("talk 1 0.5 0.25 hello\ntalk 1 x\ntalk 1 late 0.1 word\n")
    with pytest.raises(BadEntry, match=r"a\.ctm:2: has 3 fields, and needs 5"):
        convert("ctm", tmp_path / "a.ctm", tmp_path / "o.jsonl")
    report = convert_all(tmp_path / "a.ctm", tmp_path)
    assert "line 3: a time is a number of seconds, this is 'late'" in str(report[1])


def convert_all(source: Path, folder: Path) -> list[BadEntry]:
    found: list[BadEntry] = []
    with pytest.raises(ValueError, match="gives no sample"):
        convert("ctm", source, folder / "o.jsonl", on_bad="skip", on_bad_entry=found.append)
    return found


def test_labels_of_audacity(tmp_path: Path) -> None:
    clip(tmp_path / "talk.ogg".replace("ogg", "flac"), 4)
    source = tmp_path / "talk.txt"
    source.write_text("0.100000\t0.900000\tgood morning\n\\\t80.0\t7000.0\n1,5\t2,5\t[[SPEAKER_00]]all\n3.0\t3.0\t\n")
    (one,) = made("audacity", source, tmp_path / "o.jsonl")
    assert times(one) == [("good morning", 0.1, 0.9), ("all", 1.5, 2.5)]
    notes = convert("audacity", source, tmp_path / "o.jsonl").notes
    assert dict(notes) == {
        "ranges of frequency are not used": 1,
        "segments without text": 1,
        "speakers are not used": 1,
    }


def eaf(origin: str, *tiers: str) -> str:
    slots = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="ts{t}" TIME_VALUE="{t}" />' for t in (500, 900, 1500, 1600, 2000, 2100, 2200)
    )
    media = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/data/talk.wav" RELATIVE_MEDIA_URL="./talk.wav"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ANNOTATION_DOCUMENT VERSION="2.8" FORMAT="2.8"><HEADER>'
        f'{media} MIME_TYPE="audio/x-wav"{origin} /></HEADER><TIME_ORDER>{slots}<TIME_SLOT TIME_SLOT_ID="tsx" />'
        f"</TIME_ORDER>{''.join(tiers)}</ANNOTATION_DOCUMENT>"
    )


def tier(name: str, *spans: tuple[object, object, str], parent: str = "") -> str:
    held = "".join(
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{i}" TIME_SLOT_REF1="ts{a}" TIME_SLOT_REF2="ts{b}">'
        f"<ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>"
        for i, (a, b, text) in enumerate(spans)
    )
    return f'<TIER TIER_ID="{name}"{parent and f" PARENT_REF={json.dumps(parent)}"}>{held}</TIER>'


def test_elan_tiers_are_on_the_clock_of_their_recording(tmp_path: Path) -> None:
    clip(tmp_path / "talk.wav", 4)
    tiers = [tier("A", (500, 1500, "hallo welt")), tier("B", (1600, 2000, "ja"), (2100, 2200, ""))]
    tiers.append(tier("A-words", (500, 900, "hallo"), (900, 1500, "welt"), parent="A"))
    source = tmp_path / "session.eaf"
    source.write_text(eaf(' TIME_ORIGIN="250"', *tiers))
    (one,) = made("elan", source, tmp_path / "o.jsonl")
    assert times(one) == [("hallo welt", 0.75, 1.75), ("ja", 1.85, 2.25)]  # the recording begins 250 ms before
    notes = convert("elan", source, tmp_path / "o.jsonl").notes
    assert dict(notes) == {'tier "A-words" is not used': 1, "segments without text": 1}
    source.write_text(eaf("", *tiers))
    (one,) = made("elan", source, tmp_path / "o.jsonl", tier="A-words")
    assert times(one) == [("hallo", 0.5, 0.9), ("welt", 0.9, 1.5)]
    source.write_text(eaf("", tier("A", (500, "x", "hallo"))))
    with pytest.raises(BadEntry, match="annotation a0 has no time at one of its ends"):
        convert("elan", source, tmp_path / "o.jsonl")
    source.write_text("<ANNOTATION_DOCUMENT>")
    with pytest.raises(BadEntry, match="is no XML"):
        convert("elan", source, tmp_path / "o.jsonl")
