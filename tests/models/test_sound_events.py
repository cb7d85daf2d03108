"""Sounds that are no speech are written among the words, between the moments at which they begin and end."""

import numpy as np
import pytest
import torch

from weft.models import sound_events
from weft.models.bytes_tokenizer import bytes_tokenizer
from weft.models.config import Connector
from weft.models.sound_events import Event, SoundEvents, apart, runs
from weft.models.transcript import NOTHING, Thing, laid_out

OURS = bytes_tokenizer()


def encode(text: str) -> list[int]:
    return list(OURS(text, add_special_tokens=False).input_ids)


@pytest.fixture
def events(monkeypatch) -> SoundEvents:
    """Knows a bell by the first number of a state, rain by the second, and speech by the third."""
    monkeypatch.setattr(sound_events, "PIECES", 8)
    monkeypatch.setattr(sound_events, "BEHIND", 16)
    found = SoundEvents(2, 4)
    found.learn(["bell", "rain"], encode)
    found.inward[:3, :3] = torch.eye(3)
    found.around[:, 0, sound_events.REACH] = 1.0
    found.across[:] = torch.eye(sound_events.INNER)
    found.told[:, :3] = 10 * torch.eye(3)
    found.bias[:] = -5.0
    return found


def states(length: int, **heard: tuple[int, int]) -> torch.Tensor:
    made = torch.zeros(length, 4)
    for number, name in enumerate(("bell", "rain", "speech")):
        if name in heard:
            made[slice(*heard[name]), number] = 2.0
    return made


def test_sounds_are_told_by_their_starts_and_how_long_they_last(events):
    found, speech_T = events.find(states(200, rain=(120, 170), bell=(10, 85)))
    assert [(start, end, OURS.decode(ids)) for start, end, ids in found] == [
        (10, 85, " ( bell, 1.5 seconds)"), (120, 170, " ( rain, 1 second)"),
    ]  # fmt: skip
    assert not speech_T.any()
    with torch.autocast("cpu", torch.bfloat16):
        assert events.find(states(200, rain=(120, 170), bell=(10, 85)).bfloat16())[0] == found


def test_nothing_is_told_where_someone_speaks(events):
    found, speech_T = events.find(states(200, bell=(10, 85), speech=(5, 90)))
    assert found == []
    assert speech_T[:90].all() and not speech_T[90 + sound_events.NEAR + 1 :].any()


def test_a_new_one_hears_speech_everywhere_and_nothing_else():
    found, speech_T = SoundEvents(3, 8).find(torch.randn(50, 8))
    assert found == [] and speech_T.all()


def test_short_gaps_are_filled_and_short_sounds_left_out():
    there = np.zeros(100, bool)
    there[10:30] = there[30 + sound_events.GAP : 60] = there[80 : 80 + sound_events.BRIEF - 1] = True
    assert runs(there) == [(10, 60)]


def test_one_sound_has_one_name():
    major, minor, bell = Event(0, 50, 0, 0.9), Event(2, 48, 1, 0.8), Event(45, 90, 2, 0.7)
    assert apart([minor, bell, major]) == [major, bell]
    rain, drop = Event(0, 400, 0, 0.99), Event(100, 140, 1, 0.95)
    assert apart([rain, drop]) == [rain, drop] and apart([rain, drop._replace(sure=0.5)]) == [rain]


def test_what_has_no_room_loses_its_times_first():
    things = [Thing(1, 2, [(0, NOTHING, NOTHING, NOTHING)]), Thing(3, 9, [(NOTHING, NOTHING, NOTHING, 7)] * 2)]
    whole = laid_out(things, 5, 12, 2)
    assert [cell[1] for cell in whole] == [1, 1, -1, 2, 2, 3, 3, -1, -1, 9, 9, -1] and whole[-1][0] == 5
    assert [cell[1] for cell in laid_out(things, 5, 8, 2)] == [1, 1, -1, 2, 2, -1, -1, -1]
    assert len(laid_out(things, 5, 2, 2)) == 2


def test_events_go_with_times():
    with pytest.raises(ValueError, match="and events with it"):
        Connector(kind="transcript", vocab_size=9, places=0.1, events=3)
