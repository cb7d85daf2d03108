"""Ranks of one machine end together, and it is said which one was lost."""

import os
import signal
import sys
import threading
import time

import pytest

from weft.training import launch as launching
from weft.training.launch import launch


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(launching, "GRACE", 1.0)
    monkeypatch.setattr(launching, "LOOK", 0.02)


def ranks(source: str, count: int = 3) -> int:
    return launch(
        count, [sys.executable, "-S", "-c", "import os, sys, time; rank = int(os.environ['RANK'])\n" + source]
    )


def test_each_rank_is_told_who_it_is_and_only_the_first_is_heard(tmp_path, capfd):
    source = f"""
print(rank, os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"])
print("rank", rank, "whispers", file=sys.stderr)
open({str(tmp_path)!r} + f"/{{rank}}", "w").write(os.environ["MASTER_ADDR"] + os.environ["MASTER_PORT"])
"""
    assert ranks(source) == 0
    told = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert set(told) == {"0", "1", "2"} and len(set(told.values())) == 1
    out, err = capfd.readouterr()
    assert out == "0 3 0\n" and err == "rank 0 whispers\n"


def test_a_rank_that_is_killed_ends_the_others_in_bounded_time(capfd):
    began = time.monotonic()
    assert ranks("os.kill(os.getpid(), 9) if rank == 1 else time.sleep(600)") == 128 + signal.SIGKILL
    assert time.monotonic() - began < 60
    assert "rank 1 of 3 was ended by SIGKILL (the machine may have run out of memory)" in capfd.readouterr().err


def test_what_a_rank_says_that_fails_first_is_heard(capfd):
    assert ranks("sys.exit('a mistake of mine') if rank == 2 else time.sleep(600)") == 1
    assert "a mistake of mine" in capfd.readouterr().err


def test_a_mistake_of_the_first_rank_is_the_commands():
    assert ranks("time.sleep(0.1); sys.exit(2)") == 2


def test_a_signal_reaches_every_rank(tmp_path):
    source = f"""
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
open({str(tmp_path)!r} + f"/{{rank}}", "w").close()
time.sleep(600)
"""

    def stop() -> None:
        while len(list(tmp_path.iterdir())) < 3:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert ranks(source) == 143
