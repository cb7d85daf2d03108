"""What training reads samples from: a protocol, and the one place that knows which kinds there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from weft.conversation import Conversation
from weft.named import Named

MANIFEST = "shards.json"  # names and numbers of samples, so that thousands of shards need not be opened to begin
SHARD_ENDINGS = (".tar", ".parquet")


class Source(Protocol):
    """Samples by number, in an order that stays. Sent to other processes, and read from several threads."""

    name: str

    @property
    def path(self) -> str | Path: ...

    @property
    def home(self) -> Path | None:
        """The folder here in which what is measured of the samples may be kept; None: they are elsewhere."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Conversation:
        """One sample; `WeftError` where it is no sample or cannot be read."""

    def where(self, index: int) -> str:
        """``file:line`` of one sample, for messages."""

    def fingerprint(self) -> str:
        """Another one, where the samples have changed."""


SOURCES = Named[Callable[[str | Path, str | None], Source]]({"shards": "weft.data.shards:Shards"})  # beside lines


def open_source(path: str | Path, name: str | None = None, media_root: str | None = None) -> Source:
    """The samples at ``path``: a JSON Lines file, or shards (a folder or address of them, or a single one)."""
    from weft.data.sample_file import SampleFile

    return SOURCES["shards"](path, name) if is_shards(path) else SampleFile(path, name, media_root)


def is_address(path: str | Path) -> bool:
    """Whether samples lie elsewhere (``s3://...``), where nothing is looked for before it is read."""
    return "://" in str(path)


def is_shards(path: str | Path) -> bool:
    """Whether a path is one of shards: by its ending, an address, or a folder that holds some."""
    if is_address(path) or str(path).endswith(SHARD_ENDINGS):
        return True
    folder = Path(path)
    return folder.is_dir() and any(p.name == MANIFEST or p.suffix in SHARD_ENDINGS for p in folder.iterdir())


def absolute(path: str | Path) -> str:
    return str(path) if is_address(path) else str(Path(path).absolute())
