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
start at 0 again with each window. Sources of the tags: eval_audio/*.py for the tasks evaluated there; those of
``music``, ``speaker``, ``entities``, ``event`` and ``locate`` are put together here from the released vocabulary.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

from weft.conversation import Audio, Box, Conversation, Image, Message, Part, Task, Text, Word, Words
from weft.dialects.base import (
    Dialect,
    DialectError,
    Modality,
    Piece,
    Plain,
    Slot,
    Special,
    Switches,
    asked,
    cannot,
    check,
    join_words,
)

LANGUAGES = ("en", "zh", "de", "es", "ko", "fr", "ja", "it", "zh_tr", "unknown")
STYLES = {"clotho": "caption_clotho", "audiocaps": "caption_audiocaps", "plain": "caption_plain"}

# (what the answer is, its own tag, language of the sound where the task names none). None: as the task's language.
ANALYSES: dict[str, tuple[str, str, str | None]] = {
    "emotion": ("keyword", "emotion_recognition", None),
    "vocal_sound": ("keyword", "vocal_classification", None),
    "scene": ("keyword", "scene", "unknown"),
    "event": ("keyword", "event", "unknown"),
    "note": ("keyword", "note_analysis", "unknown"),
    "music": ("caption", "music_description", "unknown"),
    "speaker": ("keyword", "speaker_meta", None),
    "entities": ("keyword", "named_entity_recognition", None),
    "locate": ("keyword", "audio_grounding", "unknown"),
}
# Tasks whose users' words have a place in the form: the question, or what is to be found.
WITH_TEXT = ("question", "locate")
WINDOW = 3000  # hundredths of a second that time tokens count up to
BACKWARDS = 100  # a time this much before the one before it is in the next window


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
    modalities: ClassVar[frozenset[Modality]] = frozenset(("audio",))
    switches: QwenAudioSwitches

    def slot_tokens(self, modality: Modality) -> tuple[str, str | None, str | None]:
        if modality != "audio":
            raise cannot(self, "an image", modality=modality)
        return "[[[AUDIO:modality]]]", "<audio>", "</audio>"

    def special_tokens(self) -> list[str]:
        return [*_NAMES, *_STAMPS]

    def ordered_tokens(self) -> list[list[str]]:
        return [list(_STAMPS)]

    def stop_tokens(self) -> list[str]:
        return ["<|im_end|>", "<|endoftext|>", "<|im_start|>"]

    # Writing.

    def render(self, conversation: Conversation, *, generate: bool = False) -> list[Piece]:
        check(self, conversation)
        pieces: list[Piece] = []
        system = self.switches.system  # still to be written
        question: Message | None = None
        clips = 0
        for i, message in enumerate(conversation.messages):
            last = generate and i == len(conversation.messages) - 1
            if message.role == "system":
                pieces += _turn("system", [Plain(message.text, apart=True)])
                system = None
                continue
            by_task = (message if message.role == "user" else question or message).task is not None
            if not by_task and system is not None:
                pieces += _turn("system", [Plain(system, apart=True)])
                system = None
            if message.role == "assistant":
                pieces += self._answer(message, question.task if question else None)
                continue
            question = message
            if message.task is None:
                pieces += _turn("user", self._chat(message, clips))
                if last:
                    pieces += [Special("<|im_start|>"), Plain("assistant"), Plain("\n", apart=True)]
            else:
                pieces += self._tagged(message, message.task, clips, generate=last)
            clips += sum(isinstance(part, Audio) for part in message.parts)
        return pieces

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
            else:
                raise self._no_form(part)
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
            elif not isinstance(part, Task):
                raise self._no_form(part)
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
        kind, own, sound = ANALYSES[task.name]
        times = "timestamps" if _timed(task) else "notimestamps"
        tags = self._named(["startofanalysis", sound or written, kind, written, times, own])
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
                content.append(Plain(part.text, loss=True))
            elif isinstance(part, Words):
                if task is None:
                    content += _sentences(part)
                elif _timed(task):
                    content += [replace(piece, loss=True) for piece in self._boundaries(part, task)]
                else:
                    content.append(Plain(join_words([w.text for w in part.words]), loss=True))
            else:
                raise self._no_form(part)
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
            if now is not None and start < now - BACKWARDS + 1:
                raise DialectError(
                    f"word {word.text!r} starts {(now - start) / 100:.2f} s before the word before it ends, and the "
                    f"dialect {self.name} writes each boundary once; sort the words by time"
                )
            if now is not None and start > now:
                out.append(Special("<|sil|>"))
            if start != now:
                out += _moved(start, now)
            out += [Plain(word.text), *_moved(end, start, silent=False)]
            now = end
        return out

    def _no_form(self, part: Part) -> DialectError:
        if isinstance(part, Box):
            return cannot(self, "a box", modality="image")
        what = {Image: "an image", Audio: "a clip in an answer", Task: "a task in an answer"}
        return cannot(self, what.get(type(part), f"a {type(part).__name__.lower()} part in a user message"))

    # Reading.

    def parse(self, text: str, conversation: Conversation) -> list[Part]:
        question = asked(conversation)
        task = question.task if question else None
        audio = 0 if len(conversation.audios) == 1 else None
        parts: list[Part] = []
        sentences = list(_SENTENCE.finditer(text))
        if sentences:
            end = 0
            words: list[Word] = []
            for match in sentences:
                if text[end : match.start()].strip():
                    if words:
                        parts.append(Words(tuple(words), audio))
                        words = []
                    parts.append(Text(text[end : match.start()]))
                start, stop = float(match["start"]), float(match["end"])
                words.append(Word(match["word"], start, stop + (WINDOW / 100 if stop < start else 0)))
                end = match.end()
            parts.append(Words(tuple(words), audio))
            return [*parts, Text(text[end:])] if text[end:].strip() else parts
        text = _TAG.sub("", text)
        if not _STAMP.search(text):
            text = text.replace("<|sil|>", "")
            return [Text(text.strip())] if text.strip() else []
        found, before, after = _read(text, begun=task is not None and task.name == "transcribe" and _timed(task))
        if before.strip():
            parts.append(Text(before.strip()))
        if found:
            parts.append(Words(tuple(found), audio))
        if after.strip():
            parts.append(Text(after.strip()))
        return parts


def _stamp(hundredths: int) -> str:
    return f"<|{hundredths / 100:.2f}|>"


_TAGS = ["startoftranscript", "startofanalysis", "translate", "transcribe", "caption", "keyword", *LANGUAGES]
_TAGS += ["notimestamps", "timestamps", "itn", "wo_itn", "question", "answer", *STYLES.values()]
_TAGS += [tag for _, tag, _ in ANALYSES.values()]
_NAMES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|sil|>", *(f"<|{tag}|>" for tag in _TAGS)]
_STAMPS = [_stamp(k) for k in range(WINDOW + 1)]
_TAG = re.compile("|".join(re.escape(name) for name in _NAMES if name != "<|sil|>"))
_STAMP = re.compile(r"<\|(\d{1,2}\.\d\d)\|>")
_SENTENCE = re.compile(
    r'"(?P<word>[^"]*)" starts at <\|(?P<start>\d{1,2}\.\d\d)\|> seconds'
    r" and ends at <\|(?P<end>\d{1,2}\.\d\d)\|> seconds\.? ?"
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
    before = (now or 0) // WINDOW
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


def _read(text: str, begun: bool) -> tuple[list[Word], str, str]:
    """Words between times, the text before the first time and that after the last."""
    words: list[Word] = []
    pieces = _STAMP.split(text)  # text, time, text, time, ..., text
    base, last = 0, 0
    start: float | None = 0.0 if begun else None
    pending, before = pieces[0], ""
    if not begun:
        pending, before = "", pieces[0].replace("<|sil|>", "")
    seam = False  # the times just read are the 30.00 and 0.00 between two windows
    for stamp, following in zip(pieces[1::2], pieces[2::2], strict=True):
        here = round(float(stamp) * 100)
        if here <= last - BACKWARDS:
            base += WINDOW  # times begin anew with every window of a long clip
        time = (base + here) / 100
        word = pending.replace("<|sil|>", "").strip()
        if word and start is not None:
            words.append(Word(word, start, max(start, time)))
        elif seam and not pending and words:  # no silence after the seam: the word before it goes on
            words[-1] = replace(words[-1], end=time)
        seam = not pending and ((here == 0 and last == WINDOW) or (seam and here == WINDOW))
        start, pending, last = time, following, here
    return words, before, pending.replace("<|sil|>", "")
