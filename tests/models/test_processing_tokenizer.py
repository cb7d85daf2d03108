import hashlib

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from examples import examples
from weft.models.bytes_tokenizer import bytes_tokenizer, merges

TOKENIZER = bytes_tokenizer(["<|im_start|>", "<|im_end|>"])


def ids(text, tokenizer=TOKENIZER):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@examples(200)
@given(st.text())
def test_any_text_comes_back(text):
    assert TOKENIZER.decode(ids(text)) == text


def test_common_words_are_one_token_wherever_they_stand():
    for word in ("transcribe", "user", "assistant", "zero", "seven", "circle", "where"):
        (token,) = ids(word)
        assert ids(f" {word}\n")[1] == token


def test_bytes_alone_on_request():
    assert len(ids("seven", bytes_tokenizer(count=0))) == 5


def test_the_same_everywhere():
    assert len(merges()) == 768
    assert hashlib.sha256(repr(merges()).encode()).hexdigest()[:16] == "e14e8a26c55396f2"


def test_it_loads_as_an_ordinary_tokenizer(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "where is the <|im_end|> cup?"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert (loaded.pad_token, loaded.eos_token) == ("<|pad|>", "<|im_end|>")
    assert len(loaded) == len(TOKENIZER)
