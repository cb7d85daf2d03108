"""One normaliser for every script: what is heard stays, what only is written goes."""

import unicodedata

import pytest

from weft.conversation import Text
from weft.evaluation.constants import baseline
from weft.evaluation.metrics import chosen, measure
from weft.evaluation.pairs import Pair
from weft.evaluation.text import letters, normalized, units, whisper_normalized

SAME = [  # language, two ways to write the same words
    ("en", "It's five o'clock, Mr. Smith!", "it’s FIVE o‘clock mr smith"),
    ("en", "a well-known “fact”…", "A well known fact"),
    ("de", "Straße, MÜNCHEN", "STRAẞE münchen"),
    ("fr", "Aujourd’hui, l'été.", "aujourd'hui l'été"),
    ("es", "¿Qué pasa, niño?", "qué pasa niño"),
    ("ca", "col·legi", "collegi"),
    ("tr", "ISPARTA, İzmir", "ısparta izmir"),
    ("ru", "Всё ещё за\u0301мок", "все еще замок"),
    ("uk", "п’ять", "п'ять"),
    ("el", "ΟΔΌΣ;", "οδός"),
    ("hy", "ինչո՞ւ", "ինչու"),
    ("hi", "क्या हाल है? १२।", "क्या हाल है 12"),
    ("hi", "क्\u200dष", "क्ष"),
    ("bn", "ত্\u200d", "ৎ"),
    ("ml", "ന്\u200d", "ൻ"),
    ("th", "น้ำ ๒๕ บาท", "น้\u0e4d\u0e32 25 บาท"),
    ("th", "น้ำ", "น\u0e4d\u0e49\u0e32"),
    ("lo", "ນ້ຳ", "ນ\u0ecd\u0ec9\u0eb2"),
    ("ta", "தமிழ்!", "தமிழ்"),
    ("my", "မြန်မာ။", "မြန်မာ"),
    ("km", "ខ្មែរ។", "ខ្មែ\u200bរ"),
    ("bo", "བོད་སྐད།", "བོད་སྐད"),
    ("am", "ሰላም፡ነው።", "ሰላም ነው"),
    ("ar", "اَلسَّلَامُ عَلَيْكُمْ؟", "السلام عليكم"),
    ("ar", "محمـــد ﻻ", "محمد لا"),
    ("fa", "می\u200cروم", "میروم"),
    ("he", "שָׁלוֹם צה״ל", 'שלום צה"ל'),
    ("zh", "你好，世界！", "你好 世界"),
    ("ja", "ｶﾞﾗｽ。葛\U000e0100", "ガラス葛"),
    ("ko", "안녕하세요, 여러분", "안녕하세요 여러분"),
    ("vi", "Tiếng Việt.", "tiếng việt"),
    ("en", "AT&T: 5%", "at & t 5 %"),
    (None, "１２ 👍🏽 ok", "12 OK"),
]
OTHER = [  # language, two words that differ by what Whisper's basic normaliser or a careless one loses
    ("de", "Maße", "Masse"),
    ("de", "schon", "schön"),
    ("fr", "pêche", "péché"),
    ("es", "año", "ano"),
    ("tr", "sıkıldım", "sikildim"),
    ("bg", "ѝ", "и"),
    ("hi", "मैं", "मी"),
    ("hi", "कि", "की"),
    ("bn", "কি", "কী"),
    ("ta", "தாள்", "தாழ்"),
    ("th", "ข้าว", "ขาว"),
    ("lo", "ເຂົ້າ", "ເຂົາ"),
    ("my", "မာ", "မား"),
    ("km", "កា", "កៅ"),
    ("ar", "كتاب", "كتب"),
    ("ar", "سأل", "سال"),
    ("he", "שלום", "שלם"),
    ("yi", "אַ", "אָ"),
    ("ja", "がき", "かき"),
    ("ja", "ビル", "ビール"),
    ("vi", "ma", "mà"),
    ("yo", "ọkọ\u0301", "ọkọ\u0300"),
    ("dv", "ދިވެހި", "ދުވަހު"),
    ("en", "5 degrees", "-5 degrees"),
    ("en", "5", "5%"),
    ("en", "its", "it's"),
]


@pytest.mark.parametrize(("language", "one", "other"), SAME)
def test_what_is_only_written_goes(language, one, other):
    assert units(normalized(one, language)) == units(normalized(other, language)) != []
    assert normalized(unicodedata.normalize("NFD", one), language) == normalized(one, language)
    assert normalized(normalized(one, language), language) == normalized(one, language)


@pytest.mark.parametrize(("language", "one", "other"), OTHER)
def test_what_makes_another_word_stays(language, one, other):
    assert units(normalized(one, language)) != units(normalized(other, language))
    scores = measure([Pair("transcribe", (Text(one),), (Text(other),), language)], chosen(None)).metrics["transcribe"]
    assert scores["wer_normalized"] > 0 and scores["cer_normalized"] > 0
    assert scores["wer_whisper"] is None or scores["wer_whisper"] > 0 or (language, one) == ("en", "5 degrees")


def test_units_are_words_or_the_letters_of_a_script_without_spaces():
    assert units("打开iPhone 12吧") == ["打", "开", "iPhone", "12", "吧"]
    assert units("น้ำดี ok") == ["น้", "ำ", "ดี", "ok"]
    assert units("ខ្មែរ") == ["ខ្", "មែ", "រ"]
    assert units("ラーメンを") == list("ラーメンを")
    assert units("안녕 세상") == ["안녕", "세상"]
    assert units("हिन्दी में") == ["हिन्दी", "में"]
    assert units(" ") == []
    assert letters("किताब ok") == ["कि", "ता", "ब", "o", "k"]


def test_whispers_normaliser_and_where_it_means_nothing():
    assert whisper_normalized("Mr. Smith's colour!", "en") == "mister smith is color"
    assert whisper_normalized("two two eight", "en-US") == "228"
    assert whisper_normalized("five o'clock", "en") == "50 clock"  # its own reading, kept as it is
    assert whisper_normalized("Straße, bitte! ❤\ufe0f", "de") == "straße bitte"
    assert whisper_normalized("你好,世界", "zh") == "你 好 世 界"
    assert whisper_normalized("안녕하세요", "ko") == "안녕하세요" and whisper_normalized("שלום", "he") == "שלום"
    for language, text in (("hi", "की"), ("th", "กำ"), ("he", "שָׁלוֹם"), ("tr", "İzmir"), (None, "你好"), ("yo", "ọkọ́")):
        assert whisper_normalized(text, language) is None


def test_a_corpus_with_a_sample_that_whispers_normaliser_breaks_has_no_such_figure_and_a_sentence():
    pairs = [Pair("transcribe", (Text(t),), (Text(t),), lang) for t, lang in (("hello", "en"), ("की", "hi"))]
    figures = measure(pairs, chosen(None))
    assert figures.metrics["transcribe"]["wer_whisper"] is baseline(figures)[0]["transcribe"]["wer_whisper"] is None
    assert [one["wer_whisper"] for one in figures.samples] == [0.0, None]
    (note,) = figures.notes
    assert note.startswith("wer_whisper has no figure: 1 of 2 samples")
    assert measure(pairs[:1], chosen(None)).notes == []
