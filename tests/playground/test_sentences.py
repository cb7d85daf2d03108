"""Sentences: enough words, right numbers, every one in one split, nothing in training of what is kept for tests."""

import re

import numpy as np
import pytest

from weft.playground import sentences
from weft.playground.chance import Chance
from weft.playground.phrases import LANGUAGES
from weft.playground.scenes import HELD_OUT

VALUES = {w: n for n, w in enumerate(sentences.ONES)} | {w: 10 * n for n, w in enumerate(sentences.TENS, 2)}


def said(count, split="train"):
    return [sentences.sentence(Chance(np.random.default_rng((3, i)), split)) for i in range(count)]


def value(words):
    total = 0
    for word in re.split(r"[ -]", words):
        if word == "hundred":
            total = total - total % 100 + total % 100 * 100
        elif word == "thousand":
            total *= 1000
        else:
            total += VALUES.get(word, 0)
    return total


def test_numbers_are_said_as_they_are_read():
    assert [value(sentences.in_words(n)) for n in range(10000)] == list(range(10000))
    assert sentences.in_words(3412) == "three thousand four hundred and twelve"
    assert sentences.in_words(9005) == "nine thousand and five" and sentences.in_words(80) == "eighty"


@pytest.mark.slow
def test_more_than_five_hundred_words_are_said():
    words = {w for text, _ in said(4000) for w in re.findall(r"[a-z'-]+", text.lower())}
    assert len(words) > 500


def test_a_sentence_is_in_one_split_alone():
    splits = {split: {text for text, _ in said(250, split)} for split in ("train", "dev", "test")}
    assert not splits["train"] & splits["test"] and not splits["train"] & splits["dev"] | splits["dev"] & splits["test"]
    assert min(map(len, splits.values())) > 125


def test_digits_stand_where_words_were():
    for text, written in said(400):
        assert not re.search(r"\d|[{}_]", text) and text[0].isupper() and text[-1] in ".?"
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text, re.IGNORECASE), text
        numbers = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", written)]
        if numbers and "code" not in text:
            pattern = re.sub(r"\d[\d,]*", r"([a-z -]+?)", re.escape(written).replace(r"\,", ","))
            groups = re.fullmatch(pattern, text).groups()
            assert [value(g) for g in groups] == numbers


@pytest.mark.parametrize("split", ["train", "dev"])
def test_nothing_kept_for_tests_is_spoken_of(split):
    for i in range(300):
        row = sentences.alike(Chance(np.random.default_rng((4, i)), split))
        assert len(row) == len(LANGUAGES) and sentences.split_of(row[0]) == split
        assert not any(f"{color} {shape}" in row[0] for color, shape in HELD_OUT)
