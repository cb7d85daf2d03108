"""A look at what the playground's world draws: a sheet of pictures with their boxes, a page of clips with their times.

    python benchmarks/playground_pages.py FOLDER [--tasks refer,caption,word_times,locate] [--samples 20]

Samples of tasks about pictures go to FOLDER/sheet.png, all others to FOLDER/clips.html.
"""

from __future__ import annotations

import argparse
import base64
import html
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import soundfile
from PIL import Image as Pillow
from PIL import ImageDraw

from weft.conversation import Box, Conversation, Message, Task, Text, Word, Words
from weft.media.draw import draw_boxes, get_font, text_width
from weft.media.timeline import timeline_image
from weft.playground import world

TILE, ROOM, FONT = 380, 170, 15  # pixels: a picture's longer side, the words under it, their size


def contact_sheet(path: Path, samples: Iterable[Conversation], columns: int = 5) -> None:
    """A PNG of samples about pictures, as `world.sample` makes them, with their boxes, questions and answers."""
    tiles = [_tile(sample) for sample in samples]
    rows = -(-len(tiles) // columns)
    sheet = Pillow.new("RGB", (columns * (TILE + 20), rows * (TILE + ROOM + 20)), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * (TILE + 20) + 10, i // columns * (TILE + ROOM + 20) + 10))
    sheet.save(path)


def _tile(sample: Conversation) -> Pillow.Image:
    tile = Pillow.new("RGB", (TILE, TILE + ROOM), "white")
    across = TILE // len(sample.images)
    left = 0
    for at, image in enumerate(sample.images):
        boxes = [p for p in sample.parts() if isinstance(p, Box) and (p.image or 0) == at]
        shown = draw_boxes(image.source, boxes)
        shown.thumbnail((across - 4, TILE - 4))
        tile.paste(shown, (left, TILE - shown.height - 4))
        left += across
    pen, font, y = ImageDraw.Draw(tile), get_font("", FONT), TILE + 2
    for message in sample.messages:
        line = ""
        for word in f"{'›' if message.role == 'user' else '–'} {_said(message)}".split(" "):
            if text_width(f"{line} {word}", font) > TILE:
                pen.text((0, y), line, "#57606a" if message.role == "user" else "#24292f", font)
                line, y = "   ", y + FONT + 4
            line = f"{line} {word}".strip() if line.strip() else f"{line}{word}"
        pen.text((0, y), line, "#57606a" if message.role == "user" else "#24292f", font)
        y += FONT + 5
    return tile


def clips_page(path: Path, samples: Iterable[Conversation]) -> None:
    """One HTML file of samples about sound: a player for each clip, its words or sounds over time, what is asked and
    answered. It stands alone: nothing is read from elsewhere."""
    rows = []
    for sample in samples:
        heard = [p for p in sample.parts() if isinstance(p, Words)]
        media = [
            _clip(clip.source, [w for words in heard if (words.audio or 0) == at for w in words.words])
            for at, clip in enumerate(sample.audios)
        ]
        media += [f'<img src="{_url(image.source, "PNG")}" height="160">' for image in sample.images]
        turns = "".join(f"<p class={m.role}>{html.escape(_said(m))}</p>" for m in sample.messages)
        rows.append(f"<section><h2>{html.escape(sample.id or '')}</h2>{''.join(media)}{turns}</section>")
    style = (
        "body{font:15px system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#24292f}"
        "section{border-top:1px solid #d8dee4;padding:1em 0}h2{font-size:13px;color:#57606a;margin:0 0 .5em}"
        "audio{width:100%}img{max-width:100%;display:block}p{margin:.3em 0}.user{color:#57606a}"
    )
    page = f"<!doctype html><meta charset=utf-8><title>Clips</title><style>{style}</style><h1>Clips</h1>{''.join(rows)}"
    path.write_text(page, encoding="utf-8")


def _clip(source: Any, words: list[Word]) -> str:
    wave, rate = source
    file = BytesIO()
    soundfile.write(file, wave, rate, format="WAV", subtype="PCM_16")
    sound = f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
    times = timeline_image([("", words)], len(wave) / rate, wave)
    return f'<audio controls src="{sound}"></audio><img src="{_url(times, "PNG")}">'


def _url(image: Pillow.Image, kind: str) -> str:
    file = BytesIO()
    image.save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _said(message: Message) -> str:
    """A message on one line, its media left out."""
    said = []
    for part in message.parts:
        if isinstance(part, Task):
            said.append(f"[{part.name}]")
        elif isinstance(part, Text):
            said.append(part.text.strip())
        elif isinstance(part, Box) and part.label:
            said.append(part.label)
        elif isinstance(part, Words):
            said.append(", ".join(f"{w.text} {w.start:.2f}–{w.end:.2f} s" for w in part.words))
    return " ".join(filter(None, said)) or "(only media)"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", default="refer,caption,word_times,locate")
    parser.add_argument("--samples", type=int, default=20)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    tasks = asked.tasks.split(",")
    drawn, heard = ([task for task in tasks if (task in world.PICTURE_TASKS) is seen] for seen in (True, False))
    if drawn:
        contact_sheet(asked.folder / "sheet.png", (world.sample(n, tasks=drawn) for n in range(asked.samples)))
    if heard:
        clips_page(asked.folder / "clips.html", (world.sample(n, tasks=heard) for n in range(asked.samples)))
