"""One writer of files and folders: each is whole or is not there. And one lock that keeps a second process away.

What is written goes beside its place under another name, is brought to the disk, and only then gets its own: a kill, a
full disk or a power cut at any moment leaves what was there before.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FULL = (errno.ENOSPC, errno.EDQUOT)
ASIDE = ".writing-"  # how the name of a folder begins while it is written


@contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """``with whole_file(path) as file``: what is written takes the place of ``path`` where all ends well.

    ``mode``: "w" (UTF-8, lines end in a newline alone) or "wb". Folders above it are made; a link is followed. Raises
    what the block raises, as `OSError` ENOSPC where that says in words that the disk is full.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two that write one file at once do not mix, and the last one's is there.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with _named(path), open(aside, mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_json(path: str | os.PathLike[str], content: Any, indent: int = 1) -> None:
    """A JSON file, whole or not there; half characters, which names of files may hold, are written as escapes."""
    with whole_file(path, "wb") as file:
        file.write(f"{json.dumps(content, ensure_ascii=False, indent=indent)}\n".encode("utf-8", "backslashreplace"))


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """``with whole_folder(path) as folder``: what is written there takes the place of ``path``.

    What an interrupted write leaves beside it is replaced by the next. Raises as `whole_file` does.
    """
    path = Path(os.path.realpath(path))
    aside = path.with_name(ASIDE + path.name)
    try:
        with _named(path):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            yield aside
            for written in (*sorted(aside.rglob("*")), aside):
                _sync(written)
        if path.exists():
            remove_folder(path)
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _sync(path.parent)


def remove_folder(path: Path) -> None:
    """Take a folder away in one step first, so that a kill while deleting leaves no half of it under its name."""
    gone = path.with_name(f"{ASIDE}gone-{path.name}")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def lock(path: Path, taken: Callable[[str], Exception]) -> Iterator[None]:
    """Holds the file ``path`` meanwhile, against every other process; it is gone afterwards.

    Where another one holds it, raises at once what ``taken("process 12 on host")`` gives. A process that dies, however
    it dies, holds nothing. Where the file system has no locks, that is said, and there is none.
    """
    handle = _locked(path, taken)
    try:
        with suppress(OSError):  # a full disk is no reason: the name is for people
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path, taken: Callable[[str], Exception]) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
            os.close(handle)
            raise taken(holder or "another process") from None
        except OSError as error:
            said = f"{path.parent}: this file system has no locks ({error.strerror}); see that no second process comes"
            logging.getLogger("weft").warning(said)
            return handle
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)  # whoever held it took the file away meanwhile


def on_disk(handle: int) -> None:
    """Brings what was written through an open file to the disk, before what it was copied from goes."""
    os.fsync(handle)


def digits(value: Any) -> str:
    """Eight hexadecimal digits that stand for a value that JSON can say, or whose str tells it from others."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full (safetensors tells it in words only)."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return "No space left on device" in str(error) or "os error 28" in str(error)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """A full disk is one error, whoever meets it, and names what was to be written."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk; not every system syncs folders."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError:
        if not path.is_dir():
            raise
