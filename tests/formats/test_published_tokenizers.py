"""Converted tokenizers give the ids of the library the original uses, on anything."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
import tiktoken
from published_kits import sentencepiece_model, tiktoken_ranks
from transformers import AutoTokenizer

from weft.formats.tokenizers import (
    QWEN_PATTERN,
    TokenizerError,
    check_ids,
    qwen_specials,
    save_tokenizer,
    sentencepiece_tokenizer,
    tiktoken_tokenizer,
)


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Letters and spaces, printable ASCII, several scripts with emoji, and any code point at all."""
    rng = random.Random(seed)
    scripts = [*range(0xA0, 0x500), *range(0x4E00, 0x4F00), *range(0xAC00, 0xAD00), *range(0x1F600, 0x1F640)]
    pools = ["abcdehf[]<>{}/01 \n   ", "".join(map(chr, range(0x20, 0x7F))), "".join(map(chr, scripts)) + " " * 300]
    texts = ["".join(rng.choices(rng.choice(pools), k=rng.randint(0, 40))) for _ in range(count)]
    anything = [c for c in (rng.randint(1, 0x10FFFF) for _ in range(count * 10)) if not 0xD800 <= c < 0xE000]
    return texts + ["".join(map(chr, rng.choices(anything, k=rng.randint(1, 20)))) for _ in range(count // 4)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": False},
        {"remove_extra_whitespaces": True},
        {"add_dummy_prefix": False},
        {"user_defined_symbols": ["<tool>"]},
    ],
    ids=lambda o: "-".join(map(str, o.values())) or "as published",
)
def test_sentencepiece_ids(tmp_path: Path, options: dict) -> None:
    sentencepiece_model(tmp_path / "tokenizer.model", **options)
    save_tokenizer(sentencepiece_tokenizer(tmp_path / "tokenizer.model"), tmp_path, bos="<s>", eos="</s>", unk="<unk>")
    fast = AutoTokenizer.from_pretrained(tmp_path)
    slow = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in random_texts(300):
        got = fast(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert got == slow.encode(text), repr(text)


def test_sentencepiece_legacy_rule_and_special_tokens(tmp_path: Path) -> None:
    sentencepiece_model(tmp_path / "tokenizer.model")
    slow = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    tokenizer = sentencepiece_tokenizer(tmp_path / "tokenizer.model", ["<ImageHere>"])
    save_tokenizer(tokenizer, tmp_path, bos="<s>", eos="</s>", unk="<unk>", pad="</s>")
    fast = AutoTokenizer.from_pretrained(tmp_path)
    # A stretch after a special token begins with SentencePiece's dummy space, as one at the start does.
    assert fast("<s>[INST] <Img>")["input_ids"] == [1, 1, *slow.encode("[INST] <Img>")]
    assert fast("[INST]</s>[INST]", add_special_tokens=False)["input_ids"] == [
        *slow.encode("[INST]"),
        2,
        *slow.encode("[INST]"),
    ]
    # What a user writes stays text.
    spelled = fast("<s> </s> <unk> <0x0A>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert not set(spelled) & {0, 1, 2} and fast.decode(spelled) == "<s> </s> <unk> <0x0A>"
    assert fast.convert_tokens_to_ids("<ImageHere>") == slow.vocab_size()
    assert (fast.bos_token_id, fast.eos_token_id, fast.pad_token_id) == (1, 2, 2)
    for text in ("a  b", "caf\u00e9 \U0001f600", "\u4e2d\u6587"):
        assert fast.decode(slow.encode(text)) == slow.decode(slow.encode(text)) == text


def tiktoken_reference(file: Path) -> tiktoken.Encoding:
    from tiktoken.load import load_tiktoken_bpe

    ranks = load_tiktoken_bpe(str(file))
    specials = {token: len(ranks) + i for i, token in enumerate(qwen_specials())}
    return tiktoken.Encoding("qwen", pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens=specials)


def check_tiktoken(file: Path, out: Path, texts: list[str]) -> None:
    save_tokenizer(tiktoken_tokenizer(file, qwen_specials()), out, eos="<|endoftext|>")
    fast, slow = AutoTokenizer.from_pretrained(out), tiktoken_reference(file)
    for text in texts:
        normal = unicodedata.normalize("NFC", text)
        got = fast(text, split_special_tokens=True)["input_ids"]
        assert got == slow.encode_ordinary(normal), repr(text)
        assert fast.decode(got) == normal
    mixed = "<|im_start|>user\nAudio 1:<audio></audio>\n<|en|><|12.34|> it's 7 <|im_end|>"
    assert fast(mixed)["input_ids"] == slow.encode(mixed, allowed_special="all")


def test_tiktoken_ids(tmp_path: Path) -> None:
    tiktoken_ranks(tmp_path / "qwen.tiktoken")
    # Code points that newer Unicode versions gave a combining class are normalised by age of the library: left out.
    check_tiktoken(tmp_path / "qwen.tiktoken", tmp_path, [t for t in random_texts(300) if _old(t)])


def test_the_file_that_is_there_now_is_the_one_that_is_read(tmp_path: Path) -> None:
    file = tmp_path / "qwen.tiktoken"
    tiktoken_ranks(file)
    first = tiktoken_tokenizer(file, []).get_vocab_size()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))
    assert tiktoken_tokenizer(file, []).get_vocab_size() == first - 1


@pytest.mark.nightly
def test_published_tiktoken_ids(shared: Path, tmp_path: Path) -> None:
    folder = shared / "parity" / "qwen_audio"
    check_tiktoken(folder / "qwen.tiktoken", tmp_path, [t for t in random_texts(600) if _old(t)])
    specials = json.loads((folder / "special_tokens.json").read_text())
    assert {token: 151643 + i for i, token in enumerate(qwen_specials())} == specials


def _old(text: str) -> bool:
    return all(unicodedata.ucd_3_2_0.category(c) != "Cn" for c in text)


@pytest.mark.parametrize("options", [{"model_type": "unigram"}, {"normalization_rule_name": "nmt_nfkc"}])
def test_models_that_cannot_be_expressed_are_refused(tmp_path: Path, options: dict) -> None:
    sentencepiece_model(tmp_path / "tokenizer.model", **options)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model: (not a BPE model|has unused pieces)"):
        sentencepiece_tokenizer(tmp_path / "tokenizer.model")


def test_files_that_are_no_tokenizers_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"not a tokenizer")
    for read in (sentencepiece_tokenizer, lambda f: tiktoken_tokenizer(f, [])):
        with pytest.raises(TokenizerError, match="bad: not a"):
            read(bad)
        with pytest.raises(TokenizerError, match="cannot be read"):
            read(tmp_path / "absent")
    bad.write_bytes(b"YQ== 0\nYg== 2\n")
    with pytest.raises(TokenizerError, match="ranks are not 0 to 1"):
        tiktoken_tokenizer(bad, [])


def test_a_conversion_that_is_off_is_caught(tmp_path: Path) -> None:
    sentencepiece_model(tmp_path / "tokenizer.model")
    tokenizer = sentencepiece_tokenizer(tmp_path / "tokenizer.model")
    slow = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    with pytest.raises(TokenizerError, match="differs from the original at token"):
        check_ids(tokenizer, lambda text: slow.encode(" " + text), [], "x")
