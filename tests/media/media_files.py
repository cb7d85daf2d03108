"""Encoded pictures and sounds that the tests make for themselves."""

import io
import struct
import zlib
from base64 import b85decode
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image


def tone(frames: int, channels: int = 1, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Float32 ``[frames, channels]``: a tone with noise, other in each channel."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / rate
    pitch = 300 + 170 * np.arange(channels)
    return (0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.standard_normal((frames, channels))).astype(np.float32)


def encode_sound(
    frames: int = 5000, rate: int = 16000, channels: int = 1, format: str = "WAV", subtype: str = "PCM_16", **more: Any
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(frames, channels, rate), rate, format=format, subtype=subtype, **more)
    return buffer.getvalue()


SOUND_FORMATS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "GSM610"),
    ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("MP3", "MPEG_LAYER_III"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("AIFF", "PCM_16"),
    ("AIFF", "ULAW"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("NIST", "PCM_16"),
    ("W64", "PCM_16"),
]


def click(frames: int, at: int, rate: int) -> np.ndarray:
    """Float32 ``[frames]``: silence, and a short wave whose highest sample is at ``at``."""
    wave = np.zeros(frames, np.float32)
    time = np.arange(-64, 64)
    wave[at - 64 : at + 64] = 0.8 * np.hanning(129)[:128] * np.cos(2 * np.pi * 1200 / rate * time)
    return wave


def encode_av(container: str, codec: str, wave: np.ndarray, rate: int, video: bool = False, **options: str) -> bytes:
    """A mono sound ``[frames]`` as FFmpeg writes it; ``options`` of its muxer."""
    import av

    if codec not in av.codecs_available:  # the wheels of PyAV differ: that of AMR is gone in 19
        pytest.skip(f"this PyAV has no encoder {codec}")

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as out:
        if video:
            picture = out.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        stream = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        fifo = av.AudioFifo()
        for block in av.AudioResampler(format=stream.codec_context.codec.audio_formats[0], rate=rate).resample(frame):
            fifo.write(block)
        if video:
            for _ in range(5):
                out.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
            out.mux(picture.encode())
        while (block := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
            out.mux(stream.encode(block))
        out.mux(stream.encode())
    return buffer.getvalue()


def photo(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """A smooth RGB picture whose corners differ, so that turning it is seen."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encode_image(image: Image.Image, format: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **more)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def tiff(values: np.ndarray, tags: dict[int, int | float] | None = None, order: str = "<", body: bytes = b"") -> bytes:
    """A TIFF of ``[H, W]`` or ``[H, W, C]`` samples as they are, in one strip; ``tags`` before those that it needs.

    Floats become FLOAT, whole numbers LONG or, up to 16 bits, SHORT. ``body``: the strip, where it is none of these.
    """
    height, width, *channels = values.shape
    body = body or values.astype(values.dtype.newbyteorder(order)).tobytes()
    count = channels[0] if channels else 1
    fields: dict[int, int | float] = {
        256: width,
        257: height,
        258: 8 * values.itemsize,
        259: 1,
        262: 2 if channels else 1,
    }
    fields |= {273: 8, 277: count, 278: height, 279: len(body), 339: {"u": 1, "i": 2, "f": 3}[values.dtype.kind]}
    fields |= tags or {}
    entries = b""
    for tag, value in sorted(fields.items()):
        kind, form = (11, "f") if isinstance(value, float) else (4, "I") if value > 65535 or tag == 273 else (3, "Hxx")
        entries += struct.pack(order + "HHI" + form, tag, kind, 1, value)
    body += b"\0" * (len(body) % 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    return head + body + struct.pack(order + "H", len(fields)) + entries + bytes(4)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes, before: bytes = b"IDAT") -> bytes:
    """A PNG with one more chunk, before the first of the kind ``before``."""
    at = png.index(before) - 4
    return png[:at] + png_chunk(kind, data) + png[at:]


# fdkaac -p 5 -m 1 -G 1: 9,000 samples of 32 kHz, the click at 5,000. Its track counts 16,000 a second, its edit list
# begins at 2,048 of these, and leaves the 962 samples out that a decoder adds, as iTunes does.
HE_AAC = zlib.decompress(
    b85decode(
        "c-muNU{FXasVwj{aa3Rc0uY^BU}BV6oS(}80UT*Xsi_PMjD@)=i6x8<N)3y{elB1H$uKvtgZXZaV4eez=hU#+uF(O+WoP&@cY{6Sk9`Z"
        "d_uXtXIXxrn)YAoW9wG<yTq{0LK4IYU?vY36or#TyPv&j?+Rm$f<jWEZe^a%4A>M(<Pr6?dp4P;!zV^jA{Y%nj>W@Mf7)d+d{GGAIp_*"
        "6z+WlS^lgSMJ-Nj6DO<z~qx62!P)Oh_`;D7bM{fUzL`t-V0K2KCmUSaU)kiNfW+v$s6`9nX>u8gz2QV|*|d^IVm$MOpo*lQMyY+n=>C^"
        ";=)(_~sT>2p4xgZghh)e~2}3@d)QNcNrPaC&GO3IrBQFP^-Uy7S(L{{H?3+rNKL{_pQ^=C3c%wmetFX4sR=kZ#$)@MklF{NW!7_41GZB"
        "z>-E{A1tV>HqkTgU~-Y<&!P^k6Zr9DKP(dXqs^;wW|RboC^;WKmu>d@drSsaJ3@^B~t@CFg#^)^YhDqyqw&!j1&eGU<Wioa0&x378sF*"
        "8BtZC^BoxQ0wy5REGbIN2C`#HvcYz;W10rE7hRAvdsR|XN{WHBOlnSX2|@?RTn?Cl3v*L46M+nc+!SnnmthD!0_G@Yq~sLAWQy}k^Uz%"
        "qk(-&924n~n=b{*-k^&KzNhwNALvl7xX;F>>gv}^ZT#}RnWM>tZ6sI7mi2~-3L=3MoG6=w&2LxuR#VN&*Ow!Px3Zz+pw77#P1H%%auUb"
        "JetUwV~5st8@E7*W6MkbJJij&d{KypR-IXO_%*`c&pae6@tvfTgwKvJT(1RR(Q2-PeMV3SIUlaa)cO)>z=RUw51NF3yLJ|O000K1T(4$"
        "22%k>Zl%d?d3BfVjRir34fP<+-UPu&_Xh3}6HnB^DIqAjgJRCM3q4R+i+047384D2cE@OiRg5OiWfV)HBdC*HOsHOacn%f<#P!B8EB&V"
        "NO8`x%nxn3Wfma1O?j"
    )
)
# amrwb-enc -r 6600: 6,400 samples of 16 kHz, the click at 3,000
AMR_WB = zlib.decompress(
    b85decode(
        "c-m7|bo33<4R_*V5m02Xlr_IHv83iu#ft|Wj~=iv7%*7Qd86cVAnI!21A&c<0W1Or3<@&o$DKc`2JLvUq2a;=kQ&1|{K`ijR9)H7$i&n"
        "<0i;GlcIjc~!=~XT2Sh{;2!PZm&gE5idEs@J!-2u0;R1_*A%lg?lEcj3Sz|W5N%1(508yi-+H%9|>W2h}MaB$Zb7WW!IUg1cEKCq|uw-"
        "D_6yRVh#`fsdY2$@cTwIQB+rZKw!N56FB+UA?YP>@r(`1DLkS+sR@r23$Z7wq~FeGd^05Vx~4vzxsgQ$B28UnH^3m`5$a_G==+Yp0BM#"
        "csO76wBG!?`@lEEl})x!Ot?NC<#kD4TxJ`Mhexf(;52woHJyaGgraldOBCtP?o)3P3`G<pA?x*1&)O28DtKkU5%j`PEo1WL;D$N>DIR0"
        "I9K%O*wS<ylJ#SgTMiY001zMcdq"
    )
)
