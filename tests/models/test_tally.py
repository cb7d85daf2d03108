"""How many things a detector found, of all kinds and of each word, as the language model writes it."""

import pytest

from weft.models.bytes_tokenizer import bytes_tokenizer
from weft.models.tally import MOST, Tally

PIECES = ["a", " a", " gr", "gr", "ey", " cup", " obj", "ects", " ", *"0123456789"]


class Pieces:
    """A tokenizer whose words begin with their blank, the longest piece first."""

    @staticmethod
    def encode(text: str) -> list[int]:
        ids = []
        while text:
            ids.append(
                max((i for i, piece in enumerate(PIECES) if text.startswith(piece)), key=lambda i: len(PIECES[i]))
            )
            text = text[len(PIECES[ids[-1]]) :]
        return ids

    @staticmethod
    def batch_decode(rows: list[list[int]]) -> list[str]:
        return ["".join(PIECES[i] for i in row) for row in rows]

    def __len__(self) -> int:
        return len(PIECES)


@pytest.fixture(scope="module")
def pieces():
    tally = Tally()
    tally.learn(Pieces(), Pieces.encode)
    return tally


def told(tally: Tally, names: list[str], room: int = 99) -> str:
    return Pieces.batch_decode([tally.write([Pieces.encode(name) for name in names], room)])[0]


def test_all_things_are_counted_and_those_of_each_word_the_most_first(pieces):
    assert told(pieces, [" grey cup", " a cup", " cup"]) == "3 objects3 cup1 grey1 a"
    assert told(pieces, [" grey grey"]) == "1 objects1 grey"  # a thing once
    assert told(pieces, []) == "0 objects"
    assert told(pieces, [" cup"] * 12).startswith("12 objects12 cup")
    assert told(pieces, [""] * (MOST + 2)) == f"{MOST} objects"


def test_pieces_of_a_word_stay_together_and_what_does_not_fit_is_left_out(pieces):
    assert told(pieces, ["grey cup", "grey"], 7) == "2 objects2grey"  # a name may begin without its blank
    assert told(pieces, [" grey cup", " grey"], 5) == "2 objects1 cup"
    assert told(pieces, [" cup"], 2) == "1 cup"


def test_words_are_told_apart_where_blanks_are_tokens_of_their_own():
    tokenizer, tally = bytes_tokenizer(), Tally()

    def encode(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    tally.learn(tokenizer, encode)
    words = [encode(word) for word in ("grey", "zqx")]
    assert tally.words(encode("grey zqx")) == [tuple(word) for word in words]
    assert tally.write([encode("zqx grey"), encode("grey")], 99) == [
        *[*encode("2"), *encode(" objects")],
        *[*encode("2"), *words[0], *encode("1"), *words[1]],
    ]


def test_numbers_and_words_come_back_with_the_weights(pieces):
    again = Tally()
    again.load_state_dict(pieces.state_dict())
    assert told(again, [" cup"]) == told(pieces, [" cup"]) != ""
