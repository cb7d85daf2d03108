"""The report as one HTML page that needs nothing else: pictures, sound and data are inside it.

Python prepares the data; ``page.html`` beside this file holds the markup, the style and the script that draws the data.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile

from weft.conversation import Audio, Box, Conversation, Image, Task, Text, WeftError
from weft.evaluation.metrics import METRICS
from weft.evaluation.report import beats, described, notes, shown
from weft.evaluation.right import FULL
from weft.evaluation.text import units
from weft.files import whole_file
from weft.media import audio_samples, load_audio, load_image

IMAGE_SIDE = 448  # pixels of the longer side of a picture in the page
CLIP_SECONDS = 120  # longer clips are drawn but not playable
MEDIA_BYTES = 24 << 20  # of all media in the page; samples beyond it are listed without
RATE = 16000
PEAKS = 240  # columns of a drawn waveform, at least; in long clips
PEAKS_SECOND = 4  # of them to a second,
PEAKS_MOST = 4000  # up to this many
PAST_END = 0.02  # seconds beyond the clip's end that are rounding (times are written in steps of 10 or 20 ms)

_TEMPLATE = Path(__file__).with_name("page.html")


def write_page(path: Path, report: dict[str, Any], conversations: Sequence[Conversation]) -> None:
    """Writes ``index.html`` for a report and the conversations it is about (same order as ``report["samples"]``)."""
    data = json.dumps(page_data(report, conversations), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Inside <script> only "</" and "<!--" could end or change the block; both are written so that JSON reads the same.
    data = data.replace("<", "\\u003c")
    title = f"{report['signature'].get('model') or 'model'} on {report['signature'].get('data') or 'samples'}"
    page = _TEMPLATE.read_text("utf-8")
    with whole_file(path) as file:
        file.write(page.replace("{{title}}", escape(title, quote=False)).replace("{{data}}", data))


def page_data(report: dict[str, Any], conversations: Sequence[Conversation]) -> dict[str, Any]:
    media = _Media()
    samples = [_sample(s, c, media) for s, c in zip(report["samples"], conversations, strict=True)]
    remarks = notes(report)
    if media.left_out:
        remarks.append(f"Not inside this page, which would grow too large: {media.left_out} of its pictures and clips.")
    signature = report["signature"]
    return {
        "model": signature.get("model", ""),
        "data": signature.get("data", ""),
        "facts": _facts(signature),
        "notes": remarks,
        "tasks": [_task(task, table, report) for task, table in report["metrics"].items()],
        "samples": samples,
        "media": media.items,
        "signature": json.dumps(signature, ensure_ascii=False, indent=1),
    }


def _facts(signature: dict[str, Any]) -> list[str]:
    seconds = signature["seconds"]
    facts = [f"{signature['samples']} samples", f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"]
    facts += [str(signature[key]) for key in ("dtype", "device") if signature.get(key)]
    return [*facts, signature["date"].replace("T", " ").replace("Z", " UTC"), f"weft {signature['weft']}"]


def _task(task: str, table: dict[str, float | None], report: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for name, value in table.items():
        baseline = report["baseline"].get(task, {}).get(name)
        kind = described(name)
        rows.append(
            {
                "name": kind.title,
                "value": value,
                "shown": shown(name, value),
                "baseline": baseline,
                "baselineShown": shown(name, baseline),
                "lower": kind.better == "lower",
                "full": FULL.get(kind.unit),
                "beats": beats(name, value, baseline),
                "n": report["signature"]["counts"][task][name],
                "says": report["signature"]["metrics"][name],
                "constant": _constant(report["signature"]["constants"][task].get(name, "")),
            }
        )
    return {"name": task, "metrics": rows, "rule": report["signature"]["right"][task]}


def _constant(answer: object) -> str:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return text if len(text) <= 120 else text[:117] + "..."


def _sample(sample: dict[str, Any], conversation: Conversation, media: _Media) -> dict[str, Any]:
    images = [*map(media.place, conversation.images)]
    clips = [*map(media.place, conversation.audios)]
    made = {
        "id": sample["id"],
        "task": sample["task"],
        "right": sample["right"],
        "quality": quality(sample["scores"], sample["right"]),
        "scores": [[described(name).title, shown(name, v)] for name, v in sample["scores"].items() if name != "exact"],
        "turns": [_turn(message.role, message.parts) for message in conversation.prompt().messages],
        "images": images,
        "clips": clips,
        "expected": _answer(sample["expected"]),
        "given": None if sample["answer"] is None else _answer(sample["answer"]),
        "raw": sample["raw"],
        "problems": [*sample["problems"], *_outside(sample["answer"] or [], [media.items[i] for i in clips])],
        "error": sample["error"],
    }
    if sample["scores"].keys() & {"wer", "hallucinated_words_per_minute"} and made["given"] is not None:
        made["diff"] = _diff(made["expected"]["text"], made["given"]["text"])
    return made


def _outside(answer: list[dict[str, Any]], clips: list[dict[str, Any]]) -> list[str]:
    """What lies where there is no clip and no picture, in words; the page draws such things at its edge."""
    found = []
    late, out, flat = Counter[float](), 0, 0
    for part in answer:
        if part["type"] == "words" and (part.get("audio") or 0) < len(clips):
            end = clips[part.get("audio") or 0].get("seconds", math.inf)
            late[end] += sum(word["end"] > end + PAST_END for word in part["words"])
        elif part["type"] == "box":
            out += sum(min(box) < 0 or max(box) > 1 for box in part["boxes"])
            flat += sum(right <= left or b <= t for left, t, right, b in part["boxes"])
    found += [f"{n} word{'s' * (n > 1)} past the end of the clip ({end:.2f} s)" for end, n in late.items() if n]
    boxes = ((out, "partly or wholly outside the picture"), (flat, "without area"))
    return found + [f"{n} box{'es' * (n > 1)} {what}" for n, what in boxes if n]


def quality(scores: dict[str, float | None], right: bool | None) -> float:
    """How good an answer is in 0..1, for sorting: right ones first, then by the first figure here, then by times."""
    for name in ("wer", "hallucinated_words_per_minute", "box_accuracy_50", "box_f1_50", "exact", "bleu"):
        value = scores.get(name)
        if value is not None:
            grade = 1 - min(1.0, value) if METRICS[name].better == "lower" else value
            break
    else:
        grade = 0.0
    late = min(scores.get("word_time_ms") or 0.0, 10_000.0)
    return round((1.0 if right else min(grade, 0.99)) - late * 1e-7, 9)


def _turn(role: str, parts: Sequence[Any]) -> dict[str, Any]:
    texts, task = [], None
    for part in parts:
        if isinstance(part, Text):
            texts.append(part.text)
        elif isinstance(part, Task):
            fields = ", ".join(f"{k} {json.dumps(v, ensure_ascii=False)}" for k, v in part.fields.items())
            task = part.name + (f" ({fields})" if fields else "")
        elif isinstance(part, Box):
            texts += [f"[{', '.join(f'{x:.3g}' for x in box)}]" for box in part.boxes]
        elif isinstance(part, Image | Audio):
            continue
        else:
            texts.append(" ".join(w.text for w in part.words))
    return {"role": role, "text": " ".join(t.strip() for t in texts if t.strip()), "task": task}


def _answer(parts: list[dict[str, Any]]) -> dict[str, Any]:
    texts: list[str] = []
    boxes: list[dict[str, Any]] = []
    words: list[dict[str, Any]] = []
    for part in parts:
        if part["type"] == "text":
            texts.append(part["text"])
        elif part["type"] == "words":
            words += [{**w, "audio": part.get("audio") or 0} for w in part["words"]]
            texts.append(" ".join(w["text"] for w in part["words"]))
        else:
            boxes += [{"box": b, "image": part.get("image") or 0, "label": part.get("label")} for b in part["boxes"]]
    return {"text": " ".join(t.strip() for t in texts if t.strip()), "boxes": boxes, "words": words}


def _diff(expected: str, given: str) -> list[list[str]]:
    """``[kind, expected words, given words]`` along jiwer's alignment."""
    left, right = units(expected), units(given)
    if not left:
        return [["insert", "", given]] if given else []
    result = jiwer.process_words(" ".join(left), " ".join(right))
    return [
        [c.type, " ".join(left[c.ref_start_idx : c.ref_end_idx]), " ".join(right[c.hyp_start_idx : c.hyp_end_idx])]
        for c in result.alignments[0]
    ]


