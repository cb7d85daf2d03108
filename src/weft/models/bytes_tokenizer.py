"""weft's own small tokenizer: bytes, and whole pieces of common words; an ordinary ``tokenizer.json``.

Any text can be written, nothing is unknown. Letters run together into pieces that are merged by byte-pair encoding
learned from the word list below, always with the same result; digits, spaces and signs stay single bytes, so a word is
the same token after a space, at the start of a line and between two times.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from weft.dialects.chatml import WORDINGS
from weft.dialects.turns import LANGUAGES

MERGES = 768

# Words of prompts, numbers, places, things, sounds and everyday English, the more telling ones first.
WORDS = """
user assistant system transcribe translate describe locate identify find answer briefly picture speech sound sounds
times time boxes box where what which when who how many much is are was were the a an of to in on at and or not no yes
none there this that these those it its he she they we you i my your his her our their me him them us

zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand first second third last next

red orange yellow green blue purple pink brown black white grey gray color colour circle square triangle star heart
ring cross arrow moon house tree fish cup key shape object small large big little left right top bottom middle above
below between near next side corner up down front behind inside outside

beep siren sweep chord major minor bell drum engine rain wind clap bird knock music note voice man woman child person
people dog cat car bus train boat bird horse cow ball table chair bed door window wall floor room kitchen street road
city town country school office book paper phone water food bread milk tea coffee apple cell cells blood platelet
platelets count number higher lower louder longer shorter same different before after while then now again

be been being have has had do does did done will would can could shall should may might must go goes went gone come
came get got give gave make made take took see saw seen know knew think thought say said tell told ask asked work call
try need feel become leave put mean keep let begin seem help talk turn start show hear play run move live believe hold
bring happen write provide sit stand lose pay meet include continue set learn change lead understand watch follow stop
create speak read allow add spend grow open walk win offer remember love consider appear buy wait serve die send expect
build stay fall cut reach kill remain

all any both each every few more most other some such only own so than too very just also well even still back about
over under out off into from with without for by as if because until against during through here why each away almost
always never often today tomorrow yesterday morning evening night day week month year hour minute old new good great
long own early young important public bad able high low hot cold warm open closed empty full fast slow happy sad angry
sure clear easy hard simple

world life hand part place case point company problem fact money family friend mother father brother sister name game
line end member law group eye head face foot arm body story question idea information power weather sun snow cloud
light kilo gram meter minutes seconds hours dollar euro price shop store market turn switch play stop set alarm timer
please thank thanks hello good bye okay
"""


@lru_cache(maxsize=1)
def merges(count: int = MERGES) -> tuple[tuple[str, str], ...]:
    """Byte-pair merges learned from the word list: the most frequent pair first, ties in alphabetical order."""
    split = pre_tokenizers.Split(Regex(r"\p{L}+"), "isolated")
    counts: Counter[tuple[str, ...]] = Counter()
    wording = " ".join(" ".join(pair) for pair in WORDINGS.values()) + " " + " ".join(LANGUAGES.values())
    blocks = [wording, *WORDS.strip().split("\n\n")]
    for weight, block in enumerate(reversed(blocks), 1):
        for letters, _ in split.pre_tokenize_str(block):
            if letters.isalpha():
                counts[tuple(letters)] += weight**2
    words = dict(counts)
    found: list[tuple[str, str]] = []
    while len(found) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:], strict=False):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        words = {_merged(word, best): n for word, n in words.items()}
    return tuple(found)


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def bytes_tokenizer(special_tokens: list[str] | None = None, count: int = MERGES) -> PreTrainedTokenizerFast:
    """A fast tokenizer of 256 bytes, ``count`` merges at most, ``<|pad|>`` and ``special_tokens``, in this order.

    No beginning-of-text token; the end of text is ``<|im_end|>`` where the special tokens have it. With ``count`` 0 it
    is pure bytes.
    """
    pairs = merges()[:count]
    vocabulary = {char: i for i, char in enumerate(sorted(ByteLevel.alphabet()))}
    for left, right in pairs:
        vocabulary.setdefault(left + right, len(vocabulary))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(pairs)))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{L}+|[^\p{L}]"), "isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    tokens = ["<|pad|>", *dict.fromkeys(special_tokens or [])]
    backend.add_special_tokens(tokens)
    eos = "<|im_end|>" if "<|im_end|>" in tokens else None
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>", eos_token=eos)
