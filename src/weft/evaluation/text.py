"""Text as it is scored: one normaliser for every script, the units that errors are counted in, and Whisper's figure.

The rules, with examples and what they cost, are in ``docs/scores.md``. What they come to: only what is not heard may
go. Case, punctuation and the joiners that shape letters go; every mark that makes another word stays (vowel signs,
tones, accents); points that ordinary spelling leaves out (Arabic, Hebrew) go: a pointed text equals a plain one.
"""

from __future__ import annotations

from functools import cache, lru_cache
from unicodedata import digit, normalize

import regex
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

# Languages written without spaces between words: those that Whisper's paper scores by the character (arXiv 2212.04356,
# appendix C), with Cantonese and Khmer; and their scripts, with the punctuation of full width.
UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
_LETTER = r"[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}！-／：-＠［-｀｛-･]"
_UNIT = regex.compile(rf"{_LETTER}\p{{M}}*|(?:(?!{_LETTER})\S)+")

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼʻ´`׳՚", "'"))  # before NFKC, which takes "´" apart
_SPOKEN = r"\p{Sc}%‰&@#+=°×÷−"  # signs that are read aloud: words of their own

# What is written in two ways and is one word: a pattern, and what stands for it.
_ONE_WAY = [
    (regex.compile(pattern), stands)
    for pattern, stands in (
        ("([ണനരലളകত])[\u0d4d\u09cd]\u200d", lambda m: "ൺൻർൽൾൿৎ"["ണനരലളകত".index(m[1])]),  # once sequences
        ("\u0e4d([\u0e48-\u0e4b]?)\u0e32", "\\1\u0e33"),  # AM of Thai and Lao, which NFKC takes apart
        ("\u0ecd([\u0ec8-\u0ecb]?)\u0eb2", "\\1\u0eb3"),
        (r"[\p{DI}\p{Me}՛՜՞]", ""),  # what is not shown (joiners, directions, variants); marks inside Armenian words
        ("[\u0610-\u061a\u0640\u064b-\u0652\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]", ""),  # Arabic
        ("(?<=\\p{Cyrillic})\u0301", ""),  # stress, in dictionaries and primers
        ('(?<=\\p{Hebrew})["״](?=\\p{Hebrew})|(?<=\\p{L})·(?=\\p{L})', ""),  # acronyms; Catalan
        (r"(?<![\p{L}\p{M}\p{N}])[-–](?=\p{Nd})", "−"),
        (r"(?![0-9])\p{Nd}", lambda m: str(digit(m[0]))),
        (rf"[{_SPOKEN}]", r" \g<0> "),
        (rf"(?<![\p{{L}}\p{{M}}\p{{N}}])'|'(?![\p{{L}}\p{{N}}])|[^\p{{L}}\p{{M}}\p{{N}}'{_SPOKEN}]", " "),
    )
]
_END = r"[\s`^~|<>[\p{P}--[%‰&@#]]]+"
_OUTER = regex.compile(rf"(?V1)^(?:(?![-–]?[.,]?\d){_END[:-1]})+|{_END}$")
_MARK = regex.compile(r"(?<=\p{L})[\p{Mn}\p{Mc}]")
_MARK_OR_LETTER = regex.compile(rf"{_MARK.pattern}|{_LETTER}")
_NIQQUD = regex.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")


NORMALISERS = (
    "wer: none; wer_normalized, cer_normalized, cider, word times: weft's (docs/scores.md); wer_whisper: Whisper's "
    "(English for en, basic otherwise); exact: NFKC, case, spaces, outer punctuation; others: none"
)


def primary(language: str | None) -> str:
    """``pt`` of "pt-BR" or "pt_br"."""
    return (language or "").lower().replace("_", "-").split("-")[0]


def units(text: str) -> list[str]:
    """What errors are counted in: words, or letters with their marks in scripts that are written without spaces."""
    return _UNIT.findall(text)


def folded(text: str, language: str | None = None) -> str:
    """Text in one case and one encoding (NFKC), spaces collapsed; every mark is kept."""
    text = normalize("NFKC", text.translate(_APOSTROPHES))
    if primary(language) in ("tr", "az"):
        text = text.replace("I", "ı")
    # ß is a letter of its own: "Maße" and "Masse" are two words.
    text = "ß".join(piece.casefold() for piece in text.replace("İ", "i").replace("ẞ", "ß").split("ß"))
    return " ".join(normalize("NFC", text).split())


def unspaced(text: str) -> bool:
    """Whether a text holds letters of a script that is written without spaces."""
    return regex.search(_LETTER, text) is not None


def letters(text: str) -> list[str]:
    """Letters with their marks, spaces left out."""
    return regex.findall(r"[^\s\p{M}]\p{M}*", text)


@lru_cache(1 << 16)
def normalized(text: str, language: str | None = None) -> str:
    """weft's normaliser: words in one case and one spelling, one space between them. ``language`` is seldom needed."""
    code, text = primary(language), folded(text, language)
    if code in ("ru", ""):
        text = text.replace("ё", "е")
    if code != "yi":  # whose vowels are points
        text = _NIQQUD.sub("", text)
    for pattern, stands in _ONE_WAY:
        text = pattern.sub(stands, text)
    return " ".join(text.split())


def canonical(text: str, language: str | None = None) -> str:
    """Text for exact match: one case and encoding, punctuation at both ends removed. What belongs to a number stays, as
    do signs that are read aloud, and text that is nothing but punctuation."""
    text = folded(text, language)
    return _OUTER.sub("", text) or text


@lru_cache(1 << 16)
def whisper_normalized(text: str, language: str | None = None) -> str | None:
    """Whisper's normaliser: the English one for ``en``, the basic one otherwise (letters apart where unspaced).

    The English one writes numbers as digits and joins them: "two two eight" becomes "228", one word, and "five o'clock"
    "50 clock". The basic one puts a blank for every combining mark, so that it is None where a text holds one that
    belongs to no single letter; None too where the text is unspaced and no language says so.
    """
    code = primary(language)
    if code != "en" and (_MARK if code else _MARK_OR_LETTER).search(normalize("NFKC", text.lower())):
        return None
    kind = "english" if code == "en" else "letters" if code in UNSPACED else "basic"
    return " ".join(_whisper(kind)(text).split())


@cache
def _whisper(kind: str) -> BasicTextNormalizer | EnglishTextNormalizer:
    return EnglishTextNormalizer() if kind == "english" else BasicTextNormalizer(split_letters=kind == "letters")
