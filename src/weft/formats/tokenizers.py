"""The published tokenizers as ordinary `tokenizer.json` files.

Two kinds are read: SentencePiece models (Llama, Llama-2, Chinese-Llama-2, Baichuan) and Qwen's tiktoken ranks. What is
written is loaded by `AutoTokenizer` without remote code, `sentencepiece` or `tiktoken`, and gives the ids that the
released systems were trained with. Each conversion is checked on a battery of strings against the library that the
original uses before anything is written: a tokenizer that is off by one id in a thousand fails silently for good.

The Llama rule kept here is the older one ("legacy"), which MiniGPT-v2 and LLaSM were trained with: every stretch of
plain text between special tokens is a text of its own for SentencePiece and gets its dummy space, so `[INST]` after a
literal `<s>` begins with the piece `▁[`. The newer rule of `transformers` gives `[` there.
"""

from __future__ import annotations

import base64
import json
import os
import random
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

from weft.conversation import WeftError
from weft.files import write_json

# QwenLM/Qwen-Audio tokenization_qwen.py, PAT_STR.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACE = "\u2581"  # SentencePiece's visible space
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of a SentencePiece piece


class TokenizerError(WeftError):
    """A tokenizer file that cannot be read or would not give the same ids."""


def sentencepiece_tokenizer(file: Path, added: Sequence[str] = (), bos: bool = True) -> Tokenizer:
    """A SentencePiece model as a `tokenizers.Tokenizer`; ``added`` special tokens get the ids after the last piece.

    ``bos`` makes plain calls prepend the start token, as the published slow tokenizers do. Raises `TokenizerError`
    where the file is not a SentencePiece model or holds something that has no equivalent.
    """
    proto = _read_sentencepiece(file)
    pieces, trainer, rules = proto.pieces, proto.trainer_spec, proto.normalizer_spec
    if trainer.model_type != 2:
        raise TokenizerError(f"{file}: not a BPE model of SentencePiece, which is the kind that Llama models have")
    if any(p.type == UNUSED for p in pieces) or trainer.treat_whitespace_as_suffix or rules.precompiled_charsmap:
        raise TokenizerError(
            f"{file}: has unused pieces, spaces as suffixes or a table of characters to replace, which Llama's "
            f"tokenizers do not have and tokenizer.json cannot express to the letter"
        )
    model = BPE(
        vocab={p.piece: i for i, p in enumerate(pieces)},
        merges=_merges(pieces),
        unk_token=next(p.piece for p in pieces if p.type == UNKNOWN),
        fuse_unk=True,
        byte_fallback=trainer.byte_fallback,
    )
    tokenizer = Tokenizer(model)
    steps: list[Any] = []
    if rules.remove_extra_whitespaces:
        steps = [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if rules.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    decode: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*decode, decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else decode)
    tokenizer.add_special_tokens(
        [AddedToken(p.piece, normalized=False) for p in pieces if p.type in (UNKNOWN, CONTROL)]
    )
    plain = [AddedToken(p.piece, normalized=False, special=False) for p in pieces if p.type == USER_DEFINED]
    tokenizer.add_tokens(plain)
    add_specials(tokenizer, added)
    start = next((p.piece for i, p in enumerate(pieces) if i == trainer.bos_id), None)
    if bos and start is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", pair=f"{start} $A {start}:1 $B:1", special_tokens=[(start, trainer.bos_id)]
        )

    import sentencepiece

    reference = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    ordinary = [p.piece.replace(SPACE, " ") for p in pieces if p.type == NORMAL]
    check_ids(tokenizer, reference.encode, ordinary, str(file))
    return tokenizer


def _read_sentencepiece(file: Path) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2  # generated at run time: nothing for a type checker to see
    proto = messages.ModelProto()
    try:
        proto.ParseFromString(file.read_bytes())
    except OSError as error:
        raise TokenizerError(f"{file}: cannot be read ({error.strerror})") from error
    except Exception as error:  # protobuf's DecodeError lives in a private module
        raise TokenizerError(f"{file}: not a SentencePiece model") from error
    if not proto.pieces:
        raise TokenizerError(f"{file}: not a SentencePiece model (it holds no pieces)")
    return proto


def _merges(pieces: Any) -> list[tuple[str, str]]:
    """Every split of every piece into two pieces, best piece first: SentencePiece merges by the score of the result.

    Control and byte pieces are left out: text that spells `<s>` or `<0x0A>` must stay text.
    """
    ids = {p.piece: i for i, p in enumerate(pieces) if p.type == NORMAL}
    found = []
    for piece in ids:
        splits = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        found += [(piece, left, right) for left, right in splits if left in ids and right in ids]
    found.sort(key=lambda m: (-pieces[ids[m[0]]].score, ids[m[1]], ids[m[2]]))
    return [(left, right) for _, left, right in found]


