"""`weft demo`: weft's own model answers about pictures and clips that were made a moment ago, and about one's own."""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weft.cli.terminal import duration, err, out

if TYPE_CHECKING:
    from weft.conversation import Conversation
    from weft.generation import Reply

MARK = re.compile(r"<\|[^|]*\|>")  # left in the text of an answer where it is no whole box or time
# What is asked, in order. Samples of the split `test`: no training has met their phrases, voices and sentences.
SPOKEN = ("transcribe", "word_times", "speech_question", "spoken_question")
MADE = ("question", "vqa", "refer", "detection")


def demo(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Pictures and recordings of your own.", show_default=False),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Where media and drawings go.")] = Path("demo-out"),
    model: Annotated[str, typer.Option(help="A folder, a hub name or 'bundled'.")] = "bundled",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Other pictures and clips.")] = 0,
) -> None:
    """See a small model answer about pictures and clips, made here or your own."""
    import weft
    from weft.generation import Options

    begun = time.monotonic()
    questions = list(asked_of(files) if files else made(folder, seed))
    err.print(f"Loading {model}.")
    asking = weft.load(model)
    replies = asking.chat_batch([c.prompt() for c in questions], Options(max_new_tokens=96))
    asked = enumerate(zip(questions, replies, strict=True), 1)
    right = sum(_show(number, question, reply, folder) for number, (question, reply) in asked)
    counted = "" if files else f" {right} of {len(questions)} are right."
    err.print(f"Done in {duration(time.monotonic() - begun)}.{counted} Now try:")
    if not files:
        out.print("  weft demo FILE          a photo or a recording of your own")
    out.print(f"  weft chat {model}       type, /image FILE and /audio FILE", soft_wrap=True)
    out.print(f"  weft page {model}       the same in the browser, with a microphone", soft_wrap=True)


def made(folder: Path, seed: int) -> Iterator[Conversation]:
    """Questions with their answers; their media are written to the folder."""
    from weft.playground import world

    err.print("Making what it is asked about.")
    tasks: tuple[str, ...] = (*SPOKEN, *MADE)
    if importlib.util.find_spec("espeakng_loader") is None:
        err.print("Speech is left out, for it needs espeak-ng: pip install espeakng-loader")
        tasks = MADE
    (folder / "media").mkdir(parents=True, exist_ok=True)
    for number, task in enumerate(tasks, 1):
        yield world.filed(world.sample(number, "test", seed, [task]), folder / "media", number)


def asked_of(files: list[Path]) -> Iterator[Conversation]:
    """What a picture shows is asked; recordings are written down, then with their times, and answered as what somebody
    says to the model. Raises `WeftError` where a file is neither."""
    from weft.conversation import Audio, Conversation, Image, Message, Task, Text

    for file in files:
        if _is_picture(file):  # a caption is of drawn shapes, most of all, in what `bundled` learned from
            yield Conversation((Message("user", (Image(str(file)), Text("What is in the picture?"))),), file.name)
            continue
        for more in ({}, {"timestamps": True}):
            heard = Task("transcribe", {"language": "en", **more})
            yield Conversation((Message("user", (Audio(str(file)), heard)),), file.name)
        yield Conversation((Message("user", (Audio(str(file)),)),), file.name)


def _is_picture(file: Path) -> bool:
    from weft.conversation import WeftError
    from weft.media import MediaError, audio_samples, image_size

    if not file.is_file():
        raise WeftError(f"{file}: no such file; name a picture or a recording")
    try:
        image_size(file)
    except MediaError:
        audio_samples(file)  # complains where it is no recording, either
        return False
    return True


def _show(number: int, asked: Conversation, reply: Reply, folder: Path) -> bool:
    """One question with its answer; whether it is right, where that is known. Boxes and word times are drawn."""
    from rich.text import Text

    from weft.cli.session import save_drawing
    from weft.conversation import WeftError
    from weft.evaluation.pairs import Pair
    from weft.evaluation.right import is_right

    right, answer, wanted = None, said(reply.parts, reply.text), ""
    if asked.answer is not None:
        pair = Pair.of(asked, reply.parts)
        right, wanted = is_right(pair), said(pair.expected, "")
    mark = Text("  ") if right is None else Text("✓ ", "good") if right else Text("✗ ", "bad")
    message = asked.messages[0]
    files = ", ".join(Path(str(source)).name for source in [m.source for m in asked.images + asked.audios])
    task = message.task.name.replace("_", " ") if message.task else "asked" if message.text else "answered"
    line = Text.assemble(mark, (f"{files}, {task}: ", "quiet"), message.text or reply.heard, " → ")
    line.append(answer, "accent")
    if right is False:
        line.append(f"   (right: {wanted})", "quiet")
    out.print(line, soft_wrap=True)
    try:
        for path in save_drawing(reply, asked, folder / f"{number}.png"):
            out.print(Text(f"    drawn in {path}", "quiet"), soft_wrap=True)
    except WeftError:
        pass  # an answer in words alone has nothing to draw
    return bool(right)


def said(parts: tuple[object, ...], text: str) -> str:
    """An answer on one line, boxes and times in short; ``text`` where its parts say nothing."""
    from weft.conversation import Box, Text, Words

    found = []
    for part in parts:
        if isinstance(part, Box):
            found += ["box " + " ".join(f"{x:.2f}" for x in box) for box in part.boxes]
        elif isinstance(part, Words):
            found += [f"{w.text} {w.start:.2f}–{w.end:.2f} s" for w in part.words]
        elif isinstance(part, Text):
            found += [words] if (words := plain(part.text)) else []
    return ", ".join(found) or plain(text) or "(nothing)"


def plain(text: str) -> str:
    """Text on one line, without broken marks; words that stood with nothing else between them stay apart."""
    return " ".join(MARK.sub(" ", text).split())
