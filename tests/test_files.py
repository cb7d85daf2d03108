"""Whatever happens while a file or folder is written, it is whole or as it was before; and who holds a lock."""

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import weft
from weft.files import ASIDE, lock, remove_folder, whole_file, whole_folder

WORDS = RuntimeError("I/O error: No space left on device (os error 28)")  # as safetensors says it


def test_a_file_appears_in_the_end_with_what_was_written(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with whole_file(path) as file:
        file.write("naïve\n")
        assert not path.exists()
    assert path.read_bytes() == "naïve\n".encode()
    with whole_file(path, "wb") as file:
        file.write(b"\r\n")
    assert path.read_bytes() == b"\r\n" and os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there_and_nothing_beside_it(tmp_path, error):
    (tmp_path / "a.txt").write_text("before")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(type(error)), whole_file(tmp_path / "a.txt") as file:
        file.write("half")
        raise error
    with pytest.raises(type(error)), whole_folder(tmp_path / "model") as folder:
        (folder / "half").write_text("half")
        raise error
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "model"] and (tmp_path / "a.txt").read_text() == "before"
    assert os.listdir(tmp_path / "model") == ["config.json"]


def test_a_folder_takes_the_place_of_what_was_there_and_of_what_a_kill_left(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("")
    (tmp_path / f"{ASIDE}model").mkdir()
    (tmp_path / f"{ASIDE}model" / "half").write_text("half")
    with whole_folder(tmp_path / "model") as folder:
        (folder / "new").write_text("")
        assert os.listdir(tmp_path / "model") == ["old"]
    assert os.listdir(tmp_path) == ["model"] and os.listdir(tmp_path / "model") == ["new"]
    remove_folder(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_file_has_the_rights_that_a_new_file_has_and_a_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.txt").symlink_to(tmp_path / "elsewhere" / "a.txt")
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a.txt") as file:
            file.write("a")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").is_symlink() and (tmp_path / "elsewhere" / "a.txt").read_text() == "a"
    assert (tmp_path / "elsewhere" / "a.txt").stat().st_mode & 0o777 == 0o640


def test_two_that_write_one_file_at_once_do_not_mix(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as one:
        one.write("1" * 10)
        with whole_file(path) as other:
            other.write("2" * 5)
        one.write("1" * 10)
    assert path.read_text() == "1" * 20


@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "Disk quota exceeded"), WORDS])
@pytest.mark.parametrize("write", [whole_file, whole_folder])
def test_a_full_disk_is_one_error_that_names_what_was_to_be_written(tmp_path, write, error):
    with pytest.raises(OSError) as said, write(tmp_path / "a"):
        raise error
    assert said.value.errno == errno.ENOSPC and said.value.filename == str(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_nothing_else_in_weft_writes_aside_on_its_own():
    own = re.compile(r"os\.(replace|rename|fsync)\b|\.rename\(|mkstemp|tempfile\.(?!TemporaryDirectory)")
    source = Path(weft.__file__).parent
    found = [p.relative_to(source).as_posix() for p in source.rglob("*.py") if own.search(p.read_text())]
    assert found == ["files.py"]


def test_a_lock_keeps_others_out_and_says_who_holds_it(tmp_path):
    with lock(tmp_path / "it", RuntimeError):
        holder = f"process {os.getpid()} on {re.escape(socket.gethostname())}"
        with pytest.raises(RuntimeError, match=holder), lock(tmp_path / "it", RuntimeError):
            pass
    assert os.listdir(tmp_path) == []
    with lock(tmp_path / "it", RuntimeError):
        pass


HOLDS = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(handle, fcntl.LOCK_EX)
os.write(handle, b"process 1 on elsewhere")
print(flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_holds_nothing(tmp_path):
    child = subprocess.Popen([sys.executable, "-I", "-c", HOLDS, tmp_path / "it"], stdout=subprocess.PIPE)
    child.stdout.readline()
    with pytest.raises(RuntimeError, match="process 1 on elsewhere"), lock(tmp_path / "it", RuntimeError):
        pass
    child.kill()
    child.wait()
    with lock(tmp_path / "it", RuntimeError):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_said_and_gone_on_with(tmp_path, monkeypatch, caplog, number):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with lock(tmp_path / "it", RuntimeError):
        assert "has no locks" in caplog.text and os.strerror(number) in caplog.text
    assert os.listdir(tmp_path) == []
