"""Whisper that listens and writes: the states of its encoder, and behind them what its decoder writes, token by token.

The encoder's states tell when something sounds; what was said is nearer to words in the decoder, whose greedy
transcription is one token after another as a text is (SALSA couples the two so, https://arxiv.org/abs/2408.16542). A
connector of kind "transcript" gives a written token as the language model's own embedding of it. Frozen, as a choice of
tokens has no gradient: the encoder learns from the states alone.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch.nn import functional as F
from transformers import AutoTokenizer
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from weft.conversation import WeftError
from weft.media.mel import HOP
from weft.models import doors
from weft.models.connectors import connector_tokens
from weft.models.encoders.alignment import attention_watched, extents, level, loudness
from weft.models.encoders.base import Length, halved
from weft.models.encoders.whisper import Whisper, WholeTower
from weft.models.splice import inside

# Numbers behind each state: whether a token was written here, its id, the state that it begins at and the one that it
# ends before, each as two bytes, which bfloat16 holds. Behind a state of the sound: how loud it is, in the second.
TOLD, LOUD = 7, 1
DARK = 2.0  # log-mel of silence beneath the loudest frame: Whisper's floor of 8 powers of ten, in its units of four
ENGLISH = 51864  # tokens of the models for English alone; those for all languages have a few more
TIMES = 1502  # from the token that says that no times follow, those of times are the last of the vocabulary
STEP = 200  # frames: silence is filled up to a multiple of so many, and at least a quarter of it
SPECIAL = 51000  # smaller vocabularies have no tokens for tasks and languages


CACHE = "cache" if "cache" in inspect.signature(WhisperDecoder.forward).parameters else "past_key_values"


def writing(sounds: Length) -> Length:
    """How many tokens may be written of so many embeddings of sound: 19 of 3 s, where speech has 10."""
    return (sounds + 1) // 2 + 4


def sounding(tokens: Length) -> Length:
    """How many of a window's groups of features follow the sound; what is written stands behind them."""
    return (2 * tokens - 8) // 3


def with_times(sounds: Length) -> Length:
    """How many tokens may be written where words stand between their times: 53 of 3 s, where timed speech has 30."""
    return (3 * sounds + 1) // 2 + 8


def timed_tokens(groups: Length) -> Length:
    """Embeddings of a window of so many groups of features where words stand between their times."""
    sounds = sounding(groups)
    return sounds + with_times(sounds)


