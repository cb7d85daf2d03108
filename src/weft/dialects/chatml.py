"""weft's own format: ChatML turns, tasks asked in words, times and boxes as tokens of their own.

    <|im_start|>user
    <|audio_start|><|audio|>...<|audio_end|>Transcribe the English speech with times.<|im_end|>
    <|im_start|>assistant
    <|t0.3|><|f1|>hello<|t0.6|><|f2|><|im_end|>

A time is two tokens, tenths and hundredths of a second within one window of sound; ``<|window_k|>`` says that the times
after it are in window k. A box is four (or, with a fine scale, eight) coordinate tokens, left, top, right, bottom;
``<|ref|>`` opens its label. A label that is just what the user asked for is not written, and `parse` puts it back.
``<|item_k|>`` says which image or clip is meant where there are several. With ``coordinates="text"`` the same is
written in plain digits, for language models that know digits and have no such tokens: ``[120, 300, 180, 360]``,
``<ref>the cup</ref>[120, 300, 180, 360]``, ``<0.31>hello<0.62>``. Where no boxes were asked for, four numbers in
brackets are a list; a box without a label is ``<ref></ref>[120, 300, 180, 360]`` there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from weft.conversation import Box, Conversation, Message, Part, Text, Word, Words
from weft.dialects.base import Modality, Piece, Plain, Special, Spot, asked, asked_label, cannot
from weft.dialects.turns import LANGUAGES, Turns, TurnSwitches, without_times
from weft.named import beside

ITEMS = 16  # images or clips that an answer can tell apart
WINDOWS = 64

# What a task is called in words: without text, and with it.
WORDINGS: dict[str, tuple[str, str]] = {task: (alone, asked) for task, (alone, asked) in beside(__file__).items()}
GROUNDED = ("refer", "detection", "grounded_caption")
NOTHING = "none"  # the answer to refer and detection where there is no such thing


class ChatMLSwitches(TurnSwitches):
    coordinates: Literal["tokens", "text"] = "tokens"
    box_bins: int = Field(1000, ge=2, le=1000)  # steps of a coordinate over the image
    sort_boxes: bool = False  # write several boxes of one thing from left to right, an order that can be learned
    box_fine: int = Field(0, ge=0, le=100)  # with n > 0, each step is divided into n by a second token
    window_seconds: float = Field(30.0, gt=0, le=60)  # length of a window of sound, which times are counted in
    # A user's turn that is one clip and no more: asked as it sounds, or as the words that the model writes down of it.
    spoken: Literal["heard", "written"] = "heard"
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

    def chat_template(self) -> str:
        """With the table of wordings in it, so the two cannot drift apart. It covers what programs without weft send:
        text, images, clips and tasks. It has no protection against special tokens in a user's text; `render` has."""
        begin = json.dumps(self.switches.bos or "")
        if self.switches.system is not None:
            turn = json.dumps(f"<|im_start|>system\n{self.switches.system}<|im_end|>\n", ensure_ascii=False)
            begin += f" ~ ('' if messages and messages[0].role == 'system' else {turn})"
        tables = {
            "wordings": WORDINGS,
            "languages": LANGUAGES,
            "slots": {m: f"{start}{token}{end}" for m, (token, start, end) in self.slots.items()},
            "usual": self.switches.language or "",
        }
        head = [f"{{%- set {name} = {json.dumps(table, ensure_ascii=False)} -%}}" for name, table in tables.items()]
        body = Path(__file__).with_suffix(".jinja").read_text(encoding="utf-8")
        return "\n".join([*head, f"{{%- set begin = {begin} -%}}", body])

    # Writing.

    def begin(self) -> list[Piece]:
        return [] if self.switches.bos is None else [Special(self.switches.bos)]

    def _answer(self, message: Message, question: Message | None, seen: Mapping[Modality, int]) -> list[Piece]:
        if self.switches.coordinates == "text" and not _grounded(question):  # an empty label tells a box from a list
            parts = (replace(p, label=p.label or "") if isinstance(p, Box) and p.boxes else p for p in message.parts)
            message = replace(message, parts=tuple(parts))
        return super()._answer(message, question, seen)

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

    def marks_between(self, words: Words, conversation: Conversation) -> int | None:
        """Four times a word, within the first window."""
        window, question = round(self.switches.window_seconds * 100), asked(conversation)
        late = any(round(max(word.start, word.end) * 100) >= window for word in words.words)
        if late or self.switches.coordinates == "text" or without_times(question.task if question else None):
            return None
        return 2 * len(self._moment(0)) * len(words.words)

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
        if step >= bins or (part or 0) >= max(fine, 1):
            return nan  # beyond the scale
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
        label, grounded, tokens = asked_label(question), _grounded(question), self.switches.coordinates == "tokens"
        images, clips = len(conversation.images), len(conversation.audios)
        if text.strip().lower() == NOTHING and _grounded(question, GROUNDED[:2]) and images:
            return [Box((), label, images - 1)]
        parts: list[Part] = []
        end = last = window = 0  # last: where the word before ended, whole or not; what follows counts on in its window
        for match in (_TOKENS if tokens else _DIGITS).finditer(text):
            spoken = match["word"] is not None
            medium = self._meant(match["clip" if spoken else "image"], clips if spoken else images)
            part: Part
            if spoken:
                window = window if match["clip"] is None and match.start() == last else 0
                start, window = self._time(match["start"], window)
                stop, window = self._time(match["stop"], window)
                last, whole = match.end(), start <= stop and bool(match["word"].strip())
                part = Words((Word(match["word"], start, stop),), medium)
            else:
                boxes = self._boxes(match["boxes"] or "")
                name = match["label"] if match["nothing"] is None else match["nothing"]
                named = name is not None or match["image"] is not None
                whole = all(map(_is_box, boxes)) and (tokens or grounded or named)
                part = Box(boxes, label if name is None or not (name or tokens) else name, medium)
            if not whole or medium is None:
                continue  # points at nothing, or was never meant to: stays text
            between = text[end : match.start()]
            end = match.end()
            before = parts[-1] if parts and match["clip"] is None and between == ("" if tokens else " ") else None
            if isinstance(part, Words) and isinstance(before, Words):
                parts[-1] = Words(before.words + part.words, before.audio)
            else:
                parts += [Text(between), part] if between else [part]
        return [*parts, Text(text[end:])] if text[end:] else parts

    def malformed(self, text: str, conversation: Conversation) -> list[str]:
        tokens, grounded = self.switches.coordinates == "tokens", _grounded(asked(conversation))
        left = [part.text for part in self.parse(text, conversation) if isinstance(part, Text)]
        found = [match for piece in left for match in (_ODD_TOKENS if tokens else _ODD_DIGITS).finditer(piece)]
        # Numbers in brackets may be meant as they are where no boxes were asked for.
        return [match[0] for match in found if grounded or not match[0].startswith("[")]

    def _meant(self, item: str | None, there: int) -> int | None:
        """Which of the media ``there`` are is meant: the last one where none is named; None where it is not there."""
        if item is None or there == 1:
            return there - 1 if there else None
        index = int(item) - (self.switches.coordinates == "text")
        return index if 0 <= index < there else None

    def _time(self, text: str, window: int) -> tuple[float, int]:
        """Seconds of one written time (nan: past the end of its window), and the window it is in."""
        if self.switches.coordinates == "text":
            return float(text.strip("<>")), 0
        moved = re.findall(r"<\|window_(\d+)\|>", text)
        if moved:
            window = sum(map(int, moved))
        tenths = re.search(r"<\|t(\d+)\.(\d)\|>", text)
        hundredths = re.search(r"<\|f(\d)\|>", text)
        assert tenths is not None
        seconds, whole = int(tenths[1]) + int(tenths[2]) / 10, self.switches.window_seconds
        # Hundredths that are missing stand for the middle of their tenth.
        seconds += (int(hundredths[1]) if hundredths else 5 * (seconds < whole)) / 100
        return round(window * whole + seconds, 2) if seconds <= whole + 1e-6 else nan, window

    def _boxes(self, text: str) -> tuple[tuple[float, float, float, float], ...]:
        if self.switches.coordinates == "text":
            values = [int(n) / 1000 for n in re.findall(r"\d+", text)]
        else:
            values = [self._value(int(a), int(b) if b else None) for a, b in _COORDINATE.findall(text)]
        return tuple(zip(values[::4], values[1::4], values[2::4], values[3::4], strict=True))


