"""Speech by espeak-ng with the time of every word, the same bytes for the same words, whatever was said before.

The library keeps a random state that changes with each utterance. So a small process of its own loads it once and is
copied (forked) for every utterance: each starts from the same state, and none sees the memory of the program that asks.
espeak-ng is GPL: it is loaded only here, from the optional package ``espeakng-loader``. This file imports nothing of
weft, for the small process runs it alone.
"""

from __future__ import annotations

import atexit
import ctypes as C
import json
import os
import struct
import subprocess
import sys
from typing import Any

_SYNCHRONOUS, _CHARACTERS, _UTF8, _END_PAUSE, _WORD = 2, 1, 1, 0x1000, 1
_RATE, _PITCH = 1, 3
_servers: dict[int, subprocess.Popen[bytes]] = {}  # by process: a copy of a program must not share its parent's


def speak(text: str, voice: str, rate: int = 175, pitch: int = 50) -> tuple[bytes, int, list[tuple[int, int]]]:
    """Mono 16-bit sound, its samples a second, and (milliseconds, character of ``text``) where each word begins.

    ``rate`` in words a minute; ``pitch`` 0 to 99, 50 as the voice has it. Raises ImportError without espeakng-loader.
    """
    server = _servers.get(os.getpid())
    if server is None or server.poll() is not None:
        import espeakng_loader

        command = [sys.executable, "-I", __file__, espeakng_loader.get_library_path(), espeakng_loader.get_data_path()]
        server = _servers[os.getpid()] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(_end, server)
    assert server.stdin and server.stdout
    server.stdin.write(json.dumps([text, voice, rate, pitch]).encode() + b"\n")
    server.stdin.flush()
    head = server.stdout.read(12)
    if len(head) < 12:
        _end(_servers.pop(os.getpid()))
        raise OSError(f"espeak-ng ended without a word when it was to say {text!r} as {voice!r}")
    samples, count, hertz = struct.unpack("<3i", head)
    sound = server.stdout.read(2 * samples)
    starts = list(struct.iter_unpack("<2i", server.stdout.read(8 * count)))
    return sound, hertz, starts  # type: ignore[return-value]


def _end(server: subprocess.Popen[bytes]) -> None:
    with server:
        pass  # closes what leads to it, which ends it, and waits


class _Event(C.Structure):
    _fields_ = (
        *(("type", C.c_int), ("id", C.c_uint), ("position", C.c_int), ("length", C.c_int)),
        *(("milliseconds", C.c_int), ("sample", C.c_int), ("user", C.c_void_p), ("name", C.c_char * 8)),
    )


def _serve(library: str, data: str) -> None:
    """Answers one request a line, each in a copy of this process."""
    espeak = C.CDLL(library)
    hertz = espeak.espeak_Initialize(_SYNCHRONOUS, 200, data.encode(), 0)
    if hertz <= 0:
        raise OSError(f"espeak-ng does not start with {data}")
    for line in sys.stdin.buffer:
        child = os.fork()
        if child == 0:
            with os.fdopen(1, "wb") as out:
                out.write(_say(espeak, hertz, *json.loads(line)))
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            raise OSError(f"espeak-ng failed on {line.decode()}")


def _say(espeak: Any, hertz: int, text: str, voice: str, rate: int, pitch: int) -> bytes:
    sound, starts = bytearray(), bytearray()

    @C.CFUNCTYPE(C.c_int, C.POINTER(C.c_short), C.c_int, C.POINTER(_Event))
    def heard(wave: Any, samples: int, events: Any) -> int:
        if wave and samples > 0:
            sound.extend(C.string_at(wave, 2 * samples))
        i = 0
        while events[i].type != 0:
            if events[i].type == _WORD:
                starts.extend(struct.pack("<2i", events[i].milliseconds, events[i].position - 1))
            i += 1
        return 0

    espeak.espeak_SetSynthCallback(heard)
    if espeak.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {voice!r}")
    espeak.espeak_SetParameter(_RATE, rate, 0)
    espeak.espeak_SetParameter(_PITCH, pitch, 0)
    given = text.encode()
    espeak.espeak_Synth(given, C.c_size_t(len(given) + 1), 0, _CHARACTERS, 0, _UTF8 | _END_PAUSE, None, None)
    espeak.espeak_Synchronize()
    return struct.pack("<3i", len(sound) // 2, len(starts) // 8, hertz) + bytes(sound) + bytes(starts)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
