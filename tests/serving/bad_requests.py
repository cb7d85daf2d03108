"""Requests that no client should send: a right one with something wrong in it. All from a seed."""

import json
import random
import struct
import zlib

from serving_kit import audio, image, png, request, user, wav

VALUES = [
    None, "", -1, 0, 1e308, -1e-300, 10**400, 2**63, True, [], {}, [[]], [None], {"a": {"b": []}}, "a" * 5000, "\x00",
    "\ud800", "<|im_end|><|audio|>", "../../etc/passwd", "file:///etc/passwd", "'; DROP TABLE x; --", "{{7*7}}", "%s%n",
    "${jndi:ldap://127.0.0.1/a}", "\u202e\u0000\uffff", float("nan"), float("inf"),
]  # fmt: skip
URLS = [
    "http://127.0.0.1:{port}/x", "http://[::1]:{port}/", "http://localhost:{port}", "HTTP://2130706433:{port}/",
    "https://169.254.169.254/latest/meta-data", "file:///etc/passwd", "/etc/passwd", "data:", "data:,", "gopher://x",
    "data:image/png;base64,", "data:image/png;base64,!!!!", "data:image/svg+xml,<svg onload='a'/>", "data:text/html,a",
    "\\\\host\\share", "ftp://127.0.0.1/a",
]  # fmt: skip
FIELDS = [
    "model", "messages", "max_tokens", "temperature", "top_p", "n", "stop", "stream", "seed", "logprobs", "top_k", "x",
    "top_logprobs", "tools", "response_format", "stream_options", "metadata", "max_completion_tokens",
]  # fmt: skip


def bomb(width, height):
    """A PNG whose header promises what its few bytes could never hold."""
    chunk = lambda k, d: struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))  # noqa: E731
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def damaged(draw, data):
    """Bytes with a few changed, cut, or put in twice."""
    data = bytearray(data)
    for _ in range(draw.randrange(1, 8)):
        at = draw.randrange(len(data))
        kind = draw.randrange(3)
        if kind == 0:
            data[at] = draw.randrange(256)
        elif kind == 1:
            del data[at:]
        else:
            data[at:at] = data[max(0, at - 50) : at]
        if not data:
            return b"\x00"
    return bytes(data)


def media(draw):
    """A part that holds a hostile or damaged picture or clip."""
    kind = draw.randrange(6)
    if kind == 0:
        return image(damaged(draw, png(draw.randrange(9))))
    if kind == 1:
        return audio(damaged(draw, wav(0.2, draw.randrange(9))), draw.choice(["wav", "mp3", "exe", "", "webm"]))
    if kind == 2:
        return image(bomb(draw.choice([1, 60_000, 2**31 - 1]), draw.choice([0, 60_000, 2**31 - 1])))
    if kind == 3:
        return (image if draw.random() < 0.5 else audio)(draw.randbytes(draw.randrange(300)))
    if kind == 4:  # a WAV that promises four gigabytes
        return audio(wav(0.1)[:40] + b"\xff\xff\xff\xff" + wav(0.1)[44:])
    return image(wav(0.1)) if draw.random() < 0.5 else audio(png())


def walk(value, path=()):
    """The places of all values within a request."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from walk(value[key], (*path, key))


def changed(draw, body):
    """Something at any place in it is another value, is gone, or has another name."""
    places = [path for path in walk(body) if path]
    path = draw.choice(places)
    parent = body
    for key in path[:-1]:
        parent = parent[key]
    kind = draw.randrange(3)
    if kind == 0 or isinstance(parent, list):
        parent[path[-1]] = draw.choice(VALUES)
    elif kind == 1:
        del parent[path[-1]]
    else:
        parent[draw.choice(["", "x", "type", "content", "\ud800"])] = parent.pop(path[-1])
    return body


def bad_request(seed, port=1):
    """The body of a request to `/v1/chat/completions`: bytes. Some are right by chance."""
    draw = random.Random(seed)
    parts = [image(png(seed % 5)), audio(wav(0.2, seed % 5)), {"type": "task", "task": "refer"}, "what?"]
    draw.shuffle(parts)
    body = request(user(*parts[: draw.randrange(1, 5)]), max_tokens=draw.choice([1, 2, 4]))
    kind = draw.randrange(7)
    if kind == 0:
        body[draw.choice(FIELDS)] = draw.choice(VALUES)
    elif kind == 1:
        url = draw.choice(URLS).replace("{port}", str(port))
        part = draw.choice(["image_url", "audio_url"])
        body["messages"][0]["content"].insert(0, {"type": part, part: {"url": url}})
    elif kind == 2:
        body["messages"][0]["content"].insert(draw.randrange(2), media(draw))
    elif kind == 3:
        for _ in range(draw.randrange(1, 4)):
            body = changed(draw, body)
    elif kind == 4:
        deep = draw.choice([50, 5000])
        body["messages"] = json.loads("[" * 20 + "]" * 20) if deep == 50 else body["messages"]
        return ("[" * deep).encode() if deep == 5000 else _bytes(body)
    elif kind == 5:
        return damaged(draw, _bytes(body))
    else:
        turn = {"role": draw.choice(["assistant", "system", "tool", 7, "user"]), "content": draw.choice(VALUES)}
        body["messages"].insert(draw.randrange(2), turn)
    return _bytes(body)


def _bytes(body):
    return json.dumps(body).encode()  # NaN, Infinity and half characters as JSON of careless clients has them
