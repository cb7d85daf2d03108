"""The connector of sound that is also written down (`encoders.transcript`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from weft.models import config
from weft.models.connectors import Grid, Lengths
from weft.models.encoders.alignment import at_pauses
from weft.models.encoders.transcript import LOUD, TOLD, sounding, timed_tokens, with_times
from weft.models.more_connectors import Transformer
from weft.models.sound_events import SoundEvents
from weft.models.splice import inside

PIECES = 4  # tokens of the language model that spell one of the encoder's; of 100 that are written, 99 take one
# What a token of the encoder's is: the first of a word, a further one, a mark that says nothing of when, the end.
BEGINS, GOES_ON, MARK, ENDS = range(4)
NOTHING = -1


class Transcript(Transformer):
    """Layers of attention over what is heard and written, as kind "transformer". A written token is the language
    model's own embedding of its text (the mean of its pieces), and as much of what the layers say as is learned: none
    at first, so a new model reads the transcription as if it had been typed.

    With ``timed`` each word stands between the tokens of the moments at which it begins and ends, as the dialect writes
    it in an answer, so that such an answer can be copied (and nothing of what the layers say is added to it). Where
    the room does not do, the last words have no times. With ``events`` so do sounds (`sound_events`), of so many kinds.
    """

    spelling: torch.Tensor  # int64 [vocab_size, PIECES] ids of the language model's tokens; -1: none
    roles: torch.Tensor  # int8 [vocab_size]: BEGINS, GOES_ON, MARK or ENDS; with ``timed``

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid) -> None:
        super().__init__(section, width - TOLD, language_width, grid)
        self.timed, self.merge = section.timed, section.group
        self.events = SoundEvents(section.events, width - TOLD) if section.events else None
        self.register_buffer("spelling", torch.full((section.vocab_size, PIECES), -1))
        if self.timed:
            self.register_buffer("roles", torch.full((section.vocab_size,), GOES_ON, dtype=torch.int8))
        else:
            self.corrected = nn.Parameter(torch.zeros(language_width))

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        embedded_NtW, tokens_N = super().forward(features_NTD[..., :-TOLD], lengths_N)
        if not self.timed:
            written_Nt1 = self.neighbours.groups(features_NTD[..., -TOLD:])[:, :, 0, :1] > 0.5
            return torch.where(written_Nt1, self.corrected * embedded_NtW, embedded_NtW), tokens_N
        n, t, _ = embedded_NtW.shape
        groups_N = torch.full((n,), t) if tokens_N is None else tokens_N
        sounds_NtW = embedded_NtW * inside(sounding(groups_N), t, embedded_NtW.device)[..., None]
        tokens_N = None if tokens_N is None else timed_tokens(tokens_N)
        return F.pad(sounds_NtW, (0, 0, 0, timed_tokens(t) - t)), tokens_N

    def read(self, features_NTD: torch.Tensor, model: Any) -> torch.Tensor:
        """[N, t, W]: the language model's embeddings of what is written, 0 elsewhere; where its media carry places and
        words stand without their times, with the one where a token begins and, rolled by half of the width, the one
        where it ends."""
        told = self.told(features_NTD)
        if self.timed:
            return self.between_times(told, features_NTD, model)
        embedded_NtW = self.spelled(told.ids_Nt, model) * told.there_Nt[..., None]
        if "audio" not in model.places:
            return embedded_NtW
        started_NtW, ended_NtW = (
            model.places["audio"].at(model, model.sound_kind.seconds * at_Nt)
            for at_Nt in (told.starts_Nt, told.ends_Nt)
        )
        placed_NtW = started_NtW + ended_NtW.roll(ended_NtW.shape[2] // 2, 2)
        return embedded_NtW + placed_NtW * told.there_Nt[..., None]

    def told(self, features_NTD: torch.Tensor) -> Told:
        told_NtC = self.neighbours.groups(features_NTD[..., -TOLD:])[:, :, 0].float()
        there_Nt, *halves = (told_NtC * (told_NtC[..., :1] > 0.5)).unbind(-1)
        ids, *when = ((256 * high + low).round().long() for high, low in zip(halves[::2], halves[1::2], strict=True))
        return Told(there_Nt > 0.5, ids, *when)

    def spelled(self, ids_Nt: torch.Tensor, model: Any) -> torch.Tensor:
        """[N, t, W] of tokens of the encoder's."""
        pieces_NtP = self.spelling[ids_Nt]
        used_NtP1 = (pieces_NtP >= 0)[..., None]
        embedded_NtPW = model.get_input_embeddings()(pieces_NtP.clamp(min=0)) * used_NtP1
        return embedded_NtPW.sum(2) / used_NtP1.sum(2).clamp(min=1)  # type: ignore[no-any-return]

    def between_times(self, told: Told, features_NTD: torch.Tensor, model: Any) -> torch.Tensor:
        """[N, t, W]: the embeddings of words and sounds, and of the moments around them."""
        levels, device = len(model.config.audio_place_ids), told.ids_Nt.device
        plan_NT4 = torch.full((*told.ids_Nt.shape, 4), NOTHING)
        plan_NT4 = F.pad(plan_NT4, (0, 0, 0, timed_tokens(plan_NT4.shape[1]) - plan_NT4.shape[1]), value=NOTHING)
        roles_Nt = self.roles[told.ids_Nt]
        rows = (x.tolist() for x in (told.there_Nt, roles_Nt, told.starts_Nt, told.ends_Nt))
        for row, (there_t, roles_t, starts_t, ends_t) in enumerate(zip(*rows, strict=True)):
            if True in there_t:  # else it is nothing at all
                first = there_t.index(True)  # as many follow the sound
                words, end = words_of(range(first, first + sum(there_t)), roles_t)
                heard_TD = features_NTD[row, : first * self.merge]
                things = timed_words(words, roles_t, starts_t, ends_t, heard_TD)
                if self.events is not None:
                    sounds, speech_T = self.events.find(heard_TD[:, :-TOLD])
                    things = [thing for thing in things if speech_T[thing.start : thing.end + 1].any()]
                    cells = [(a, z, [(NOTHING, NOTHING, NOTHING, token) for token in ids]) for a, z, ids in sounds]
                    things = sorted([*things, *(Thing(*sound) for sound in cells)], key=lambda thing: thing.start)
                room = with_times(first)
                plan_NT4[row, first : first + room] = torch.tensor(laid_out(things, end, room, levels))
        token_NT, state_NT, level_NT, own_NT = plan_NT4.to(device).unbind(-1)
        words_NTW = self.spelled(told.ids_Nt.gather(1, token_NT.clamp(min=0)), model)
        moments_NTL = model.places["audio"].tokens(model, model.sound_kind.seconds * state_NT.clamp(min=0))
        moments_NT = moments_NTL.gather(2, level_NT.clamp(min=0)[..., None])[..., 0]
        others_NTW = model.get_input_embeddings()(torch.where(own_NT >= 0, own_NT, moments_NT))
        embedded_NTW = torch.where((token_NT >= 0)[..., None], words_NTW, others_NTW)
        return embedded_NTW * ((token_NT >= 0) | (state_NT >= 0) | (own_NT >= 0))[..., None]

    @torch.no_grad()
    def learn_spelling(self, theirs: Any, encode_text: Any) -> None:
        """How the language model spells each token of the encoder's tokenizer ``theirs``, and which begin words.

        What both call the same is one piece. The end of the transcription is read as a new line.
        """
        texts = theirs.batch_decode([[number] for number in range(theirs.eos_token_id)])
        for number, text in enumerate([*texts, "\n"]):
            pieces = [] if "\ufffd" in text else encode_text(text)[:PIECES]
            self.spelling[number, : len(pieces)] = torch.tensor(pieces, dtype=torch.long)
            if self.timed:
                mark = not any(char.isalnum() or char in " \ufffd" for char in text.removeprefix(" ") or " ")
                self.roles[number] = MARK if mark else BEGINS if text.startswith(" ") else GOES_ON
        if self.timed:
            self.roles[theirs.eos_token_id] = ENDS


