"""The connector of sound that is also written down (`encoders.transcript`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from weft.models import config
from weft.models.connectors import Grid, Lengths
from weft.models.encoders.transcript import TOLD
from weft.models.more_connectors import Transformer

PIECES = 4  # tokens of the language model that spell one of the encoder's; of 100 that are written, 99 take one


class Transcript(Transformer):
    """Layers of attention over what is heard and written, as kind "transformer". A written token is the language
    model's own embedding of its text (the mean of its pieces), and as much of what the layers say as is learned: none
    at first, so a new model reads the transcription as if it had been typed.
    """

    spelling: torch.Tensor  # int64 [vocab_size, PIECES] ids of the language model's tokens; -1: none

    def __init__(self, section: config.Connector, width: int, language_width: int, grid: Grid) -> None:
        super().__init__(section, width - TOLD, language_width, grid)
        self.corrected = nn.Parameter(torch.zeros(language_width))
        self.register_buffer("spelling", torch.full((section.vocab_size, PIECES), -1))

    def forward(self, features_NTD: torch.Tensor, lengths_N: Lengths = None) -> tuple[torch.Tensor, Lengths]:
        embedded_NtW, tokens_N = super().forward(features_NTD[..., :-TOLD], lengths_N)
        written_Nt1 = self.neighbours.groups(features_NTD[..., -TOLD:])[:, :, 0, :1]
        return torch.where(written_Nt1 > 0.5, self.corrected * embedded_NtW, embedded_NtW), tokens_N

    def read(self, features_NTD: torch.Tensor, model: Any) -> torch.Tensor:
        """[N, t, W]: the language model's embeddings of what is written, 0 elsewhere; where its media carry places,
        with the one where a token begins and, rolled by half of the width, the one where it ends."""
        told_NtC = self.neighbours.groups(features_NTD[..., -TOLD:])[:, :, 0].float()
        (written_Nt, *told), table = told_NtC.unbind(-1), model.get_input_embeddings()
        ids_Nt, *when = ((256 * high + low).round().long() for high, low in zip(told[::2], told[1::2], strict=True))
        pieces_NtP = self.spelling[ids_Nt]
        used_NtP1 = ((pieces_NtP >= 0) & (written_Nt[..., None] > 0.5))[..., None]
        embedded_NtPW = table(pieces_NtP.clamp(min=0)) * used_NtP1
        embedded_NtW = embedded_NtPW.sum(2) / used_NtP1.sum(2).clamp(min=1)
        if "audio" not in model.places:
            return embedded_NtW
        started_NtW, ended_NtW = (model.places["audio"].at(model, model.sound_kind.seconds * at_Nt) for at_Nt in when)
        placed_NtW = started_NtW + ended_NtW.roll(ended_NtW.shape[2] // 2, 2)
        return embedded_NtW + placed_NtW * (written_Nt[..., None] > 0.5)

    @torch.no_grad()
    def learn_spelling(self, theirs: Any, encode_text: Any) -> None:
        """How the language model spells each token of the encoder's tokenizer ``theirs``.

        What both call the same is one piece. The end of the transcription is read as a new line.
        """
        texts = theirs.batch_decode([[number] for number in range(theirs.eos_token_id)])
        for number, text in enumerate([*texts, "\n"]):
            pieces = [] if "\ufffd" in text else encode_text(text)[:PIECES]
            self.spelling[number, : len(pieces)] = torch.tensor(pieces, dtype=torch.long)
