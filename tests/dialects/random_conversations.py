"""Random conversations for property tests: any mix of roles, media, tasks and answers that the types allow."""

from __future__ import annotations

from hypothesis import strategies as st

from weft.conversation import TASKS, Audio, Box, Conversation, Image, Message, Part, Task, Text, Word, Words

# Ordinary words, and what a user must be able to write without it becoming anything else.
WORD = st.sampled_from(
    [
        "hello", "cup", "the red one", "zwei", "你好", "ça va?", "x = [1, 2]", "50%", "", " ", "\n\nnew",
        "<|im_end|>", "</s>", "<s>[INST]", "<ImageHere>", "<audio>/etc/passwd</audio>", "<|t0.1|>", "<|p3|>",
        "<|0.31|>", "{<1><2><3>}", "<p>", "[[[AUDIO:modality]]]", "\x00", "🙂",
    ]
)  # fmt: skip
PLAIN = st.text(alphabet="abcdefg hijk ÄÖ", min_size=1, max_size=12).map(str.strip).filter(bool)
LABEL = st.none() | WORD
texts = st.lists(WORD, max_size=3).map(" ".join).map(Text)


@st.composite
def boxes(draw: st.DrawFn, label: st.SearchStrategy = LABEL, images: int = 1) -> Box:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        left, right = sorted(draw(st.tuples(*[st.floats(0, 1)] * 2)))
        top, bottom = sorted(draw(st.tuples(*[st.floats(0, 1)] * 2)))
        found.append((left, top, right, bottom))
    image = draw(st.none() | st.integers(0, images - 1)) if images > 1 else draw(st.sampled_from([None, 0]))
    return Box(tuple(found), draw(label), image)


@st.composite
def words(draw: st.DrawFn, text: st.SearchStrategy = PLAIN, clips: int = 1, longest: float = 90.0) -> Words:
    """Words one after the other, with and without gaps between them, some over the edge of a 30 s window."""
    found: list[Word] = []
    now = draw(st.sampled_from([0.0, 0.31, 29.5, 30.0, 59.99, 61.2]))
    for _ in range(draw(st.integers(1, 5))):
        start = round(now + draw(st.sampled_from([0.0, 0.01, 0.7, 8.0, 29.0])), 2)
        end = round(start + draw(st.sampled_from([0.01, 0.3, 1.0, 2.5])), 2)
        if found and end > longest:
            break
        found.append(Word(draw(text), start, end))
        now = end
    audio = draw(st.none() | st.integers(0, clips - 1)) if clips > 1 else draw(st.sampled_from([None, 0]))
    return Words(tuple(found), audio)


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    name = draw(st.sampled_from(sorted(TASKS)))
    values = {
        "language": st.sampled_from(["en", "zh", "nl", None]),
        "to": st.sampled_from(["en", "de", None]),
        "timestamps": st.booleans(),
        "itn": st.booleans(),
        "style": st.sampled_from(["clotho", "short", None]),
    }
    fields = {f: draw(values[f]) for f in TASKS[name].fields if draw(st.booleans())}
    return Task(name, fields)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Turns of any kind, not only those that make sense."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message("system", (draw(texts),)))
    images = clips = 0
    for _ in range(draw(st.integers(1, 3))):
        parts: list[Part] = []
        for _ in range(draw(st.integers(0, 4))):
            kind = draw(st.sampled_from(["text", "image", "audio", "box"]))
            if kind == "image":
                parts.append(Image("i.png"))
                images += 1
            elif kind == "audio":
                parts.append(Audio("a.wav"))
                clips += 1
            else:
                parts.append(draw(texts) if kind == "text" else draw(boxes(images=max(images, 1))))
        if draw(st.booleans()):
            parts.insert(draw(st.integers(0, len(parts))), draw(tasks()))
        messages.append(Message("user", tuple(parts)))
        answer = st.lists(texts | boxes(images=max(images, 1)) | words(clips=max(clips, 1)), max_size=3)
        messages.append(Message("assistant", tuple(draw(answer))))
    return Conversation(tuple(messages))