def qwen_specials(modalities: Sequence[str] = ("audio",)) -> list[str]:
    """Qwen-Audio's 3,522 special tokens in order of their ids, which follow the last rank (151,643).

    Source: QwenLM/Qwen-Audio tokenization_qwen.py; the order is that of the released tokenizer.
    """
    tokens = json.loads(Path(__file__).with_name("qwen_audio_tokens.json").read_text("utf-8"))
    parts = ["text", "audio"] if modalities else ["text"]
    rows = [row for part in parts for row in tokens[part]]  # a pattern, how many of it, and what they are counted in
    return [pattern.format(i / over if over > 1 else i) for pattern, n, over in rows for i in range(n)]


def tiktoken_tokenizer(file: Path, specials: Sequence[str]) -> Tokenizer:
    """Qwen's `qwen.tiktoken` as a `tokenizers.Tokenizer` with NFC normalisation and ``specials`` after the ranks."""
    from unittest.mock import patch

    import tiktoken
    from transformers.convert_slow_tokenizer import TikTokenConverter

    ranks = _read_ranks(file)
    # tiktoken (0.14) keeps what a path held once, and gives it for what is there now, unless it has no place to.
    with patch.dict(os.environ, {"TIKTOKEN_CACHE_DIR": ""}):
        tokenizer = TikTokenConverter(str(file), QWEN_PATTERN).converted()
    tokenizer.normalizer = normalizers.NFC()
    add_specials(tokenizer, specials)
    reference = tiktoken.Encoding("qwen", pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens={})
    words = [word for token in ranks if (word := token.decode(errors="replace")) and "\ufffd" not in word]
    check_ids(tokenizer, lambda text: reference.encode_ordinary(unicodedata.normalize("NFC", text)), words, str(file))
    return tokenizer


def _read_ranks(file: Path) -> dict[bytes, int]:
    try:
        lines = file.read_bytes().splitlines()
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    except OSError as error:
        raise TokenizerError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise TokenizerError(f"{file}: not a tiktoken file (each line is a base64 token and its rank)") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise TokenizerError(f"{file}: the ranks are not 0 to {len(ranks) - 1}")
    missing = [b for b in range(256) if bytes([b]) not in ranks]
    if missing:
        raise TokenizerError(f"{file}: {len(missing)} of the 256 single bytes have no rank")
    return ranks


def add_specials(tokenizer: Tokenizer, tokens: Iterable[str]) -> None:
    """Adds special tokens in order; each new one gets the next free id, known ones keep theirs."""
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in tokens])


# Texts that have tripped converted tokenizers: runs of spaces, spaces at the ends, line ends, scripts without spaces,
# combining marks, emoji with joiners, digits, contractions, code, text that spells special tokens, control characters.
HARD_TEXTS = json.loads(Path(__file__).with_name("hard_texts.json").read_text("utf-8"))


def check_ids(tokenizer: Tokenizer, reference: Callable[[str], list[int]], pieces: Sequence[str], what: str) -> None:
    """Compares ids with the original library's on hard texts and on 300 random joins of ``pieces``.

    Special tokens are off on both sides. Raises `TokenizerError` at the first difference.
    """
    rng = random.Random(0)
    joins = ("", "", " ", "  ", "\n", "\n\n", "\t", "'")
    texts = list(HARD_TEXTS)
    for _ in range(300):
        words = rng.choices(pieces, k=rng.randint(1, 12)) if pieces else []
        texts.append("".join(word + rng.choice(joins) for word in words))
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        for text in texts:
            got, want = tokenizer.encode(text, add_special_tokens=False).ids, list(reference(text))
            if got != want:
                at = next(
                    (i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want))
                )
                raise TokenizerError(
                    f"{what}: the converted tokenizer differs from the original at token {at} of {text[:60]!r} "
                    f"({got[at : at + 4]} for {want[at : at + 4]}); this tokenizer has a rule that is not known here"
                )
    finally:
        tokenizer.encode_special_tokens = before


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, max_length: int | None = None, **names: str) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` for `AutoTokenizer`; ``names``: of bos, eos, unk and pad."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {f"{key}_token": token for key, token in names.items()}
    if max_length is not None:
        config["model_max_length"] = max_length
    write_json(folder / "tokenizer_config.json", config, 2)