class _Media:
    """Pictures and clips as data URLs, each once however many samples use it."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.left_out = 0
        self._known: dict[Any, int] = {}
        self._bytes = 0

    def place(self, part: Image | Audio) -> int:
        """Where a picture or clip is among the items."""
        source = part.source
        key = (type(part), source if isinstance(source, str | bytes) else id(source))
        if key not in self._known:
            try:
                item = self._make_image(source) if isinstance(part, Image) else self._make_clip(source)
            except WeftError as error:
                item = {"error": str(error)}
            self._known[key] = len(self.items)
            self.items.append(item)
        return self._known[key]

    @property
    def _full(self) -> bool:
        return self._bytes >= MEDIA_BYTES

    def _embed(self, data: bytes, kind: str) -> str:
        self._bytes += len(data)
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"

    def _make_image(self, source: Any) -> dict[str, Any]:
        if self._full:
            self.left_out += 1
            return {"src": None}
        image = load_image(source)
        width, height = image.size
        image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=82)
        return {"width": width, "height": height, "src": self._embed(buffer.getvalue(), "image/jpeg")}

    def _make_clip(self, source: Any) -> dict[str, Any]:
        if self._full:
            self.left_out += 1
            return {"seconds": audio_samples(source, RATE) / RATE, "peaks": [], "src": None}
        wave = load_audio(source, RATE)
        columns = min(max(PEAKS, PEAKS_SECOND * len(wave) // RATE), PEAKS_MOST, len(wave))
        edges = np.linspace(0, len(wave), columns + 1).astype(int)[:-1]
        peaks = np.maximum.reduceat(np.abs(wave), edges) if len(wave) else np.zeros(1)
        level = max(float(peaks.max()), 1e-6)
        item: dict[str, Any] = {"seconds": len(wave) / RATE, "peaks": [round(float(p) / level * 99) for p in peaks]}
        if len(wave) > CLIP_SECONDS * RATE:
            self.left_out += 1
            return item | {"src": None}
        buffer = io.BytesIO()
        soundfile.write(buffer, wave, RATE, format="MP3", compression_level=0.7)
        return item | {"src": self._embed(buffer.getvalue(), "audio/mpeg")}
