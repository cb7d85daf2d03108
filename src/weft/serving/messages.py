"""Messages of OpenAI's API to a conversation, media decoded; never a file of this machine, nor an address not allowed.

Parts of a user's message: ``text``, ``image_url`` and ``audio_url`` (``{"url": ...}``: a data URL, or an address of an
allowed host), ``input_audio`` (``{"data": base64, "format": ...}``), and weft's own ``task`` and ``box``. An answer of
this server may be sent back as it came: what stands under ``weft`` in it says where its boxes and words are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weft.conversation import Audio, Conversation, Image, Part, SampleError, WeftError
from weft.conversation.samples import parse_messages
from weft.media import audio_seconds, image_size, load_audio, load_image
from weft.media.source import decoded_bytes, encoded_source
from weft.serving.errors import ApiError
from weft.serving.held import Held
from weft.serving.limits import Limits

FORMATS = (
    *("wav", "mp3", "flac", "ogg", "opus", "oga", "webm", "m4a"),
    *("mp4", "aac", "mpeg", "mpga", "aiff", "amr", "caf"),
)
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
OWN = ("text", "task", "box", "words")
RATE = 16000  # of what is decoded, where a model has no ear that says its own

Fetch = Callable[[str], bytes]


class MessageReader:
    """Reads messages within ``limits``. ``fetch`` gives the bytes behind an address or raises `ApiError`; ``rate``: Hz
    of the sound that the model hears."""

    def __init__(self, limits: Limits, fetch: Fetch, rate: int | None) -> None:
        self._limits, self._fetch, self._rate = limits, fetch, rate or RATE
        self._held = Held(limits.held_bytes)

    def __call__(self, messages: list[dict[str, Any]]) -> Conversation:
        """Blocks while it fetches and decodes. Raises `ApiError`, or `WeftError` where the conversation is none."""
        self._count(messages)
        try:
            conversation = parse_messages([self._message(m, i) for i, m in enumerate(messages)], probe=image_size)
        except SampleError as error:
            raise ApiError(400, str(error), error.field, "invalid_messages") from None
        return self.decoded(conversation)

    def decoded(self, conversation: Conversation) -> Conversation:
        """The conversation with its media decoded; raises `ApiError` past the limits of pixels and seconds."""
        left, own = [self._limits.pixels, self._limits.audio_seconds], [0]

        def keep(medium: Any, size: int) -> None:
            self._held.hold(medium, size)
            own[0] += size

        def decode(part: Part) -> Part:
            if isinstance(part, Image):
                width, height = image_size(part.source)
                left[0] -= width * height
                if left[0] < 0:
                    most = self._limits.pixels / 1e6
                    raise ApiError(
                        413, f"the pictures have more than {most:,.6g} megapixels; make them smaller", "messages"
                    )
                self._held.check(3 * width * height, own[0])
                picture = load_image(part.source)
                keep(picture, 3 * picture.width * picture.height)
                return Image(picture)
            if isinstance(part, Audio):
                most, held = self._limits.audio_seconds, 3 * len(part.source)
                seconds = audio_seconds(part.source) or 0.0
                self._held.check(round(4 * self._rate * min(seconds, most)), own[0])
                if seconds <= left[1]:  # where the header does not tell, decoding ends past the limit
                    room = min(decoded_bytes(None), round(4 * self._rate * (left[1] + 1)) + held)
                    wave = load_audio(part.source, self._rate, room)
                    seconds = len(wave) / self._rate
                left[1] -= seconds
                if left[1] < 0:
                    raise ApiError(413, f"the clips are longer than {most:,.6g} seconds in all; send less", "messages")
                keep(wave, wave.nbytes)
                return Audio((wave, self._rate))
            return part

        return conversation.changed(decode)

    def _count(self, messages: list[dict[str, Any]]) -> None:
        parts = [p for m in messages if isinstance(m.get("content"), list) for p in m["content"] if isinstance(p, dict)]
        media = sum(part.get("type") in ("image_url", "audio_url", "input_audio") for part in parts)
        if media > self._limits.media:
            said = f"there are {media:,} pictures and clips, and a request here has at most {self._limits.media}"
            raise ApiError(413, said, "messages", "too_many_media")
        texts = [m["content"] for m in messages if isinstance(m.get("content"), str)]
        texts += [part["text"] for part in parts if isinstance(part.get("text"), str)]
        if sum(map(len, texts)) > self._limits.characters:
            said = f"the messages have more than {self._limits.characters:,} characters"
            raise ApiError(413, said, "messages", "too_much_text")

    def _message(self, message: dict[str, Any], index: int) -> dict[str, Any]:
        """One message in weft's own spelling; what is null says nothing."""
        where = f"messages[{index}]"
        given = {key: value for key, value in message.items() if value is not None and value != []}
        role, content, own = given.pop("role", None), message.get("content"), given.pop("weft", None)
        given.pop("content", None)
        if role in ("tool", "function") or "tool_calls" in given or "function_call" in given:
            raise ApiError(400, f"{where}: tools are not supported by this server", where, "unsupported_parameter")
        if not isinstance(role, str) or role not in ROLES:
            raise ApiError(400, f"{where}.role must be one of {', '.join(ROLES)}", f"{where}.role", "invalid_messages")
        if given:
            name = f"{where}.{next(iter(given))}"
            raise ApiError(400, f"{name[:200]} is not supported by this server", name[:200], "unsupported_parameter")
        if role == "assistant" and isinstance(own, dict) and isinstance(own.get("parts"), list) and own["parts"]:
            content = own["parts"]
        if isinstance(content, list):
            content = [self._part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
        return {"role": ROLES[role], "content": content}

    def _part(self, part: Any, where: str) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("image_url", "audio_url"):
            inner = part.get(kind)
            inner = {"url": inner} if isinstance(inner, str) else inner
            if not isinstance(inner, dict) or not isinstance(inner.get("url"), str) or set(part) != {"type", kind}:
                raise ApiError(400, f'{where}.{kind} must be {{"url": ...}}', f"{where}.{kind}", "invalid_messages")
            if set(inner) - {"url", "detail"} or inner.get("detail", "auto") not in ("auto", None):
                said = f"{where}.{kind} takes a url and nothing else; of detail, auto is all that this server has"
                raise ApiError(400, said, f"{where}.{kind}", "unsupported_parameter")
            own = kind.removesuffix("_url")
            return {"type": own, own: self._bytes(inner["url"], own, f"{where}.{kind}.url")}
        if kind == "input_audio":
            inner = part.get(kind)
            if not isinstance(inner, dict) or not isinstance(inner.get("data"), str) or set(inner) - {"data", "format"}:
                said = f'{where}.input_audio must be {{"data": base64, "format": ...}}'
                raise ApiError(400, said, f"{where}.input_audio", "invalid_messages")
            if inner.get("format", "wav") not in FORMATS:
                said = f"{where}.input_audio.format must be one of {', '.join(FORMATS)}"
                raise ApiError(400, said, f"{where}.input_audio.format", "invalid_messages")
            data = inner["data"]
            url = data if data[:5].lower() == "data:" else f"data:audio/*;base64,{data}"
            return {"type": "audio", "audio": self._bytes(url, "audio", f"{where}.input_audio.data")}
        if kind not in OWN:
            said = f"{where}.type must be one of image_url, input_audio, audio_url, {', '.join(OWN)}"
            raise ApiError(400, said, f"{where}.type", "invalid_messages")
        return part

    def _bytes(self, url: str, what: str, where: str) -> bytes:
        """What a data URL holds, or an allowed host gives; anything else is refused unopened."""
        if url[:5].lower() == "data:":
            try:
                data = encoded_source(url, what).data
            except WeftError as error:
                raise ApiError(400, f"{where}: {error}", where, "invalid_media") from None
            assert data is not None
            return data
        if url[:7].lower() == "http://" or url[:8].lower() == "https://":
            return self._fetch(url)
        raise ApiError(400, f"{where}: give a data: URL (data:{what}/...;base64,...)", where, "invalid_media")
