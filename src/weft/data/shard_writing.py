"""A sample file and its media as shards of one size, that any number of machines read at random (`data.shards`)."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from weft.conversation import Audio, Image, WeftError
from weft.conversation.samples import BOM
from weft.data.sample_file import SampleFile
from weft.data.source import MANIFEST
from weft.data.tar_shard import UNKNOWN, Member, index_rows
from weft.files import whole_folder, write_json
from weft.media import audio_frames, image_size

GROUP_BYTES, GROUP_ROWS = 1 << 20, 256  # of a Parquet row group, which is read whole for each of its samples
BLOCK = tarfile.BLOCKSIZE

Format = Literal["tar", "parquet"]


@dataclass
class _Sample:
    name: str
    text: bytes
    media: dict[str, tuple[bytes, tuple[int, int, int]]] = field(default_factory=dict)  # by name, with their facts


class _Writer(Protocol):
    """One shard under way."""

    bytes: int

    def __init__(self, path: Path) -> None: ...

    def add(self, sample: _Sample) -> None: ...

    def close(self) -> None: ...


class _Tar:
    def __init__(self, path: Path) -> None:
        self.path, self.bytes = path, 0
        self.tar = tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT)
        self.index: list[list[Member]] = []

    def add(self, sample: _Sample) -> None:
        members: list[Member] = [self._add(f"{sample.name}.json", sample.text, UNKNOWN)]
        members += [self._add(name, data, facts) for name, (data, facts) in sample.media.items()]
        self.index.append(members)

    def _add(self, name: str, data: bytes, facts: tuple[int, int, int]) -> Member:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self.tar.addfile(info, io.BytesIO(data))
        self.bytes = self.tar.offset
        return name, self.bytes - -(-len(data) // BLOCK) * BLOCK, len(data), facts

    def close(self) -> None:
        self.tar.close()
        with open(f"{self.path}.index", "wb") as file:
            np.save(file, index_rows(self.index))


class _Parquet:
    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise WeftError('Parquet is written with the extra "layouts": pip install "weftlm[layouts]"') from None
        medium = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        fields = {"sample": pa.string(), "media": pa.list_(medium), "facts": pa.list_(pa.list_(pa.int64()))}
        self.schema, self.table = pa.schema(fields), pa.Table
        self.file = pq.ParquetWriter(path, self.schema)
        self.rows: list[dict[str, Any]] = []
        self.bytes = self.held = 0

    def add(self, sample: _Sample) -> None:
        media = [{"bytes": data, "path": name} for name, (data, _) in sample.media.items()]
        facts = [list(facts) for _, facts in sample.media.values()]
        size = len(sample.text) + sum(len(medium["bytes"]) for medium in media)
        self.rows.append({"sample": sample.text.decode(), "media": media, "facts": facts})
        self.bytes, self.held = self.bytes + size, self.held + size
        if self.held >= GROUP_BYTES or len(self.rows) == GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        self.file.write_table(self.table.from_pylist(self.rows, self.schema))
        self.rows, self.held = [], 0

    def close(self) -> None:
        if self.rows:
            self._flush()
        self.file.close()


WRITERS: dict[Format, type[_Writer]] = {"tar": _Tar, "parquet": _Parquet}


def shard(
    file: str | Path,
    folder: str | Path,
    *,
    format: Format = "tar",
    size: int = 256 << 20,
    media_root: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[str, int]]:
    """Writes the samples of a JSON Lines file into ``folder``, media inside; gives each shard's name and samples.

    A shard is closed once it holds ``size`` bytes. The folder is whole or is not there. Raises `WeftError` for a sample
    that breaks the format, a medium whose header cannot be read, and a folder that is there already.
    """
    source = SampleFile(file, media_root=media_root)
    if Path(folder).exists():
        raise WeftError(f"{folder}: is there already, and nothing is overwritten; name a new folder")
    done: list[tuple[str, int]] = []
    writer: _Writer | None = None
    count = 0
    with whole_folder(folder) as place:
        for number, sample in enumerate(_samples(source)):
            if writer is None:
                name, count = f"{len(done):05d}.{format}", 0
                writer = WRITERS[format](place / name)
            writer.add(sample)
            count += 1
            if writer.bytes >= size or number == len(source) - 1:
                writer.close()
                done.append((name, count))
                writer = None
            if progress:
                progress(number + 1, len(source))
        listed = {"shards": [{"name": name, "samples": samples} for name, samples in done]}
        write_json(place / MANIFEST, listed)
    return done


def _ending(path: str) -> str:
    ending = Path(path).suffix.lower()
    return ending if ending.isascii() and ending[1:].isalnum() and len(ending) < 8 else ""


def _samples(source: SampleFile) -> Iterator[_Sample]:
    """Each sample with its media under names of its own: those that `tar` unpacks them to, beside its text."""
    for index in range(len(source)):
        conversation, stem = source[index], f"{index:09d}"
        text = json.loads(source.raw(index).removeprefix(BOM))
        paths = [part.source for part in conversation.parts() if isinstance(part, Image | Audio)]
        names: dict[str, str] = {}
        made = _Sample(stem, b"")
        try:
            for part in conversation.parts():
                if isinstance(part, Image | Audio) and not part.source.startswith("data:") and part.source not in names:
                    names[part.source] = name = f"{stem}.{len(names)}{_ending(part.source)}"
                    facts = image_size(part.source) if isinstance(part, Image) else audio_frames(part.source)
                    data = Path(part.source).read_bytes()
                    same = int.from_bytes(hashlib.sha256(data).digest()[:8], "little") >> 1 or 1  # 63 bits, none of 0
                    made.media[name] = data, (*facts, same)
        except WeftError as error:
            raise WeftError(f"{source.where(index)}: {error}") from None
        parts = [p for m in text["messages"] if isinstance(m["content"], list) for p in m["content"]]
        for part, path in zip((p for p in parts if p["type"] in ("image", "audio")), paths, strict=True):
            part[part["type"]] = names.get(path, path)
        made.text = json.dumps(text, ensure_ascii=False).encode()
        yield made
