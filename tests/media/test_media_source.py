import base64
import io
import os

import pytest
from media_files import encode_image, encode_sound, photo

from weft.conversation.errors import WeftError
from weft.kinds import sniff
from weft.media import MediaError, audio_samples, image_size, load_audio, load_image
from weft.media import source as source_module

PNG = encode_image(photo(), "PNG")
WAV = encode_sound()


def test_every_kind_of_source_gives_the_same_picture(tmp_path):
    path = tmp_path / "a picture: größe.png"
    path.write_bytes(PNG)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    pixels = photo().tobytes()
    with path.open("rb") as file:
        for source in (path, str(path), url, PNG, bytearray(PNG), memoryview(PNG), io.BytesIO(PNG), file, photo()):
            assert image_size(source) == (40, 30)
            assert load_image(source).tobytes() == pixels


def test_every_kind_of_source_gives_the_same_sound(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(WAV)
    url = "data:audio/wav;base64," + base64.b64encode(WAV).decode()
    wave = load_audio(path)
    with path.open("rb") as file:
        for source in (str(path), url, WAV, io.BytesIO(WAV), file, (wave, 16000), wave):
            assert audio_samples(source) == len(wave) == 5000
            assert (load_audio(source) == wave).all()


def test_a_file_object_is_read_from_where_it_stands_and_put_back():
    file = io.BytesIO(b"skip" + PNG)
    file.seek(4)
    assert load_image(file).size == (40, 30)
    assert file.tell() == 4


@pytest.mark.parametrize("load", [load_image, image_size, load_audio, audio_samples])
@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/a.png",
        "HTTPS://example.org/a.wav",
        "ftp://example.org/a",
        "s3://bucket/a",
        "file:///etc/passwd",
        "file:a.png",
    ],
)
def test_addresses_are_refused_and_not_opened(load, address, monkeypatch):
    monkeypatch.setattr("socket.socket", None)
    with pytest.raises(MediaError, match="address"):
        load(address)


@pytest.mark.parametrize("load", [load_image, image_size, load_audio, audio_samples])
def test_what_is_no_file_is_refused_with_the_reason(load, tmp_path):
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    text = tmp_path / "text.png"
    text.write_text("hello")
    for source, reason in (
        (tmp_path / "absent.png", "no such"),
        (tmp_path, "folder"),
        (tmp_path / "empty", "empty"),
        (tmp_path / "pipe", "pipe"),
        ("/dev/zero", "device"),
        ("", "empty"),
        ("nul\0byte", "cannot be opened"),
        (base64.b64encode(PNG * 20).decode(), "data:"),
        (b"", "empty"),
        (io.BytesIO(), "empty"),
        (io.StringIO("text"), "binary"),
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,!!!!", "base64"),
        (None, "NoneType"),
        (7, "int"),
        (text, "is not a"),
        (b"\0" * 100, "is not a"),
        (b"<!DOCTYPE html><html>404", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    ):
        with pytest.raises(MediaError, match=reason):
            load(source)


def test_a_data_url_may_be_percent_encoded_or_wrapped():
    wrapped = "\n".join(base64.b64encode(PNG).decode()[i : i + 60] for i in range(0, 4 * len(PNG) // 3 + 4, 60))
    assert image_size("data:image/png;base64," + wrapped) == (40, 30)
    assert image_size("data:," + "".join(f"%{byte:02x}" for byte in PNG)) == (40, 30)


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "MAX_MEMORY_BYTES", 100)
    monkeypatch.setattr(source_module, "MAX_BYTES", 1000)
    path = tmp_path / "large.wav"
    path.write_bytes(WAV)
    for load, source in ((load_audio, path), (load_image, PNG), (load_image, io.BytesIO(PNG))):
        with pytest.raises(MediaError, match="limit"):
            load(source)


def test_a_mislabelled_file_is_read_as_what_it_is(tmp_path):
    (tmp_path / "really_png.jpg").write_bytes(PNG)
    (tmp_path / "really_flac.raw").write_bytes(encode_sound(format="FLAC"))
    (tmp_path / "really_mp3.wav").write_bytes(encode_sound(format="MP3", subtype="MPEG_LAYER_III"))
    assert load_image(tmp_path / "really_png.jpg").size == (40, 30)
    assert len(load_audio(tmp_path / "really_flac.raw")) == 5000
    assert len(load_audio(tmp_path / "really_mp3.wav")) == 5000
    with pytest.raises(MediaError, match="is a PNG picture"):
        load_audio(tmp_path / "really_png.jpg")
    with pytest.raises(MediaError, match="is a FLAC sound"):
        load_image(tmp_path / "really_flac.raw")


def test_an_error_is_one_sentence_that_names_the_file(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(PNG[:100])
    with pytest.raises(WeftError, match="broken.png: ") as caught:
        load_image(path)
    assert "\n" not in str(caught.value)


def test_signatures_name_what_users_bring():
    assert sniff(PNG) == "a PNG picture"
    assert sniff(b"\0\0\0\x20ftypM4A ") == "an M4A (AAC) sound"
    assert sniff(b"\0\0\0\x20ftypheic") == "a HEIC picture"
    assert sniff(b"nothing") is None
