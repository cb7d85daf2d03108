"""A conversation in the terminal: what is attached, what was said, and how answers are shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.text import Text as Styled

from weft.cli.asking import parse_task
from weft.cli.terminal import err, out, plural
from weft.conversation import TASKS, Conversation, Message, Text, WeftError, parse_messages
from weft.conversation.samples import read_task
from weft.generation import Model, Options, Reply
from weft.generation.embedding import Embedder
from weft.media import audio_samples, image_size, load_audio, load_image
from weft.media.draw import draw_boxes
from weft.media.timeline import timeline_image

HELP = """\
  /image FILE          attach a picture to the next question
  /audio FILE          attach a recording; one that says all that is asked: Enter
  /box L T R B         a region of the last picture, in fractions of it
  /task NAME [k=v]...  the next question's task; one that needs no words: Enter
                       (/task alone lists them)
  /save FILE           the last answer drawn: boxes, or words on a timeline
  /reset               begin anew
  /quit                leave (so does Ctrl-D; Ctrl-C stops an answer)"""

COMMANDS = ("/image", "/audio", "/box", "/task", "/save", "/reset", "/help", "/quit")


class Session:
    """One conversation. ``ask`` and ``stream`` send the next question with all that is attached."""

    def __init__(self, model: Model | None = None, options: Options | None = None, system: str = "") -> None:
        self.model, self.options = model, options or Options()
        self.system = system
        self._turns: Embedder | None = None
        self.task: dict[str, Any] | None = None
        self.reset()

    def reset(self) -> None:
        self.messages: list[Message] = []
        if self.system:
            self.messages.append(Message("system", (Text(self.system),)))
        self.attached: list[dict[str, Any]] = []
        self.reply: Reply | None = None
        self.task = None

    @property
    def conversation(self) -> Conversation:
        """All that was said so far."""
        return Conversation(tuple(self.messages))

    def attach(self, kind: str, file: str | os.PathLike[str]) -> None:
        """A picture or clip for the next question; one that cannot be read is refused at once."""
        path = os.path.expanduser(os.fspath(file))
        (image_size if kind == "image" else audio_samples)(path)
        self.attached.append({"type": kind, kind: path})

    def attach_box(self, numbers: Iterable[str]) -> None:
        try:
            box = [float(x) for x in numbers]
        except ValueError:
            box = []
        if len(box) != 4:
            raise WeftError("a box is four numbers: left top right bottom, in fractions of the picture")
        pictures = sum(len(Conversation((m,)).images) for m in self.messages)
        pictures += sum(p["type"] == "image" for p in self.attached)
        if not pictures:
            raise WeftError("a box is a region of a picture; attach the picture first")
        self.attached.append({"type": "box", "boxes": [box], "image": pictures - 1})

    def choose(self, text: str) -> None:
        """The next question's task, checked as far as it can be; without a name none, and those there are listed."""
        tasks = self.model.processor.dialect.tasks if self.model is not None else TASKS
        if not text:
            self.task = None
            err.print(f"tasks: {', '.join(name for name in TASKS if name in tasks)}", style="quiet", soft_wrap=True)
            return
        task = parse_task(text)
        name = read_task(task).name
        if name not in tasks:
            raise WeftError(f"this model's dialect has no task {name}; it has {', '.join(sorted(tasks))}")
        self.task = task

    def asking(self, question: str) -> Conversation:
        """The conversation with the next question; raises what is wrong with it."""
        parts = [*self.attached]
        if self.task is not None:
            parts.append(self.task)
        if question:
            parts.append({"type": "text", "text": question})
        message = {"role": "user", "content": parts}
        return parse_messages([*self.messages, message], where="the question", probe=image_size)

    def ask(self, question: str) -> Reply:
        asked = self.asking(question)
        assert self.model is not None
        return self._said(asked, self.model.chat(asked, self.options))

    def stream(self, question: str, write: Callable[[str], Any] | None = None) -> Reply:
        """Asks and writes the answer as it comes, then what it points at."""
        asked = self.asking(question)
        assert self.model is not None
        write = write or _write
        self._turns = self._turns or self.model.turns()
        stream = self.model.stream(asked, self.options, turns=self._turns)
        show_heard(stream.heard)
        begun = False
        try:
            for delta in stream:
                delta = delta if begun else delta.lstrip()
                begun = begun or bool(delta)
                write(delta)
        except KeyboardInterrupt:
            stream.close()
            write("\n")
            raise
        if begun:
            write("\n")
        reply = self._said(asked, stream.reply)
        if not begun and reply.text:
            out.print(reply.text)
        show_grounding(reply, asked)
        show_remarks(reply)
        return reply

    def _said(self, asked: Conversation, reply: Reply) -> Reply:
        answer = Message("assistant", reply.parts or (Text(reply.text),))
        try:
            parse_messages([*asked.messages, answer])
        except WeftError:  # boxes that stick out, times that run backwards: remembered as text, shown as they are
            answer = Message("assistant", (Text(reply.text),))
        self.messages = [*asked.messages, answer]
        self.attached, self.task, self.reply = [], None, reply
        return reply

    def save(self, file: str | os.PathLike[str]) -> list[Path]:
        """The last answer drawn: every picture it has boxes on, or else the words on a timeline of their clip."""
        if self.reply is None:
            raise WeftError("there is no answer yet to save")
        made = save_drawing(self.reply, self.conversation, Path(os.path.expanduser(os.fspath(file))))
        for path in made:
            err.print(f"saved {path}", style="quiet", soft_wrap=True)
        return made

    # In the terminal.

    def run(self, read: Callable[[str], str] | None = None) -> None:
        """Reads questions and commands until the end of input."""
        read = read or _reader()
        assert self.model is not None
        name = self.model.name or "the model"
        err.print(f"Talking to {name}. /help lists what can be typed, Ctrl-D ends.", style="quiet", soft_wrap=True)
        while True:
            try:
                line = read(self._prompt()).strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                err.print()
                continue
            try:
                if line.startswith("/"):
                    if self._command(line):
                        return
                elif line or self.task is not None:
                    self.stream(line)
                elif self._attached("audio"):  # a recording that asks for itself
                    self.stream("")
                elif self.attached:
                    err.print("(type a question, or name a /task)", style="quiet")
            except KeyboardInterrupt:
                err.print("(stopped; the question is still there to be asked again)", style="quiet")
            except WeftError as error:
                err.print(Styled(str(error), style="bad"), soft_wrap=True)

    def _prompt(self) -> str:
        counts = [plural(n, kind) for kind in ("image", "audio", "box") if (n := self._attached(kind))]
        if self.task is not None:
            counts.append(str(self.task["task"]))
        return f"[{', '.join(counts)}] › " if counts else "› "

    def _attached(self, kind: str) -> int:
        return sum(part["type"] == kind for part in self.attached)

    def _command(self, line: str) -> bool:
        """Runs one /command; True ends the session."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        match name:
            case "/quit" | "/exit" | "/q":
                return True
            case "/help" | "/?":
                err.print(HELP, style="quiet")
            case "/reset":
                self.reset()
                err.print("(a new conversation)", style="quiet")
            case "/image" | "/audio":
                if not rest:
                    raise WeftError(f"{name} FILE: name a file")
                self.attach(name[1:], rest.strip("'\""))
            case "/box":
                self.attach_box(rest.replace(",", " ").split())
            case "/task":
                self.choose(rest)
            case "/save":
                self.save(rest or "answer.png")
            case _:
                raise WeftError(f"there is no command {name}; /help lists them")
        return False


def show(reply: Reply, conversation: Conversation) -> None:
    """A whole answer, as people read it."""
    show_heard(reply.heard)
    if reply.text:
        out.print(Styled(reply.text), soft_wrap=True)
    show_grounding(reply, conversation)
    show_remarks(reply)


def show_heard(words: str) -> None:
    """How a spoken turn was understood."""
    if words:
        err.print(Styled(f"heard: {words}"), style="quiet", soft_wrap=True)


def show_grounding(reply: Reply, conversation: Conversation) -> None:
    """Boxes and word times, a line each."""
    several = len(conversation.images) > 1, len(conversation.audios) > 1
    for box in reply.boxes:
        where = f"  picture {(box.image or 0) + 1}" if several[0] else ""
        for left, top, right, bottom in box.boxes:
            numbers = f"[{left:.3f} {top:.3f} {right:.3f} {bottom:.3f}]"
            out.print(Styled.assemble(("  □ ", "accent"), numbers, f"  {box.label}" if box.label else "", where))
    for words in reply.words:
        if several[1]:
            out.print(Styled(f"  clip {(words.audio or 0) + 1}"))
        for word in words.words:
            out.print(Styled.assemble((f"  {word.start:7.2f} – {word.end:.2f} s  ", "accent"), word.text))


def show_remarks(reply: Reply) -> None:
    if not reply.text.strip() and not reply.boxes and not reply.words:
        err.print("(an empty answer)", style="quiet")
    if reply.malformed:
        fragments = ", ".join(reply.malformed[:3]) + (" …" if len(reply.malformed) > 3 else "")
        err.print(Styled(f"(neither box nor time: {fragments})", style="quiet"), soft_wrap=True)
    if reply.windows > 1:
        err.print(f"(the clip was heard in {reply.windows} windows)", style="quiet")
    if not reply.finished:
        err.print(f"(cut after {reply.tokens} tokens; --max-new-tokens allows more)", style="quiet")


def show_json(reply: Reply) -> None:
    """One JSON object on one line."""
    print(json.dumps(reply.as_dict(), ensure_ascii=False))


def save_drawing(reply: Reply, conversation: Conversation, file: Path) -> list[Path]:
    """Draws an answer; several pictures get a number before the suffix. Gives the files written."""
    from PIL import Image

    drawings: list[Image.Image] = []
    for i, image in enumerate(conversation.images):
        boxes = [b for b in reply.boxes if (b.image or 0) == i and b.boxes]
        if boxes:
            drawings.append(draw_boxes(load_image(image.source), boxes))
    if not drawings:
        for i, clip in enumerate(conversation.audios):
            words = [w for part in reply.words if (part.audio or 0) == i for w in part.words]
            if words:
                wave = load_audio(clip.source)
                drawings.append(timeline_image([("", words)], len(wave) / 16000, wave))
    if not drawings:
        raise WeftError("the answer has neither boxes nor word times, so there is nothing to draw")
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise WeftError(f"{file}: name a .png, .jpg or .webp file")
    file.parent.mkdir(parents=True, exist_ok=True)
    files = [file] if len(drawings) == 1 else [file.with_stem(f"{file.stem}-{i + 1}") for i in range(len(drawings))]
    for path, drawing in zip(files, drawings, strict=True):
        drawing.save(path)
    return files


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _reader() -> Callable[[str], str]:
    """``input`` with history, kept between sessions, and completion of commands and files."""
    try:
        import readline
    except ImportError:  # not on Windows
        return input
    import atexit
    import glob

    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "weft"
    history = state / "history"
    try:
        state.mkdir(parents=True, exist_ok=True)
        readline.read_history_file(history)
    except OSError:
        pass  # the first session, or a home that cannot be written: history then lasts for this session

    def save() -> None:
        try:
            readline.set_history_length(1000)
            readline.write_history_file(history)
        except OSError:
            return

    def complete(text: str, state: int) -> str | None:
        if readline.get_line_buffer().startswith(text) and text.startswith("/") and " " not in text:
            found = [c + " " for c in COMMANDS if c.startswith(text)]
        else:
            found = [f + "/" if os.path.isdir(f) else f for f in sorted(glob.glob(os.path.expanduser(text) + "*"))]
        return found[state] if state < len(found) else None

    readline.set_completer_delims(" ")
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    atexit.register(save)
    return input
