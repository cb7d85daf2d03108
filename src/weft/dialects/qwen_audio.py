"""Qwen-Audio's two formats (QwenLM/Qwen-Audio at b50fb95).

A user message with a task is written in the multi-task form of the base model, tags after the clip, and its answer ends
with ``<|endoftext|>``:

    <audio>...</audio><|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>hello<|endoftext|>

A message without one is a ChatML turn of the chat model, clips numbered over the whole conversation:

    <|im_start|>user
    Audio 1:<audio>...</audio>
    what is said?<|im_end|>

Word times are single tokens of 0.01 s; in the multi-task form each boundary is written once, with ``<|sil|>`` where
nobody speaks, in a chat as a sentence for each word. They reach to 30 s, which is one window: in a longer clip they
start at 0 again with each window. Notes and names are written in tags of their own where an answer says them as
``pitch 60; velocity 100; instrument organ; sonic bright, dark`` or ``Paris (place)``. Sources of the tags:
eval_audio/*.py for the tasks evaluated there; those of ``music``, ``speaker``, ``entities``, ``event`` and ``locate``
are put together here from the released vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from math import nan
from typing import ClassVar

from weft.conversation import Audio, Conversation, Message, Part, Task, Text, Word, Words
from weft.dialects.base import Dialect, DialectError, Piece, Plain, Slot, Special, Spot, Switches, asked, join_words
from weft.named import beside

LANGUAGES = ("en", "zh", "de", "es", "ko", "fr", "ja", "it", "zh_tr", "unknown")
STYLES, ANALYSES = beside(__file__).values()
# Tasks whose users' words have a place in the form: the question, or what is to be found.
WITH_TEXT = ("question", "locate")
WINDOW = 3000  # hundredths of a second that time tokens count up to


@dataclass(frozen=True)
class Structured:
    """Answers that the model writes in tags, and samples in plain words: ``pitch 60; instrument organ``.

    ``write`` gives None for words that are not of this form; those are written as they are.
    """

    write: Callable[[str], list[Plain | Special] | None]
    read: Callable[[str], str]


def _write_note(text: str) -> list[Plain | Special] | None:
    out: list[Plain | Special] = []
    for clause in text.split(";"):
        match = _CLAUSE.fullmatch(clause.strip())
        if match is None or (match["number"] and int(match["number"]) > MIDI):
            return None
        if match["number"]:
            out += [Special(f"<|{match['name']}|>"), Special(f"<|midi_{match['name']}_{int(match['number'])}|>")]
        else:
            out += [Special(f"<|{match['kind']}|>"), Plain(match["value"].strip())]
    return out


def _read_note(text: str) -> str:
    clauses: list[str] = []

    def take(match: re.Match[str]) -> str:
        clauses.append(f"{match[1]} {match[2]}" if match[1] else f"{match[3]} {match[4].strip()}")
        return ""

    rest = _NOTE.sub(take, text)
    return "; ".join([*clauses, *([rest.strip()] if rest.strip() else [])])


def _write_entities(text: str) -> list[Plain | Special] | None:
    out: list[Plain | Special] = []
    for clause in text.split(";"):
        match = _NAMED.fullmatch(clause.strip())
        if match is None:
            return None
        for name, value in (("value", match[1]), ("type", match[2])):
            out += [Special(f"<|startofentity{name}|>"), Plain(value), Special(f"<|endofentity{name}|>")]
    return out


def _read_entities(text: str) -> str:
    found = [f"{value.strip()} ({kind.strip()})" for value, kind in _ENTITY.findall(text)]
    rest = _ENTITY.sub("", text).strip()
    return "; ".join([*found, *([rest] if rest else [])])


MIDI = 127
_CLAUSE = re.compile(r"(?P<name>pitch|velocity) (?P<number>\d{1,3})|(?P<kind>instrument|sonic) (?P<value>[^;<]+)")
_NOTE = re.compile(r"<\|(pitch|velocity)\|><\|midi_\1_(\d{1,3})\|>|<\|(instrument|sonic)\|>([^<]*)")
_NAMED = re.compile(r"([^;()<]*[^;()<\s]) \(([^;()<]+)\)")
_ENTITY = re.compile(
    r"<\|startofentityvalue\|>([^<]*)<\|endofentityvalue\|><\|startofentitytype\|>([^<]*)<\|endofentitytype\|>"
)
# The tags of a note's answer are those that evaluate_note_analysis.py reads; the order within a name is ours.
STRUCTURED = {
    "note": Structured(_write_note, _read_note),
    "entities": Structured(_write_entities, _read_entities),
}


class QwenAudioSwitches(Switches):
    # Training has next-token loss on the tags too (the paper's figure), which is what lets the model predict them.
    loss_on_tags: bool = True
    # The released code counts clips from 1 again in every message; here numbers go on, so that each names one clip.
    restart_numbering: bool = False
    # sft_sample.txt and the web demo write "Audio 1: ", from_list_format writes "Audio 1:".
    space_after_number: bool = False
    # The system turn where a conversation has none; None leaves it out.
    system: str | None = "You are a helpful assistant."


class QwenAudio(Dialect):
    name = "qwen_audio"
    Switches = QwenAudioSwitches
    tasks: ClassVar = frozenset(("transcribe", "translate", "caption", "question", *ANALYSES))
    slots: ClassVar = {"audio": ("[[[AUDIO:modality]]]", "<audio>", "</audio>")}
    marks: ClassVar = frozenset((Words,))
    switches: QwenAudioSwitches

    def special_tokens(self) -> list[str]:
        return [*_NAMES, *_STAMPS]

    def ordered_tokens(self) -> list[list[str]]:
        return [list(_STAMPS)]

    def stop_tokens(self) -> list[str]:
        return ["<|im_end|>", "<|endoftext|>", "<|im_start|>"]

    # Writing.

    def write(self, conversation: Conversation, generate: bool) -> Iterator[list[Piece]]:
        system = self.switches.system  # still to be written
        question: Message | None = None
        clips = 0
        for i, message in enumerate(conversation.messages):
            last = generate and i == len(conversation.messages) - 1
            pieces: list[Piece] = []
            if message.role == "user":
                question = message
            task = question.task if question is not None else None
            if message.role == "system":
                system = message.text
            if system is not None and (message.role == "system" or task is None):
                pieces += _turn("system", [Plain(system, apart=True)])
                system = None
            if message.role == "assistant":
                pieces += self._answer(message, task)
            elif message.role == "user":
                if task is not None:
                    pieces += self._tagged(message, task, clips, generate=last)
                else:
                    pieces += _turn("user", self._chat(message, clips))
                clips += sum(isinstance(part, Audio) for part in message.parts)
            yield pieces
        if generate and (question is None or question.task is None):
            yield [Special("<|im_start|>"), Plain("assistant"), Plain("\n", apart=True)]

    def _chat(self, message: Message, clips: int) -> list[Piece]:
        content: list[Piece] = []
        number = 0
        for part in message.parts:
            if isinstance(part, Audio):
                shown = number + 1 if self.switches.restart_numbering else clips + number + 1
                space = " " if self.switches.space_after_number else ""
                content += [Plain(f"Audio {shown}:{space}"), Slot("audio", clips + number), Plain("\n")]
                number += 1
            elif isinstance(part, Text):
                content.append(Plain(part.text))
        if content and isinstance(content[0], Plain):
            content[0] = replace(content[0], apart=True)
        return content

    def _tagged(self, message: Message, task: Task, clips: int, *, generate: bool) -> list[Piece]:
        content: list[Piece] = []
        text = ""
        for part in message.parts:
            if isinstance(part, Audio):
                content.append(Slot("audio", clips))
                clips += 1
            elif isinstance(part, Text):
                text += part.text
        if text and task.name not in WITH_TEXT:
            raise DialectError(
                f"the dialect {self.name} has no place for words beside the task {task.name!r}; leave out the text, or "
                "the task to ask in a chat turn"
            )
        predict = "language" in task.fields and task.get("language") is None
        tags = self._tags(task, text)
        if predict and generate and not text and task.name != "translate":
            tags = tags[:1]  # the model goes on with the language it hears, and with the tags that follow
        learn = self.switches.loss_on_tags
        for tag in tags:
            if isinstance(tag, Plain):
                content.append(tag)
            else:
                content.append(Special(tag.token, loss=learn and not (predict and tag.token == "<|unknown|>")))
        return content

    def _tags(self, task: Task, text: str) -> list[Plain | Special]:
        language = task.get("language") or "unknown"
        if task.name == "transcribe":
            names = ["startoftranscript", language, "transcribe", language]
            if task.get("timestamps"):
                return [*self._named(names), Special("<|timestamps|>"), Special(_stamp(0))]
            return self._named([*names, "notimestamps", "itn" if task.get("itn") else "wo_itn"])
        if task.name == "translate":
            if not task.get("to"):
                raise DialectError(f'the dialect {self.name} needs the language to translate into: give the task "to"')
            return self._named(["startoftranscript", language, "translate", task.get("to"), "notimestamps", "itn"])
        written = task.get("language", "en") or "unknown"
        if task.name == "caption":
            style = task.get("style") or "clotho"
            if style not in STYLES:
                raise DialectError(f"the dialect {self.name} has the caption styles {', '.join(STYLES)}, not {style!r}")
            return self._named(["startofanalysis", "unknown", "caption", written, "notimestamps", STYLES[style]])
        if task.name == "question":
            return [*self._named(["startofanalysis", written, "question"]), Plain(text), Special("<|answer|>")]
        kind, own, *sound = ANALYSES[task.name]
        times = "timestamps" if _timed(task) else "notimestamps"
        tags = self._named(["startofanalysis", *(sound or [written]), kind, written, times, own])
        return [*tags, Plain(text), Special("<|answer|>")] if text else tags

    def _named(self, names: list[str]) -> list[Plain | Special]:
        for name in names:
            if f"<|{name}|>" not in _NAMES:
                known = ", ".join(LANGUAGES)
                raise DialectError(f"the dialect {self.name} has no tag for the language {name!r}; it has {known}")
        return [Special(f"<|{name}|>") for name in names]

    def _answer(self, message: Message, task: Task | None) -> list[Piece]:
        content: list[Piece] = []
        for part in message.parts:
            if isinstance(part, Text):
                structured = STRUCTURED.get(task.name) if task is not None else None
                tagged = structured.write(part.text) if structured else None
                content += [replace(piece, loss=True) for piece in tagged or [Plain(part.text)]]
            elif isinstance(part, Words):
                if task is None:
                    content += _sentences(part)
                elif _timed(task):
                    content += [replace(piece, loss=True) for piece in self._boundaries(part, task)]
                else:
                    content.append(Plain(join_words([w.text for w in part.words]), loss=True))
        if task is not None:
            return [*content, Special("<|endoftext|>", loss=True)]
        return _turn("assistant", content)

    def _boundaries(self, words: Words, task: Task) -> list[Plain | Special]:
        """Words between times; a time is not repeated where the next word starts as the last one ends."""
        out: list[Plain | Special] = []
        # A transcript begins after the <|0.00|> of its prompt.
        now: int | None = 0 if task.name == "transcribe" else None
        for word in words.words:
            start, end = round(word.start * 100), round(word.end * 100)
            if now is not None and start // WINDOW < now // WINDOW:
                raise DialectError(
                    f"word {word.text!r} starts {(now - start) / 100:.2f} s before the word before it ends, in an "
                    f"earlier window of {WINDOW // 100} s, and the dialect {self.name} only counts windows on; "
                    "sort the words by time, or part them at the edge"
                )
            if now is not None and start > now:
                out.append(Special("<|sil|>"))
            spot = Spot("audio", words.audio or 0, (word.start, word.end))
            told = [] if start == now else _moved(start, now)
            told += [Plain(word.text), *_moved(end, start, silent=False)]
            out += [replace(piece, about=spot) for piece in told]
            now = end
        return out

    # Reading.

    def parse(self, text: str, conversation: Conversation) -> list[Part]:
        found, _ = self._parsed(text, conversation)
        audio = len(conversation.audios) - 1  # the last one: no other can be named
        parts: list[Part] = []
        for kind, group in groupby(found, type):
            if kind is Word and audio >= 0:
                parts.append(Words(tuple(group), audio))  # type: ignore[arg-type]
            elif kind is Word:
                parts.append(Text(join_words([word.text for word in group])))  # type: ignore[union-attr]
            else:
                parts += [Text(piece) for piece in group if piece.strip()]  # type: ignore[union-attr, arg-type]
        return parts

    def malformed(self, text: str, conversation: Conversation) -> list[str]:
        return self._parsed(text, conversation)[1]

    def _parsed(self, text: str, conversation: Conversation) -> tuple[list[Word | str], list[str]]:
        """Words and text in their order; and what looks like times and gives none."""
        question = asked(conversation)
        task = question.task if question else None
        if task is not None and task.name in STRUCTURED:
            text = STRUCTURED[task.name].read(text)
        text = _TAG.sub("", text)
        if _SENTENCE.search(text):
            return _read_sentences(text)
        timed = task is not None and _timed(task)
        if timed or _STAMP.match(text.replace("<|sil|>", "").lstrip()):
            return _read(text, begun=timed and task is not None and task.name == "transcribe")
        return [_prose(text.replace("<|sil|>", "")).strip()], []


def _stamp(hundredths: int) -> str:
    return f"<|{hundredths / 100:.2f}|>"


_TAGS = ["startoftranscript", "startofanalysis", "translate", "transcribe", "caption", "keyword", *LANGUAGES]
_TAGS += ["notimestamps", "timestamps", "itn", "wo_itn", "question", "answer", *STYLES.values()]
_TAGS += [tag for _, tag, *_ in ANALYSES.values()]
_TAGS += ["pitch", "velocity", "instrument", "sonic"]
_TAGS += [f"midi_{name}_{k}" for name in ("pitch", "velocity") for k in range(MIDI + 1)]
_TAGS += [f"{edge}ofentity{part}" for edge in ("start", "end") for part in ("value", "type")]
_NAMES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|sil|>", *(f"<|{tag}|>" for tag in _TAGS)]
_STAMPS = [_stamp(k) for k in range(WINDOW + 1)]
_TAG = re.compile("|".join(re.escape(name) for name in _NAMES if name != "<|sil|>"))
_STAMP = re.compile(r"<\|(\d{1,2}\.\d\d)\|>")
_SENTENCE = re.compile(
    r'"(?P<word>[^"]*\S[^"]*)" starts at <\|(?P<start>\d{1,2}\.\d\d)\|>(?: seconds?)?,?'
    r" and ends at <\|(?P<end>\d{1,2}\.\d\d)\|>(?: seconds?)?\.? ?"
)


def _turn(role: str, content: list[Piece]) -> list[Piece]:
    learn = role == "assistant"
    head: list[Piece] = [Special("<|im_start|>"), Plain(role), Plain("\n", apart=True)]
    return [*head, *content, Special("<|im_end|>", loss=learn), Plain("\n")]


def _timed(task: Task) -> bool:
    return task.name == "locate" or (task.name == "transcribe" and bool(task.get("timestamps")))


def _moved(time: int, now: int | None, silent: bool = True) -> list[Plain | Special]:
    """The tokens for a time that follows the time ``now``: one, and the ends of the windows in between."""
    window, here = divmod(time, WINDOW)
    before = max(0, (now or 0) - 1) // WINDOW  # what ends with a window is still in it
    if time and not here and window > before:
        window, here = window - 1, WINDOW  # the end of a window is its 30.00
    out: list[Plain | Special] = []
    for _ in range(window - before):
        out += [Special(_stamp(WINDOW)), Special(_stamp(0))]
        if silent:
            out.append(Special("<|sil|>"))
    return [*out, Special(_stamp(here))]


def _sentences(words: Words) -> list[Piece]:
    out: list[Piece] = []
    for word in words.words:
        start, end = round(word.start * 100), round(word.end * 100)
        head = " " if out else ""
        out += [Plain(f'{head}"{word.text}" starts at ', True), Special(_stamp(_in_window(start)), True)]
        out += [Plain(" seconds and ends at ", True), Special(_stamp(_in_window(end)), True), Plain(" seconds.", True)]
    return out


def _in_window(hundredths: int) -> int:
    return hundredths if hundredths <= WINDOW else hundredths % WINDOW


def _prose(text: str) -> str:
    """Text for a person: times that belong to no word, in seconds."""
    return _STAMP.sub(r"\1", text)


def _read_sentences(text: str) -> tuple[list[Word | str], list[str]]:
    found: list[Word | str] = []
    odd: list[str] = []
    end = 0
    for match in _SENTENCE.finditer(text):
        start, stop = float(match["start"]), float(match["end"])
        beyond = max(start, stop) > WINDOW / 100
        if stop < start - WINDOW / 200:
            stop += WINDOW / 100  # no word lasts half a window: it ends in the next one
        found.append(_prose(text[end : match.start()]))
        end = match.end()
        if stop < start or beyond:
            odd.append(match[0].strip())
            found.append(_prose(match[0]))
        else:
            found.append(Word(match["word"], start, stop))
    found.append(_prose(text[end:]))
    # What stands between two words and is blank does not part them.
    return [item for item in found if isinstance(item, Word) or item.strip()], odd


def _read(text: str, begun: bool) -> tuple[list[Word | str], list[str]]:
    """Words between times. ``begun``: the prompt holds the first time, 0.00.

    A word that ends before it starts, or lacks one of its times, is text, and is named in the second list. Times begin
    anew with every window of a long clip, once one has ended with its 30.00.
    """
    found: list[Word | str] = []
    odd: list[str] = []
    pieces = _STAMP.split(text)  # text, time, text, time, ..., text
    base, last = 0, 0
    start: float | None = 0.0 if begun else None
    opening = ""  # the time before, as it was written
    pending = pieces[0]
    seam = False  # the times just read are the 30.00 and 0.00 between two windows
    for stamp, following in zip(pieces[1::2], pieces[2::2], strict=True):
        here = round(float(stamp) * 100)
        if last == WINDOW and here < WINDOW:
            base += WINDOW
        time = (base + here) / 100 if here <= WINDOW else nan  # there is no such time, and no word has it
        word = pending.replace("<|sil|>", "").strip()
        if word and start is not None and start <= time:
            found.append(Word(word, start, time))
        elif word:
            found.append(word)
            odd.append(f"{opening}{pending}<|{stamp}|>")
        elif seam and not pending and time >= 0 and found and isinstance(found[-1], Word):
            found[-1] = replace(found[-1], end=time)  # no silence after the seam: the word before it goes on
        seam = not pending and ((here == 0 and last == WINDOW) or (seam and here == WINDOW))
        start, opening, pending, last = time, f"<|{stamp}|>", following, here if here <= WINDOW else last
    rest = pending.replace("<|sil|>", "").strip()
    if rest:
        found.append(rest)
        if opening:
            odd.append(f"{opening}{pending}")
    return found, odd
