"""`/v1/audio/transcriptions` and `/v1/audio/translations`: a recording of any length, window by window."""

from __future__ import annotations

from typing import Any

from starlette.responses import PlainTextResponse, Response

from weft.conversation import Audio, Conversation, Message, Task, Words
from weft.generation import Options
from weft.generation.windows import WindowPrompt
from weft.serving.answers import Answering, Question
from weft.serving.errors import ApiError, Json
from weft.serving.subtitles import segments, srt, vtt

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("word", "segment")
# Form fields of OpenAI's API, and the values of those that are not offered which ask for nothing.
FIELDS = ("file", "model", "language", "response_format", "temperature", "timestamp_granularities[]")
UNSUPPORTED = {"prompt": ("",), "stream": ("false", "False"), "chunking_strategy": ("auto",), "include[]": ()}


# ISO 639-1, and what Whisper has beside it: the languages that a recording can be said to be in.
_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es
et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha haw he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv jw ka
kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl
nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv
sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo yue za zh zu
"""
LANGUAGES = frozenset(_CODES.split())


def check_fields(form: Any, translate: bool) -> None:
    """Raises `ApiError` for a field that is not offered, is unknown, or stands twice."""
    for name in form:
        values = form.getlist(name)
        if name in UNSUPPORTED and all(value in UNSUPPORTED[name] for value in values):
            continue
        known = name in FIELDS and not (translate and name in ("language", "timestamp_granularities[]"))
        if not known:
            raise ApiError(400, f"{name[:100]} is not supported by this server", name[:100], "unsupported_parameter")
        if len(values) > 1 and not name.endswith("[]"):
            raise ApiError(400, f"{name} is given {len(values)} times; give it once", name)


def question(data: bytes, translate: bool, language: str | None, times: bool) -> Conversation:
    """The conversation that asks for it. ``times``: of words, which the model can write."""
    fields: dict[str, Any] = {"language": language}
    fields |= {"to": "en"} if translate else {"timestamps": times}
    return Conversation((Message("user", (Audio(data), Task("translate" if translate else "transcribe", fields))),))


def options(temperature: float, tokens: int) -> Options:
    if temperature < 1e-4:
        return Options(tokens)
    return Options(tokens, do_sample=True, temperature=temperature)


async def answer(asked: Question, chosen: Options, seconds: float) -> tuple[Answering, list[WindowPrompt]]:
    """The answer to all windows, and those; a short clip is one window."""
    answering = Answering(asked, chosen)
    async for _ in answering:
        pass
    return answering, asked.windows or [WindowPrompt(asked.first.conversation, 0.0, seconds)]


def written(
    answering: Answering, windows: list[WindowPrompt], form: str, seconds: float, about: dict[str, Any], words: bool
) -> Response:
    """The transcript in a format. Windows whose answer was cut at the longest one allowed are counted in a header."""
    reply = answering.reply
    cut = sum(not one.finished for one in answering.replies)
    headers = {"Weft-Windows": str(len(windows)), "Weft-Cut-Windows": str(cut)}
    if form == "text":
        return PlainTextResponse(reply.text + "\n", headers=headers)
    shown = segments(answering.replies, windows)
    if form == "srt":
        return PlainTextResponse(srt(shown), headers=headers, media_type="application/x-subrip")
    if form == "vtt":
        return PlainTextResponse(vtt(shown), headers=headers, media_type="text/vtt")
    spent: dict[str, Any] = {"text": reply.text, "usage": {"type": "duration", "seconds": round(seconds, 3)}}
    if form == "json":
        return Json(spent, headers=headers)
    made = {**about, "duration": round(seconds, 3), **spent}
    made["segments"] = [{"id": i, "start": s.start, "end": s.end, "text": s.text} for i, s in enumerate(shown)]
    if words:
        found = (w for part in reply.parts if isinstance(part, Words) for w in part.words)
        made["words"] = [{"word": w.text, "start": w.start, "end": w.end} for w in found]
    return Json(made, headers=headers)
