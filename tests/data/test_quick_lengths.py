"""Timed words are counted as they would be written."""

from dataclasses import asdict

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from training_world import picture, speech, text, tiny_spec, write
from weft.conversation import Audio, Conversation, Message, Task, Text, WeftError, Word, Words
from weft.data.kept_lengths import KeptLengths
from weft.data.lengths import measure
from weft.data.quick_lengths import QuickProcessor
from weft.data.source import open_source
from weft.media.source import DECODED_BYTES, set_decoded_bytes
from weft.models.plan import plan

ANY = st.sampled_from(["one", "two", "zwei", "你好", "<|im_end|>", "<|t0.1|>", "a b", " one", "🙂", "x" * 70, "\n"])
TIMES = st.sampled_from([0.0, 0.004, 0.31, 1.0, 3.99, 3.994, 3.996, 4.0, 4.3, 8.0, 70.0])
ASKED = st.sampled_from(
    [
        Task("transcribe", {"timestamps": True}),
        Task("transcribe", {"timestamps": True, "language": "en"}),
        Task("transcribe", {"timestamps": False}),
        Task("transcribe"),
        Task("locate"),
        None,
    ]
)


@st.composite
def spoken(draw: st.DrawFn, text: st.SearchStrategy = ANY) -> Words:
    times = st.tuples(TIMES, TIMES).map(sorted)
    found = [Word(draw(text), *draw(times)) for _ in range(draw(st.integers(0, 4)))]
    return Words(tuple(found), draw(st.sampled_from([0, None])))


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """A clip, here or there among texts, and its words, alone or not."""
    messages = [Message("system", (Text(draw(ANY)),))] if draw(st.booleans()) else []
    clip = Audio(np.zeros(draw(st.sampled_from([8000, 16000, 64000, 100000])), np.float32))
    task = draw(ASKED)
    for turn in range(draw(st.integers(1, 2))):
        parts = [clip] if not turn else []
        parts[draw(st.integers(0, len(parts))) :] += [Text(draw(ANY))] if turn or draw(st.booleans()) else []
        parts += [task] if task else []
        answer = (draw(spoken()),)
        if not draw(st.integers(0, 3)):
            answer = draw(st.permutations([*answer, Text(draw(ANY))]))
        messages += [Message("user", tuple(parts)), Message("assistant", tuple(answer), draw(st.booleans()))]
    return Conversation(tuple(messages))


def processor(dialect="chatml", **switches):
    spec = tiny_spec()
    made = plan(audio=spec.audio, language=spec.language, dialect={"name": dialect})[1]
    return made.with_switches(**switches) if switches else made


@pytest.fixture(scope="module")
def counted():
    """Each way of writing, with what it remembers of the examples before."""
    narrow = processor(window_seconds=4.0)
    ways = [narrow, narrow.with_switches(coordinates="text"), narrow.with_switches(system="Listen.")]
    return [QuickProcessor(way) for way in (*ways, *map(processor, ("chatml", "qwen_audio", "llasm")))]


def outcome(processor, conversation):
    try:
        rendered = processor.render(conversation)
    except WeftError as error:
        return str(error)
    return len(rendered.ids), [(span.modality, span.length) for span in rendered.spans]


@examples(150)
@given(conversation=conversations())
def test_words_are_counted_as_they_would_be_written(counted, conversation):
    for quick in counted:
        assert outcome(quick, conversation) == outcome(quick.processor, conversation)


def test_what_is_asked_alike_is_written_once():
    written = []

    class Watched:
        def __init__(self, processor):
            self.processor = processor

        def length(self, conversation):
            written.append(conversation)
            return self.processor.length(conversation)

        def __getattr__(self, name):
            return getattr(self.processor, name)

    quick = QuickProcessor(Watched(processor()))
    for number in range(5):
        words = tuple(Word(f"word{k}", k * 0.1, k * 0.1 + 0.05) for k in range(number + 1))
        asked = (Audio(np.zeros(8000 * (number + 1), np.float32)), Task("transcribe", {"timestamps": True}))
        quick.render(Conversation((Message("user", asked), Message("assistant", (Words(words, 0),)))))
    assert len(written) == 1


@pytest.mark.parametrize("limit", [DECODED_BYTES, 25_000])
def test_a_first_run_finds_what_is_found_without_keeping(limit, tmp_path):
    path = write(tmp_path / "data", 24, (speech, picture, text))
    wave, rate = soundfile.read(path.with_name("0.wav"))
    for number, kind in ((3, "FLAC"), (6, "OGG"), (9, "MP3")):
        soundfile.write(path.with_name(f"{number}.wav"), wave, rate, format=kind)
    whole = path.with_name("12.wav").read_bytes()
    path.with_name("12.wav").write_bytes(whole[: len(whole) // 2])
    path.with_name("15.wav").unlink()
    spec = tiny_spec()
    made = plan(spec.vision, spec.audio, spec.language, dialect="chatml")[1]
    set_decoded_bytes(limit)
    try:
        found, kept = (
            asdict(measure(open_source(path), made, row_tokens=512, on_bad_sample="skip", edited=True, keep=keep))
            for keep in (None, KeptLengths)
        )
    finally:
        set_decoded_bytes(DECODED_BYTES)
    clips = [lengths.pop("clips") for lengths in (found, kept)]
    assert len(found["problems"]) >= 2 and found.pop("problems") == kept.pop("problems")
    for one, other in ((found, kept), clips):
        assert all(np.array_equal(one[name], other[name]) for name in one)
