"""What tests of the server share: requests with media made here, and the same asked of the model itself."""

import base64
import io
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np

from tiny_model import picture

NAME = "tiny"


@dataclass
class Served:
    model: Any
    engine: Any
    port: int
    http: Any

    def chat(self, messages, **fields):
        return self.http.post("/v1/chat/completions", json=request(messages, **fields))


def png(seed=0):
    out = io.BytesIO()
    picture(seed).save(out, "PNG")
    return out.getvalue()


def wav(seconds=0.7, seed=0):
    out, samples = io.BytesIO(), np.random.default_rng(seed).normal(0, 3000, round(seconds * 16000)).astype("<i2")
    with wave.open(out, "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def coded(data):
    return base64.b64encode(data).decode()


def image(data):
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{coded(data)}"}}


def audio(data, form="wav"):
    return {"type": "input_audio", "input_audio": {"data": coded(data), "format": form}}


def user(*parts):
    return [
        {"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]},
    ]


def request(messages, **fields):
    return {"model": NAME, "messages": messages, "max_tokens": 12, "temperature": 0, **fields}


def questions():
    """As clients write them, and as `Model.chat` takes them."""
    task = {"type": "task", "task": "transcribe", "language": "en", "timestamps": True}
    asked = [
        [png(1), "what is in the picture?"],
        ["one", png(2), "and", png(3), wav(0.5), "which?"],
        [wav(1.2, 1), task],
        [wav(0.4, 2), png(4), wav(0.6, 3), "both"],
        ["hello"],
    ]
    return [(user(*map(written, parts)), own(parts)) for parts in asked]


def written(part):
    if isinstance(part, bytes):
        return image(part) if part.startswith(b"\x89PNG") else audio(part)
    return part


def own(parts):
    made = []
    for part in parts:
        if isinstance(part, bytes):
            kind = "image" if part.startswith(b"\x89PNG") else "audio"
            made.append({"type": kind, kind: part})
        else:
            made.append({"type": "text", "text": part} if isinstance(part, str) else part)
    return [{"role": "user", "content": made}]
