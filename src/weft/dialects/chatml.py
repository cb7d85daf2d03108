"""weft's own format: ChatML turns, tasks asked in words, times and boxes as tokens of their own.

    <|im_start|>user
    <|audio_start|><|audio|>...<|audio_end|>Transcribe the English speech with times.<|im_end|>
    <|im_start|>assistant
    <|t0.3|><|f1|>hello<|t0.6|><|f2|><|im_end|>

A time is two tokens, tenths and hundredths of a second within one window of sound; ``<|window_k|>`` says that the times
after it are in window k. A box is four (or, with a fine scale, eight) coordinate tokens, left, top, right, bottom;
``<|ref|>`` opens its label. A label that is just what the user asked for is not written, and `parse` puts it back.
``<|item_k|>`` says which image or clip is meant where there are several. With ``coordinates="text"`` the same is
written in plain digits, for language models that know digits and have no such tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from weft.conversation import Box, Conversation, Part, Text, Word, Words
from weft.dialects.base import Modality, Piece, Plain, Special, Spot, asked, asked_label, cannot
from weft.dialects.turns import Turns, TurnSwitches

ITEMS = 16  # images or clips that an answer can tell apart
WINDOWS = 64

# What a task is called in words: without text, and with it. {text} is where the user's own parts go.
WORDINGS: dict[str, tuple[str, str]] = {
    "vqa": ("Answer briefly.", "{text} Answer briefly."),
    "caption": ("Describe this briefly{language}.", "{text}"),
    "grounded_caption": ("Describe the picture with boxes.", "{text} Give boxes."),
    "refer": ("Locate it.", "Locate: {text}"),
    "identify": ("Identify this.", "Identify: {text}"),
    "detection": ("Find all objects.", "Find all: {text}"),
    "transcribe": ("Transcribe the{spoken} speech{times}{itn}.", "{text}{times}{itn}"),
    "translate": ("Translate the{spoken} speech{to}.", "{text}{to}"),
    "question": ("Answer the question in the clip.", "{text}"),
    "emotion": ("Which emotion does the speaker show?", "{text}"),
    "vocal_sound": ("Which vocal sound is this?", "{text}"),
    "scene": ("Where was this recorded?", "{text}"),
    "event": ("Which sounds are there?", "{text}"),
    "note": ("Describe the note.", "{text}"),
    "music": ("Describe the music.", "{text}"),
    "speaker": ("Describe the speaker.", "{text}"),
    "entities": ("Which names are mentioned?", "{text}"),
    "locate": ("When is each sound heard?", "Say when: {text}"),
}
NOTHING = "none"  # the answer to refer and detection where there is no such thing


class ChatMLSwitches(TurnSwitches):
    coordinates: Literal["tokens", "text"] = "tokens"
    box_bins: int = Field(1000, ge=2, le=1000)  # steps of a coordinate over the image
    sort_boxes: bool = False  # write several boxes of one thing from left to right, an order that can be learned
    box_fine: int = Field(0, ge=0, le=100)  # with n > 0, each step is divided into n by a second token
    window_seconds: float = Field(30.0, gt=0, le=60)  # length of a window of sound, which times are counted in
    bos: str | None = None  # a token before everything, for language models trained to begin with one


class ChatML(Turns):
    name = "chatml"
    Switches = ChatMLSwitches
    wordings: ClassVar = WORDINGS
    tasks: ClassVar = frozenset(WORDINGS)
    slots: ClassVar = {m: (f"<|{m}|>", f"<|{m}_start|>", f"<|{m}_end|>") for m in ("image", "audio")}
    marks: ClassVar = frozenset((Box, Words))
    switches: ChatMLSwitches

    # Names of tokens.

    def special_tokens(self) -> list[str]:
        tokens = super().special_tokens()
        if self.switches.bos is not None:
            tokens.append(self.switches.bos)
        if self.switches.coordinates == "tokens":
            tokens += ["<|ref|>", *(f"<|item_{k}|>" for k in range(ITEMS))]
            tokens += [f"<|window_{k}|>" for k in range(WINDOWS)]
            tokens += [token for scale in self.ordered_tokens() for token in scale]
        return tokens

    def ordered_tokens(self) -> list[list[str]]:
        if self.switches.coordinates == "text":
            return []
        tenths = round(self.switches.window_seconds * 10)
        scales = [
            [f"<|t{k // 10}.{k % 10}|>" for k in range(tenths + 1)],
            [f"<|f{k}|>" for k in range(10)],
            [f"<|p{k}|>" for k in range(self.switches.box_bins)],
        ]
        if self.switches.box_fine:
            scales.append([f"<|q{k}|>" for k in range(self.switches.box_fine)])
        return scales

    def place_tokens(self, modality: Modality) -> list[list[str]]:
        scales = self.ordered_tokens()
        return scales[2:] if modality == "image" else scales[:2]

    def place(self, modality: Modality, value: float) -> list[str]:
        if self.switches.coordinates == "text":
            return []
        if modality == "image":
            return self._coordinate(value)
        return self._moment(min(max(round(value * 100), 0), round(self.switches.window_seconds * 100)))

    # Writing.

    def begin(self) -> list[Piece]:
        return [] if self.switches.bos is None else [Special(self.switches.bos)]

    def mark(self, part: Part, label: str | None, total: Mapping[Modality, int]) -> list[Piece]:
        if isinstance(part, Box):
            if not part.boxes and part.label in (None, label):
                return [Plain(NOTHING)]
            label = None if part.label == label else part.label
            if self.switches.coordinates == "text":
                return [Plain(_box_text(part, label, total["image"]))]
            pieces: list[Piece] = self._item(part.image, total["image"])
            if label is not None:
                pieces += [Special("<|ref|>"), Plain(label)]
            if not part.boxes:  # none of this one: its name between two marks
                pieces.append(Special("<|ref|>"))
            boxes = sorted(part.boxes) if self.switches.sort_boxes else part.boxes
            for box in boxes:
                spot = Spot("image", part.image or 0, box)
                pieces += [Special(t, about=spot) for value in box for t in self._coordinate(value)]
            return pieces
        if isinstance(part, Words):
            if not part.words:
                return []  # silence
            if self.switches.coordinates == "text":
                return [Plain(_words_text(part, total["audio"]))]
            return self._item(part.audio, total["audio"]) + list(self._words(part))
        return super().mark(part, label, total)

    def _item(self, index: int | None, total: int) -> list[Piece]:
        if index is None or total <= 1:
            return []
        if index >= ITEMS:
            raise cannot(self, f"a reference to item {index} of one kind: it tells {ITEMS} apart")
        return [Special(f"<|item_{index}|>")]

    def _coordinate(self, value: float) -> list[str]:
        bins, fine = self.switches.box_bins, self.switches.box_fine
        step = round(min(max(value, 0.0), 1.0) * (bins * max(fine, 1) - 1))
        return [f"<|p{step}|>"] if not fine else [f"<|p{step // fine}|>", f"<|q{step % fine}|>"]

    def _moment(self, hundredths: int) -> list[str]:
        return [f"<|t{hundredths // 100}.{hundredths // 10 % 10}|>", f"<|f{hundredths % 10}|>"]

    def _value(self, step: int, part: int | None) -> float:
        bins, fine = self.switches.box_bins, self.switches.box_fine
        # A fine token that is missing stands for the middle of its step.
        step = step if not fine else step * fine + (fine // 2 if part is None else part)
        return round(step / (bins * max(fine, 1) - 1), 4)

    def _words(self, part: Words) -> Iterator[Piece]:
        window = round(self.switches.window_seconds * 100)
        now = 0
        for word in part.words:
            spot = Spot("audio", part.audio or 0, (word.start, word.end))
            for i, time in enumerate((word.start, word.end)):
                k, hundredths = divmod(max(0, round(time * 100)), window)
                if i and k and not hundredths:  # a word that ends with its window still belongs to it
                    k, hundredths = k - 1, window
                if k != now:
                    # Tokens in a row add up, so that a clip of any length can be written.
                    yield from (Special(f"<|window_{WINDOWS - 1}|>") for _ in range(k // (WINDOWS - 1)))
                    if k % (WINDOWS - 1) or not k:
                        yield Special(f"<|window_{k % (WINDOWS - 1)}|>")
                    now = k
                yield from (Special(token, about=spot) for token in self._moment(hundredths))
                if not i:
                    yield Plain(word.text, about=spot)

    # Reading.

    def parse(self, text: str, conversation: Conversation) -> list[Part]:
        question = asked(conversation)
        label = asked_label(question)
        images, clips = len(conversation.images), len(conversation.audios)
        grounded = question and question.task and question.task.name in _GROUNDED
        if text.strip().lower() == NOTHING and grounded and images:
            return [Box((), label, images - 1)]
        parse = self._parse_tokens if self.switches.coordinates == "tokens" else _parse_text
        parts: list[Part] = []
        for part in parse(text, images, clips):
            if isinstance(part, Box) and part.label is None:
                part = Box(part.boxes, label, part.image)
            parts.append(part)
        return parts

    def malformed(self, text: str, conversation: Conversation) -> list[str]:
        left = [part.text for part in self.parse(text, conversation) if isinstance(part, Text)]
        return [found[0] for piece in left for found in _ODD.finditer(piece)]

    def _parse_tokens(self, text: str, images: int, clips: int) -> Iterator[Part]:
        end = 0
        words: list[Word] = []
        audio: int | None = None
        window = 0
        for match in _GROUNDING.finditer(text):
            boxes = self._boxes(match["boxes"]) if match["boxes"] else ()
            item = _index(match["witem"] or match["bitem"] or match["nitem"])
            spoken = match["word"] is not None
            medium = _meant(item, clips if spoken else images)
            if not all(map(_is_box, boxes)) or medium is None or spoken and not match["word"].strip():
                continue  # points at nothing: stays text
            between = text[end : match.start()]
            end = match.end()
            if match["word"] is not None and match["witem"] is None and words and not between:
                pass  # goes on with the words before it
            elif words:
                yield Words(tuple(words), audio)
                words = []
            if between:
                yield Text(between)
            if match["word"] is not None:
                if not words:
                    audio, window = medium, 0
                start, window = self._time(match["start"], window)
                stop, window = self._time(match["stop"], window)
                words.append(Word(match["word"], start, max(start, stop)))
            else:
                label = match["label"] if match["nothing"] is None else match["nothing"]
                yield Box(boxes, label, medium)
        if words:
            yield Words(tuple(words), audio)
        if text[end:]:
            yield Text(text[end:])

    def _time(self, text: str, window: int) -> tuple[float, int]:
        """Seconds of one written time, and the window it is in."""
        moved = re.findall(r"<\|window_(\d+)\|>", text)
        if moved:
            window = sum(map(int, moved))
        tenths = re.search(r"<\|t(\d+)\.(\d)\|>", text)
        hundredths = re.search(r"<\|f(\d)\|>", text)
        assert tenths is not None
        seconds = int(tenths[1]) + int(tenths[2]) / 10 + (int(hundredths[1]) if hundredths else 5) / 100
        return round(window * self.switches.window_seconds + seconds, 2), window

    def _boxes(self, text: str) -> tuple[tuple[float, float, float, float], ...]:
        values = [self._value(int(a), int(b) if b else None) for a, b in _COORDINATE.findall(text)]
        return _quadruples(values)


_GROUNDED = ("refer", "detection")
_COORDINATE = re.compile(r"<\|p(\d+)\|>(?:<\|q(\d+)\|>)?")
_TIME = r"(?:<\|window_\d+\|>)*<\|t\d+\.\d\|>(?:<\|f\d\|>)?"
_QUADRUPLE = r"(?:<\|p\d+\|>(?:<\|q\d+\|>)?){4}"
_GROUNDING = re.compile(
    rf"(?:<\|item_(?P<witem>\d+)\|>)?(?P<start>{_TIME})(?P<word>(?:(?!<\|).)*)(?P<stop>{_TIME})"
    rf"|(?:<\|item_(?P<bitem>\d+)\|>)?(?:<\|ref\|>(?P<label>(?:(?!<\|).)*))?(?P<boxes>(?:{_QUADRUPLE})+)"
    r"|(?:<\|item_(?P<nitem>\d+)\|>)?<\|ref\|>(?P<nothing>(?:(?!<\|).)+)<\|ref\|>",
    re.DOTALL,
)
_ODD = re.compile(r"(?:<\|(?:window_\d+|item_\d+|t\d+\.\d|[fpq]\d+|ref)\|>)+")
_BOX_TEXT = re.compile(
    r"(?:\(image (?P<image>\d+)\) )?(?:<ref>(?P<label>(?:(?!</ref>).)*)</ref>)?"
    r"(?P<boxes>\[\d{1,4}, \d{1,4}, \d{1,4}, \d{1,4}\](?:, \[\d{1,4}, \d{1,4}, \d{1,4}, \d{1,4}\])*)"
    r"|(?:\(image (?P<nimage>\d+)\) )?<ref>(?P<nothing>(?:(?!</ref>).)*)</ref>none"
    r"|(?:\(clip (?P<clip>\d+)\) )?(?P<words><\d+\.\d\d>[^<]*<\d+\.\d\d>(?: <\d+\.\d\d>[^<]*<\d+\.\d\d>)*)",
    re.DOTALL,
)


def _index(text: str | None) -> int | None:
    return None if text is None else int(text)


def _meant(item: int | None, there: int) -> int | None:
    """Which of the media ``there`` are is meant: the last one where none is named; None where it is not there."""
    if item is None or there == 1:
        return there - 1 if there else None
    return item if item < there else None


def _quadruples(values: list[float]) -> tuple[tuple[float, float, float, float], ...]:
    return tuple(zip(values[::4], values[1::4], values[2::4], values[3::4], strict=True))


def _is_box(box: tuple[float, float, float, float]) -> bool:
    return 0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1


def _box_text(box: Box, label: str | None, images: int) -> str:
    prefix = f"(image {box.image + 1}) " if box.image is not None and images > 1 else ""
    quadruples = ", ".join("[" + ", ".join(str(round(v * 1000)) for v in b) + "]" for b in box.boxes)
    return prefix + (f"<ref>{label}</ref>" if label is not None else "") + (quadruples or NOTHING)


def _words_text(words: Words, clips: int) -> str:
    prefix = f"(clip {words.audio + 1}) " if words.audio is not None and clips > 1 else ""
    return prefix + " ".join(f"<{w.start:.2f}>{w.text}<{w.end:.2f}>" for w in words.words)


def _parse_text(text: str, images: int, clips: int) -> Iterator[Part]:
    end = 0
    for match in _BOX_TEXT.finditer(text):
        boxes = _quadruples([int(n) / 1000 for n in re.findall(r"\d+", match["boxes"] or "")])
        named = match["clip"] or match["image"] or match["nimage"]
        medium = _meant(int(named) - 1 if named else None, images if match["words"] is None else clips)
        if not all(map(_is_box, boxes)) or medium is None:
            continue  # no boxes: numbers that happen to stand in brackets
        if text[end : match.start()]:
            yield Text(text[end : match.start()])
        end = match.end()
        if match["words"] is None:
            label = match["label"] if match["nothing"] is None else match["nothing"]
            yield Box(boxes, label, medium)
        else:
            words = re.findall(r"<(\d+\.\d\d)>([^<]*)<(\d+\.\d\d)>", match["words"])
            yield Words(tuple(Word(w, float(a), max(float(a), float(b))) for a, w, b in words), medium)
    if text[end:]:
        yield Text(text[end:])
