"""Recordings to transcripts: any length, every format, nothing cut."""

import io
import re

import numpy as np
import openai
import pytest
import soundfile
from serving_kit import NAME, audio, request, user, wav

from marks import slow
from weft.conversation import Word, Words
from weft.dialects.chatml import ChatML
from weft.generation.reply import Reply
from weft.generation.windows import WindowPrompt
from weft.serving.subtitles import Segment, segments, srt, vtt


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="any", max_retries=0)


def words(*timed):
    return Reply("text", "raw", (Words(tuple(Word(*w) for w in timed), 0),), 1, True)


WINDOWS = [WindowPrompt(None, 0.0, 28.4), WindowPrompt(None, 28.4, 30.0)]


def test_a_long_recording_is_heard_whole_window_by_window(served, client, monkeypatch):
    """Each window says one word at its own moment, and where it begins is told from the others."""

    def parse(self, text, conversation):
        wave, rate = conversation.audios[0].source
        return [Words((Word(f"w{len(wave)}", 0.1, len(wave) / rate),), 0)]

    monkeypatch.setattr(ChatML, "parse", parse)
    answer = client.audio.transcriptions.create(
        file=("a.wav", wav(11.3)), model=NAME, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert answer.duration == pytest.approx(11.3)
    ends = [0.0, *(w.end for w in answer.words)]
    assert len(answer.words) >= 6 and ends[-1] == pytest.approx(11.3, abs=0.02)
    assert [w.start for w in answer.words] == pytest.approx([e + 0.1 for e in ends[:-1]], abs=0.02)
    assert sum(int(w.word[1:]) for w in answer.words) == round(11.3 * 16000)  # every sample once
    assert [s.end for s in answer.segments][-1] == ends[-1]


def test_a_transcript_is_what_the_model_says(served, client):
    data = wav(5.1, 7)
    task = {"type": "task", "task": "transcribe", "language": None, "timestamps": False}
    own = [{"role": "user", "content": [{"type": "audio", "audio": data}, task]}]
    said = served.model.chat(own, max_new_tokens=32).text
    answer = client.audio.transcriptions.create(file=("a.wav", data), model=NAME)
    assert answer.text == said
    assert client.audio.transcriptions.create(file=("a.wav", data), model=NAME, response_format="text").strip() == said
    raw = open_file(served, data, response_format="json", language="en")
    assert raw.headers["weft-windows"] == "3" and int(raw.headers["weft-cut-windows"]) <= 3
    assert raw.json()["usage"] == {"type": "duration", "seconds": 5.1}


def open_file(served, data, path="transcriptions", **form):
    request = {"model": NAME, **form}
    return served.http.post(f"/v1/audio/{path}", data=request, files={"file": ("a.wav", data)})


def recorded(container, codec, wave, rate=48000):
    """A clip ``[frames]`` as a browser (WebM) or a phone (M4A) records it."""
    av = pytest.importorskip("av", reason="needs weftlm[media]")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, len(wave), 960):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 960], format="fltp", layout="mono")
            frame.rate, frame.pts = rate, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["wav", "mp3", "webm", *(slow(k) for k in ("flac", "ogg", "m4a"))])
def test_every_kind_of_recording_that_clients_send_is_heard_as_by_the_model(served, client, kind):
    wave = (0.3 * np.sin(np.arange(48000) / 20) * np.linspace(0, 1, 48000)).astype(np.float32)
    if kind in ("webm", "m4a"):
        data = recorded(*{"webm": ("webm", "libopus"), "m4a": ("ipod", "aac")}[kind], wave)
    else:
        soundfile.write(file := io.BytesIO(), wave, 48000, format=kind.upper())
        data = file.getvalue()
    said = served.model.chat([{"role": "user", "content": [{"type": "audio", "audio": data}]}], max_new_tokens=12).text
    content = user(audio(data, kind))
    whole = client.chat.completions.create(model=NAME, messages=content, max_tokens=12, temperature=0)
    assert whole.choices[0].message.content == said
    written = client.audio.transcriptions.create(file=(f"a.{kind}", data), model=NAME, response_format="verbose_json")
    assert written.duration == pytest.approx(1.0, abs=0.06)