_COORDINATE = re.compile(r"<\|p(\d+)\|>(?:<\|q(\d+)\|>)?")
_TIME = r"(?:<\|window_\d+\|>)*<\|t\d+\.\d\|>(?:<\|f\d\|>)?"
_TOKENS = re.compile(
    rf"(?:<\|item_(?P<clip>\d+)\|>)?(?P<start>{_TIME})(?P<word>(?:(?!<\|).)*)(?P<stop>{_TIME})"
    r"|(?:<\|item_(?P<image>\d+)\|>)?(?:<\|ref\|>(?P<nothing>(?:(?!<\|).)+)<\|ref\|>"
    r"|(?:<\|ref\|>(?P<label>(?:(?!<\|).)*))?(?P<boxes>(?:(?:<\|p\d+\|>(?:<\|q\d+\|>)?){4})+))",
    re.DOTALL,
)
_FOUR = r"\[\d{1,4}, \d{1,4}, \d{1,4}, \d{1,4}\]"
_DIGITS = re.compile(
    r"(?:\(clip (?P<clip>\d+)\) )?(?P<start><\d+\.\d\d>)(?P<word>[^<]*)(?P<stop><\d+\.\d\d>)"
    r"|(?:\(image (?P<image>\d+)\) )?(?:<ref>(?P<nothing>(?:(?!</ref>).)*)</ref>none"
    rf"|(?:<ref>(?P<label>(?:(?!</ref>).)*)</ref>)?(?P<boxes>{_FOUR}(?:, {_FOUR})*))",
    re.DOTALL,
)
_ODD = r"(?:<\|(?:window_\d+|item_\d+|t\d+\.\d|[fpq]\d+|ref)\|>)+"
_ODD_TOKENS = re.compile(f"{_TOKENS.pattern}|{_ODD}", re.DOTALL)
_ODD_DIGITS = re.compile(rf"{_DIGITS.pattern}|{_ODD}|<\d+\.\d\d>|</?ref>|\[\d+(?:, ?\d+)*\]?", re.DOTALL)


def _grounded(question: Message | None, tasks: tuple[str, ...] = GROUNDED) -> bool:
    """Whether boxes are asked for, so that four numbers in brackets are one."""
    return bool(question and question.task and question.task.name in tasks)


def _is_box(box: tuple[float, float, float, float]) -> bool:
    return 0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1


def _box_text(box: Box, label: str | None, images: int) -> str:
    prefix = f"(image {box.image + 1}) " if box.image is not None and images > 1 else ""
    quadruples = ", ".join("[" + ", ".join(str(round(v * 1000)) for v in b) + "]" for b in box.boxes)
    return prefix + (f"<ref>{label}</ref>" if label is not None else "") + (quadruples or NOTHING)


def _words_text(words: Words, clips: int) -> str:
    prefix = f"(clip {words.audio + 1}) " if words.audio is not None and clips > 1 else ""
    return prefix + " ".join(f"<{w.start:.2f}>{w.text}<{w.end:.2f}>" for w in words.words)
