"""The quick reader of lines takes no line that the ordinary one refuses, and counts what that counts."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from training_world import picture, speech, text, write
from weft.conversation import SampleError
from weft.conversation.samples import parse_line
from weft.data.counts import Counts
from weft.data.quick import QuickLines


def turns(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


IMAGE, AUDIO = {"type": "image", "image": "a.png"}, {"type": "audio", "audio": "a.wav"}
WORD = {"text": "hi", "start": 0.1, "end": 0.4}
GOOD = [
    {"messages": turns("what?", "that")},
    {"id": 7, "messages": turns([{"type": "text", "text": "he said \":\" and \\"}], "", "more")},
    {"id": "é", "messages": [{"role": "system", "content": "be kind"}, *turns("a", "b")]},
    {"messages": [*turns("a"), {"role": "assistant", "content": "b", "learn": False}]},
    {"messages": turns([IMAGE, {"type": "task", "task": "refer"}, {"type": "text", "text": "cup"}],
                       [{"type": "box", "boxes": [[0, 0.1, 0.5, 1]], "label": "cup", "image": 0}])},
    {"messages": turns([AUDIO, AUDIO, {"type": "task", "task": "translate", "language": None, "to": "fr"}],
                       [{"type": "words", "words": [WORD, WORD], "audio": 1}])},
    {"messages": turns([{**AUDIO, "transcript": "hi"}], "hello")},
    {"messages": turns([IMAGE, {"type": "box", "boxes": [[0, 0, 1, 1]]}, {"type": "task", "task": "identify"}], "x")},
]  # fmt: skip


def counted(sample):
    counts = Counts()
    counts.add(sample)
    return counts


def both(raw):
    """What the quick reader gives, and the ordinary one, or None."""
    quick = QuickLines("data", lambda path: path in ("data/a.png", "data/a.wav"))(raw)
    try:
        return quick, parse_line(raw, root="data", exists=lambda path: path in ("data/a.png", "data/a.wav"))
    except SampleError:
        return quick, None


@pytest.mark.parametrize("sample", GOOD)
def test_ordinary_lines_are_taken_and_count_as_they_do(sample):
    for ascii in (True, False):
        quick, slow = both(json.dumps(sample, ensure_ascii=ascii).encode() + b"\n")
        assert quick is not None and counted(quick) == counted(slow) and quick.id == slow.id
        assert [p.source for m in quick.messages for p in m.parts if hasattr(p, "source")] == [
            p.source for p in slow.parts() if hasattr(p, "source")
        ]


TOKENS = [
    '"', "{", "}", "[", "]", ":", ",", "\\", " ", "null", "true", "0", "1.0", "-1", "2", "1e400", '"text"', '"image"',
    '"messages"', '"user"', '"assistant"', '"role": "user",', '"learn": false,', '"audio": 1,', '"a.wav"', '""',
    '"unit": "pixel",', '"id": 3,', "\ud800".encode("utf-8", "surrogatepass").decode("latin1"), "\t", "\\ud800",
]  # fmt: skip


def spoiled(sample, draw):
    """A line with a value changed, a key twice, a part moved, or a piece of JSON put anywhere."""
    line = json.dumps(sample)
    for _ in range(draw.randint(1, 3)):
        at, gone = draw.randrange(len(line)), draw.choice((0, 0, 1, 3, 8))
        line = line[:at] + draw.choice(TOKENS) + line[at + gone :]
    return line.encode("latin1", "replace")


@examples(40)
@given(st.integers(0, 1 << 32))
def test_no_line_is_taken_that_the_ordinary_reader_refuses(seed):
    draw = random.Random(seed)
    for _ in range(100):
        raw = spoiled(draw.choice(GOOD), draw)
        quick, slow = both(raw)
        assert quick is None or (slow is not None and counted(quick) == counted(slow)), raw


def changes():
    """Mistakes that leave the JSON whole."""
    for sample in GOOD:
        text = json.dumps(sample)
        for old, new in (
            ('"role": "user", ', '"role": "user", "role": "user", '), ("0.1", "0.6"), ("0.1", "-0.1"), ("0.5", "1.5"),
            ('"image": 0', '"image": 1'), ('"audio": 1', '"audio": 2'), (', "audio": 1', ""), ("a.png", "b.png"),
            ("a.png", "data:,"), ("user", "assistant"), ("user", "system"), ("translate", "refer"), ('"to"', '"style"'),
            ('"hi"', '" "'), ('"cup"', '""'), ('[0, 0.1, 0.5, 1]', '[0, 0.1, 0, 1]'), ('"fr"', "null"), ("[{", "[[{"),
            ('"refer"', '"refers"'), ('"what?"', '""'), ('"what?"', "[]"), ("0.4", "0.05"),
            ('"a"', '[{"type": "text", "text": ""}]'),
        ):  # fmt: skip
            if old in text:
                yield text.replace(old, new, 1)


@pytest.mark.parametrize("line", changes())
def test_what_may_be_a_mistake_is_left_to_the_ordinary_reader(line):
    quick, slow = both(line.encode())
    assert quick is None or (slow is not None and counted(quick) == counted(slow))


def test_all_samples_of_a_file_of_every_kind_are_taken(tmp_path):
    path = write(tmp_path, 30, (speech, picture, text))
    quick = QuickLines(str(tmp_path), lambda path: True)
    assert all(quick(line) is not None for line in path.read_bytes().splitlines())