@dataclass(frozen=True)
class Told:
    """Of each group of features [N, t]: whether it was written, which token, and between which states it sounds."""

    there_Nt: torch.Tensor
    ids_Nt: torch.Tensor
    starts_Nt: torch.Tensor
    ends_Nt: torch.Tensor


def words_of(written: range, roles_t: list[int]) -> tuple[list[list[int]], int]:
    """The ``written`` groups of each word, and the one that ends the transcription, or NOTHING."""
    words: list[list[int]] = []
    for t in written:
        if roles_t[t] == ENDS:
            return words, t
        words += [[]] if roles_t[t] == BEGINS or not words else []
        words[-1].append(t)
    return words, NOTHING


def spoken(word: list[int], roles_t: list[int]) -> list[int]:
    """Those groups of a word that tell when it sounds: all but marks, where it has others."""
    return [t for t in word if roles_t[t] != MARK] or word


Cell = tuple[int, int, int, int]  # a written group, or a state and which token of its moment, or a token; else NOTHING


@dataclass(frozen=True)
class Thing:
    """What stands between two moments."""

    start: int  # states
    end: int
    cells: list[Cell]


def timed_words(
    words: list[list[int]], roles_t: list[int], starts_t: list[int], ends_t: list[int], heard_TD: torch.Tensor
) -> list[Thing]:
    """Words with the states between which they are heard. ``heard_TD``: features of the sound, filled up with zeros."""
    told = [spoken(word, roles_t) for word in words]
    starts, ends = [starts_t[word[0]] for word in told], [ends_t[word[-1]] for word in told]
    level_T = heard_TD[heard_TD[:, :-TOLD].any(-1), LOUD - TOLD]
    extents = at_pauses(starts, ends, level_T.detach().float().cpu().numpy())
    cells = [[(t, NOTHING, NOTHING, NOTHING) for t in word] for word in words]
    return [Thing(start, end, own) for (start, end), own in zip(extents, cells, strict=True)]


def laid_out(things: list[Thing], end: int, room: int, levels: int) -> list[Cell]:
    """What is written in ``room`` tokens, ``levels`` of them a moment. Behind the last thing stands what ends a
    transcription, the written group ``end``."""
    timed, laid = (room - sum(len(thing.cells) for thing in things)) // (2 * levels), []
    for number, thing in enumerate(things):
        before, after = (
            [(NOTHING, state, level, NOTHING) for level in range(levels)] if number < timed else []
            for state in (thing.start, thing.end)
        )
        laid += [*before, *thing.cells, *after]
    return (laid + [(end, NOTHING, NOTHING, NOTHING)] * room)[:room]