class TranscriptTower(WholeTower):
    """log-mel [N, T, M] and lengths [N] -> features [N, R, D + TOLD] and their lengths.

    A clip is heard with silence behind it: up to the whole window where the section says ``pad_to_window``, as Whisper
    was taught, else up to the next two seconds, for an ear that was taught so. Features are the encoder's states of
    the clip itself, each with how loud it is (`alignment.level`), filled up with zeros to whole groups of ``merge``,
    then a group for each token that may be written: the decoder's state, 1, the token's id, when it begins and when it
    ends. Behind the end of the transcription stands its end token.
    """

    def __init__(self, kind: Transcript) -> None:
        super().__init__(kind)
        self.width += TOLD
        self.merge, self.frames = kind.section.connector.group, 2 * kind.config.max_source_positions
        self.whole = kind.section.pad_to_window

    def forward(self, mel_NTM: torch.Tensor, lengths_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own_N = halved(lengths_N)
        sounds_N = (own_N + self.merge - 1) // self.merge
        written_N = writing(sounds_N)
        lengths, rows = self.merge * (sounds_N + written_N), {}
        loud_NT = loudness(mel_NTM, lengths_N)
        windows_N = torch.tensor([self.window(int(length)) for length in lengths_N])
        for frames in windows_N.unique().tolist():
            at = (windows_N == frames).nonzero()[:, 0]
            heard_GTD = self.hear(mel_NTM[at.to(mel_NTM.device)], lengths_N[at], frames)
            states_GSD, *numbers = self.write(heard_GTD, own_N[at], loud_NT[at], written_N[at])
            told = [each for numbers_GS in numbers for each in (numbers_GS // 256, numbers_GS % 256)]
            told_GSC = torch.stack([torch.ones_like(told[0]), *told], -1).to(states_GSD.dtype)
            written_GSRC = F.pad(torch.cat([states_GSD, told_GSC], -1)[:, :, None], (0, 0, 0, self.merge - 1))
            for row, n in enumerate(at.tolist()):
                loud_T = torch.from_numpy(level(loud_NT[n, : own_N[n]].cpu().numpy())).to(heard_GTD)
                own_TC = F.pad(heard_GTD[row, : own_N[n]], (0, TOLD, 0, self.merge * sounds_N[n] - own_N[n]))
                own_TC[: own_N[n], heard_GTD.shape[2] + LOUD] = loud_T.clamp(0, 1)
                item_RC = torch.cat([own_TC, written_GSRC[row, : written_N[n]].flatten(0, 1)])
                rows[n] = F.pad(item_RC, (0, 0, 0, int(lengths.max()) - len(item_RC)))
        return torch.stack([rows[n] for n in range(len(mel_NTM))]), lengths

    def window(self, frames: int) -> int:
        """Frames that are heard of a clip of so many: its own, and silence."""
        return self.frames if self.whole else min(self.frames, STEP * -(-(frames + STEP // 4) // STEP))

    def hear(self, mel_NTM: torch.Tensor, lengths_N: torch.Tensor, frames: int) -> torch.Tensor:
        """The encoder's states [N, frames / 2, D] of clips with silence behind them."""
        mel_NTM = mel_NTM[:, : int(lengths_N.max())]
        there_NT1 = inside(lengths_N, mel_NTM.shape[1], mel_NTM.device)[..., None]
        dark_N11 = mel_NTM.masked_fill(~there_NT1, -torch.inf).amax((1, 2), keepdim=True) - DARK
        mel_NTM = torch.where(there_NT1, mel_NTM, dark_N11)
        dark_NTM = dark_N11.expand(-1, frames - mel_NTM.shape[1], mel_NTM.shape[2])
        whole_N = torch.full((len(mel_NTM),), frames)
        heard_NTD, _ = self.encode(torch.cat([mel_NTM, dark_NTM], 1), whole_N, whole_N)
        return self.encoder.layer_norm(heard_NTD)

    def states(self, ids_NL: torch.Tensor, heard_NTD: torch.Tensor, cache: Any = None) -> torch.Tensor:
        """The decoder's states [N, L, D] at tokens that are written of what is heard."""
        given = {"encoder_hidden_states": heard_NTD, CACHE: cache, "use_cache": cache is not None}
        return self.tower.decoder(input_ids=ids_NL, **given).last_hidden_state

    def table(self, like: torch.Tensor) -> torch.Tensor:
        """What states are multiplied by for logits, [V, D], in the type it is done in: cast once, not each time."""
        device, weight = like.device.type, self.tower.decoder.embed_tokens.weight
        return weight.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype)

    @torch.no_grad()
    def write(
        self, heard_NTD: torch.Tensor, own_N: torch.Tensor, loud_NT: torch.Tensor, room_N: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """The greedy transcription in the room of each clip, S the largest: states [N, S, D] that wrote; ids [N, S];
        and of each token [N, S] at which of the ``own_N`` states of its clip it begins, and before which it ends."""
        most, config, cache = int(room_N.max()), self.tower.config, EncoderDecoderCache(DynamicCache(), DynamicCache())
        table_VD, end, states, ids = self.table(heard_NTD), config.eos_token_id, [], []
        ids_NL = self.prompt(heard_NTD)
        done_N = torch.zeros(len(heard_NTD), dtype=torch.bool, device=heard_NTD.device)
        with attention_watched(self.tower.decoder) as watched:
            for number in range(min(most, config.max_target_positions - ids_NL.shape[1])):
                state_ND = self.states(ids_NL, heard_NTD, cache)[:, -1]
                logits_NV = F.linear(state_ND, table_VD[: end + 1])
                if number == 0 and config.begin_suppress_tokens:
                    logits_NV[:, [i for i in config.begin_suppress_tokens if i <= end]] = -torch.inf
                ids_NL = logits_NV.argmax(-1).masked_fill(done_N, end)[:, None]
                done_N = done_N | (ids_NL[:, 0] == end)
                states.append(state_ND)
                ids.append(ids_NL)
                if not torch.compiler.is_compiling() and bool(done_N.all()):
                    break
        written_NS = torch.cat(ids, 1)
        written_N = ((written_NS != end).sum(1).cpu() + 1).minimum(room_N).clamp(max=len(ids))
        when = extents(watched, heard_NTD, own_N, written_N, loud_NT)
        rest = most - len(ids)
        ids_NS = F.pad(written_NS, (0, rest), value=end)
        return F.pad(torch.stack(states, 1), (0, 0, 0, rest)), ids_NS, *(F.pad(w, (0, rest)) for w in when)

    def prompt(self, heard_NTD: torch.Tensor) -> torch.Tensor:
        """Ids [N, L] before the transcription: the start, the language where there are several (the likeliest) and the
        task, and that no times follow."""
        start, vocabulary = self.tower.config.decoder_start_token_id, self.tower.config.vocab_size
        ids_N1 = torch.full((len(heard_NTD), 1), start, device=heard_NTD.device)
        plain, task = vocabulary - TIMES, vocabulary - TIMES - 4
        if vocabulary < SPECIAL:
            return ids_N1
        if vocabulary <= ENGLISH:
            return F.pad(ids_N1, (0, 1), value=plain)
        languages_NV = F.linear(self.states(ids_N1, heard_NTD)[:, -1], self.table(heard_NTD)[start + 1 : task - 1])
        language_N1 = start + 1 + languages_NV.argmax(-1, keepdim=True)
        return F.pad(F.pad(torch.cat([ids_N1, language_N1], 1), (0, 1), value=task), (0, 1), value=plain)


class Transcript(Whisper):
    sources: ClassVar = {}
    source_prefix = ""
    tower = TranscriptTower

    def __init__(self, section: Any) -> None:
        super().__init__(section)
        connector, known = section.connector, section.config.get("vocab_size", 51865)
        if connector.kind != "transcript" or connector.vocab_size != known:
            raise WeftError(
                f"audio: an encoder of kind transcript needs a connector of kind transcript with vocab_size {known}, "
                f"and it has {connector.kind} with {connector.vocab_size}"
            )

    def frames(self, samples: int) -> int:
        return max(samples, self.shortest * HOP) // HOP  # the tower itself fills up what it hears

    def features(self, frames: int) -> int:
        sounds = connector_tokens(self.section.connector, super().features(frames))
        return self.section.connector.group * (sounds + writing(sounds))

    def tokens(self, frames: int) -> int:
        groups = super().tokens(frames)
        return timed_tokens(groups) if self.section.connector.timed else groups

    def introduce(self, model: Any, processor: Any, source: str) -> None:
        theirs = doors.load(AutoTokenizer, source, "the tokenizer by which it writes could not be loaded")
        model.audio_connector.learn_spelling(theirs, processor.renderer.encode_text)

    def timed(self, tokens: Length) -> Length:
        return 2 * (tokens - 8) // 5 if self.section.connector.timed else sounding(tokens)