def test_a_translation_is_asked_in_windows_too(served, client):
    data = wav(5.1, 8)
    task = {"type": "task", "task": "translate", "language": None, "to": "en"}
    own = [{"role": "user", "content": [{"type": "audio", "audio": data}, task]}]
    reply = served.model.chat(own, max_new_tokens=32)
    assert reply.windows == 3
    assert client.audio.translations.create(file=("a.wav", data), model=NAME).text == reply.text


@pytest.mark.slow
def test_the_same_through_chat_streams_in_the_order_of_the_clip(served, client):
    task = {"type": "task", "task": "transcribe", "language": "en", "timestamps": False}
    own = [{"role": "user", "content": [{"type": "audio", "audio": wav(9.0, 9)}, task]}]
    reply, asked = served.model.chat(own, max_new_tokens=12), user(audio(wav(9.0, 9)), task)
    assert reply.windows >= 5
    assert client.chat.completions.create(**request(asked)).choices[0].message.content == reply.text
    chunks = client.chat.completions.create(**request(asked, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks).strip() == reply.text


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_have_times(served, form):
    answer = open_file(served, wav(3.0), response_format=form)
    assert answer.status_code == 200
    assert answer.text.startswith("WEBVTT") == (form == "vtt")
    times = re.findall(r"(\d\d:\d\d:\d\d[.,]\d{3}) --> (\d\d:\d\d:\d\d[.,]\d{3})", answer.text)
    assert times and all(a < b for a, b in times)


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"prompt": "names"}, "prompt"),
        ({"stream": "true"}, "stream"),
        ({"response_format": "docx"}, "response_format"),
        ({"timestamp_granularities[]": "word"}, "response_format"),
        ({"timestamp_granularities[]": "letter", "response_format": "verbose_json"}, "timestamp_granularities[]"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"model": "whisper-1"}, "model"),
        ({"speed": "2"}, "speed"),
        ({"language": "klingon"}, "language"),
        ({"language": "xx"}, "language"),
    ],
)
def test_what_is_not_offered_is_refused_by_its_name(served, form, param):
    answer = open_file(served, wav(0.3), **form)
    assert answer.status_code in (400, 404) and answer.json()["error"]["param"] == param


def test_what_is_no_recording_is_refused(served):
    for data in (b"", b"text", wav(0.5)[:60]):
        assert open_file(served, data).status_code == 400
    assert served.http.post("/v1/audio/transcriptions", data={"model": NAME}).status_code == 400
    text = served.http.post("/v1/audio/transcriptions", files={"model": (None, NAME), "file": (None, "a.wav")})
    assert text.status_code == 400 and "as a file" in text.json()["error"]["message"]


def test_segments_end_at_pauses_sentences_and_before_they_are_too_long():
    reply = words(
        ("One.", 0.0, 0.4), ("Two", 0.5, 0.9), ("three", 3.0, 3.5), *((f"word{i}", 4.0 + i, 4.9 + i) for i in range(9))
    )
    made = segments([reply, words(("late", 0.1, 0.6))], WINDOWS)
    assert [s.text for s in made][:3] == ["One.", "Two", "three word0 word1 word2 word3 word4 word5"]
    assert made[0] == Segment(0.0, 0.4, "One.") and made[-1] == Segment(28.5, 29.0, "late")
    assert all(s.end - s.start <= 7.0 for s in made)
    untimed = Reply("just text", "raw", (), 1, True)
    assert segments([untimed, untimed], WINDOWS) == [Segment(0.0, 28.4, "just text"), Segment(28.4, 58.4, "just text")]


def test_subtitle_files_are_written_as_players_read_them():
    shown = [Segment(0.0, 1.5, "a <b> & c"), Segment(3599.9996, 3661.25, "late")]
    assert srt(shown) == ("1\n00:00:00,000 --> 00:00:01,500\na <b> & c\n\n2\n01:00:00,000 --> 01:01:01,250\nlate\n\n")
    assert vtt(shown).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt;b&gt; &amp; c\n\n")
