"""Sound of encoders that no package brings: HE-AAC as fdkaac 1.0.7 (FDK 2.0.3) wrote it, wide-band AMR as vo-amrwbenc's
program did, each of a click in silence; and AAC in a CAF, which FFmpeg reads and does not write."""

import io
import struct

import numpy as np
import pytest
from media_files import AMR_WB, HE_AAC, click, encode_av

from weft.media import audio_samples, load_audio
from weft.media.notes import audio_notes

av = pytest.importorskip("av", reason="the extra media is not installed")


def place(data: bytes, rate: int) -> int:
    return int(np.abs(load_audio(data, rate)).argmax())


def test_an_edit_list_is_read_by_the_clock_of_its_track():
    assert len(load_audio(HE_AAC, 32000)) == audio_samples(HE_AAC, 32000) == 9000
    assert place(HE_AAC, 32000) == 5000 + 961
    assert ["late by 30 ms" in note for note in audio_notes(HE_AAC)] == [True]  # 962 samples
    whole = HE_AAC.replace(struct.pack(">ii", 4500, 2048), struct.pack(">ii", 4500, 2529))  # as other writers count
    assert whole != HE_AAC and len(load_audio(whole, 32000)) == 9000 and place(whole, 32000) == 4999


def test_he_aac_without_an_edit_list_is_late_by_all_that_its_codec_adds():
    made = io.BytesIO()
    with av.open(io.BytesIO(HE_AAC)) as read, av.open(made, "w", format="adts") as written:
        stream = written.add_stream_from_template(read.streams.audio[0])
        for packet in read.demux(audio=0):
            if packet.size:
                packet.stream = stream
                written.mux(packet)
    assert place(made.getvalue(), 32000) == 5000 + 5057
    assert ["late by 226 ms" in note for note in audio_notes(made.getvalue())] == [
        True
    ]  # of version 2, which it may be


def aac_in_caf(wave: np.ndarray, rate: int) -> bytes:
    """Packets of FFmpeg's encoder, in chunks as Apple's Core Audio Format Specification lays them out."""
    with av.open(io.BytesIO(encode_av("ipod", "aac", wave, rate))) as container:
        config = bytes(container.streams.audio[0].codec_context.extradata)
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    def descriptor(tag: int, body: bytes) -> bytes:
        return bytes((tag, 0x80, 0x80, 0x80, len(body))) + body

    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack(">q", len(body)) + body

    decoder = descriptor(4, bytes((0x40, 0x15, 0, 0, 0)) + bytes(8) + descriptor(5, config))
    counts = struct.pack(">qqii", len(packets), len(wave), 1024, 1024 * len(packets) - 1024 - len(wave))
    sizes = b"".join(bytes((0x80 | len(p) >> 7, len(p) & 0x7F)) for p in packets)
    return b"".join(
        (
            b"caff\0\1\0\0",
            chunk(b"desc", struct.pack(">d4s5I", rate, b"aac ", 0, 0, 1024, 1, 0)),
            chunk(b"kuki", descriptor(3, bytes(3) + decoder + descriptor(6, b"\2"))),
            chunk(b"pakt", counts + sizes),
            chunk(b"data", bytes(4) + b"".join(packets)),
        )
    )


def test_aac_in_a_caf_begins_and_ends_where_its_counts_say():
    data = aac_in_caf(click(16487, 8000, 16000), 16000)
    assert len(load_audio(data, 16000)) == audio_samples(data, 16000) == 16487
    assert place(data, 16000) == 8000 and audio_notes(data) == ()


def test_wide_band_amr_is_late_by_what_its_note_says():
    assert len(load_audio(AMR_WB, 16000)) == audio_samples(AMR_WB, 16000) == 6400
    assert abs(place(AMR_WB, 16000) - 3000 - 95) <= 40  # its own error; 94 to 95 samples of noise
    assert ["late by 6 ms" in note for note in audio_notes(AMR_WB)] == [True]
