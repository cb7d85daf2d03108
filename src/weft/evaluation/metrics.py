"""The registry of figures: what computes each, on which samples, and how it is read.

A metric reads pairs of an expected and a given answer. It applies to a sample by its task and by what the expected
answer holds, never by what was given: a malformed answer is scored, and is wrong. Names, titles, units and definitions
are ``metrics.toml``; what the released scripts computed is in `published`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from weft.conversation import Box, WeftError
from weft.evaluation import scorers
from weft.evaluation.pairs import CAPTIONS, Pair, answer_boxes, answer_text, answer_words, asks_boxes
from weft.evaluation.published import boxes, captions, choices, hallucination, music, speech, translation, vqa
from weft.evaluation.scorers import Tally, mean, pooled
from weft.evaluation.text import letters, normalized, units, whisper_normalized
from weft.named import beside

Values = list[float | None]
HALLUCINATED = "hallucinated_words_per_minute"


@dataclass(frozen=True)
class Computed:
    """``each``: the figure of every sample alone, None where it has none (None: no sample has). ``note``: what a reader
    must know of the figure, such as why there is none."""

    corpus: Callable[[Sequence[Pair]], float | None]
    each: Callable[[Sequence[Pair]], Values] | None = None
    applies: Callable[[Pair], bool] = lambda pair: True
    note: Callable[[Sequence[Pair]], str | None] = lambda pairs: None


@dataclass(frozen=True)
class Metric:
    """A named figure. ``better`` says which way is up, ``unit`` how it is printed (``metrics.toml``)."""

    name: str
    computed: Computed
    title: str
    says: str
    better: str = "higher"
    unit: str = "rate"
    constant: str = "text"
    optional: bool = False
    by_language: bool = False

    @property
    def meaning(self) -> str:
        """Unit and definition in a line."""
        unit = {"rate": "0..1: ", "percent": "per cent: ", "ms": "milliseconds: ", "s": "seconds: "}
        return unit.get(self.unit, "") + self.says


def counted(
    tally: Callable[[Pair], Tally | None],
    applies: Callable[[Pair], bool] = lambda pair: True,
    note: Callable[[Sequence[Pair]], str | None] = lambda pairs: None,
    nothing: float | None = None,
) -> Computed:
    """Counts that pool over the corpus. A tally of None means nothing of its sample, and so of no corpus with it;
    ``nothing`` is the figure of a sample where there was nothing to count."""

    def each(pairs: Sequence[Pair]) -> Values:
        return [t and (t.value if t.out_of else nothing) for t in map(tally, pairs)]

    def corpus(pairs: Sequence[Pair]) -> float | None:
        tallies = [t for t in map(tally, pairs) if t is not None]
        return pooled(tallies).value if len(tallies) == len(pairs) else None

    return Computed(corpus, each, applies, note)


def averaged(value: Callable[[Pair], float], applies: Callable[[Pair], bool] = lambda pair: True) -> Computed:
    return counted(lambda pair: Tally(float(value(pair)), 1), applies)


# --- words ------------------------------------------------------------------------------------------------------------


def _rate(
    taken: Callable[[str, str | None], list[str] | None],
    note: Callable[[Sequence[Pair]], str | None] = lambda pairs: None,
) -> Computed:
    """Errors over expected units, ``taken`` of a text in a language; None: they cannot be taken."""

    def tally(pair: Pair) -> Tally | None:
        expected, given = (taken(answer_text(parts), pair.language) for parts in (pair.expected, pair.given))
        return None if expected is None or given is None else scorers.unit_errors(expected, given)

    return counted(tally, lambda p: (p.task == "transcribe" or _timed(p)) and not p.wordless, note)


def _timed(pair: Pair) -> bool:
    return bool(answer_words(pair.expected))


def _whisper_units(text: str, language: str | None) -> list[str] | None:
    made = whisper_normalized(text, language)
    return None if made is None else made.split()


def _no_whisper(pairs: Sequence[Pair]) -> str | None:
    texts = [(answer_text(p.expected), answer_text(p.given), p.language) for p in pairs]
    if not (broken := sum(None in (whisper_normalized(x, code), whisper_normalized(y, code)) for x, y, code in texts)):
        return None
    return (
        f"wer_whisper has no figure: {broken} of {len(pairs)} samples hold marks that Whisper's normaliser makes "
        "blanks, or are unspaced and name no language; wer_normalized is right for every script."
    )


def _hallucinated(pair: Pair) -> Tally | None:
    words = len(units(normalized(answer_text(pair.given), pair.language)))
    return Tally(60.0 * words, pair.seconds or 0) if pair.seconds or not words else None


def _length_unknown(pairs: Sequence[Pair]) -> str | None:
    unknown = sum(not p.seconds for p in pairs)
    if not unknown or not any(normalized(answer_text(p.given)) for p in pairs):
        return None
    return (
        f"{HALLUCINATED} has no figure: the length of {unknown} of {len(pairs)} clips without speech is not known; "
        'write "seconds" beside their references.'
    )


def _silence() -> Computed:
    counts = counted(_hallucinated, lambda p: p.silent, _length_unknown, nothing=0.0)
    return replace(counts, corpus=lambda pairs: None if _length_unknown(pairs) else counts.corpus(pairs) or 0.0)


def _word_times(pair: Pair) -> scorers.TimeScore:
    return scorers.word_times(answer_words(pair.expected), answer_words(pair.given))


# --- captions and translations ----------------------------------------------------------------------------------------


def _bleu(pairs: Sequence[Pair]) -> float:
    expected, given = [answer_text(p.expected) for p in pairs], [answer_text(p.given) for p in pairs]
    return scorers.bleu(expected, given, [p.language for p in pairs])


def _each_bleu(pairs: Sequence[Pair]) -> Values:
    return [scorers.sentence_bleu(answer_text(p.expected), answer_text(p.given), p.language) for p in pairs]


def _cider(tokens: Callable[[str, str | None], list[str]]) -> Computed:
    def each(pairs: Sequence[Pair]) -> Values:
        references = [[tokens(text, p.language) for text in p.texts] for p in pairs]
        return [*scorers.cider_d(references, [tokens(answer_text(p.given), p.language) for p in pairs])]

    return Computed(
        lambda pairs: mean([value or 0.0 for value in each(pairs)]),
        each,
        lambda p: p.task in CAPTIONS,
        lambda pairs: "one sample alone scores 0: CIDEr needs several" if len(pairs) == 1 else None,
    )


# --- boxes ------------------------------------------------------------------------------------------------------------


def _one_place(pair: Pair) -> bool:
    found = answer_boxes(pair.expected)
    return bool(found) and (pair.task == "refer" or pair.task not in CAPTIONS | {"detection"} and len(found) == 1)


def _box_f1(pair: Pair) -> Tally:
    images = {p.image or 0 for p in (*pair.expected, *pair.given) if isinstance(p, Box)}
    return pooled([scorers.box_f1(answer_boxes(pair.expected, i), answer_boxes(pair.given, i)) for i in images])


def _first_iou(pair: Pair) -> float:
    """Of the first box given with the first expected, on the same picture; 0 where there is none."""
    first = next(p for p in pair.expected if isinstance(p, Box) and p.boxes)
    given = answer_boxes(pair.given)[:1]
    if not given or given != answer_boxes(pair.given, first.image or 0)[:1]:
        return 0.0
    return float(scorers.iou(given, first.boxes[:1])[0, 0])


# --- equal answers ----------------------------------------------------------------------------------------------------


def _said_in_text(pair: Pair) -> bool:
    written = {"transcribe", "translate"} | CAPTIONS
    return pair.task not in written and not asks_boxes(pair.expected) and not answer_words(pair.expected)


def _equal(figure: str, full: float = 1.0, applies: Callable[[Pair], bool] = lambda pair: True) -> Computed:
    return averaged(lambda pair: full * choices.equal(figure, pair), applies)


def _note(same: Callable[[music.Note, music.Note], bool]) -> Computed:
    return averaged(lambda pair: same(*music.notes(pair)))


COMPUTED: dict[str, Computed] = {
    "wer": _rate(lambda text, language: units(text)),
    "wer_normalized": _rate(lambda text, language: units(normalized(text, language))),
    "cer_normalized": _rate(lambda text, language: letters(normalized(text, language))),
    "wer_whisper": _rate(_whisper_units, _no_whisper),
    HALLUCINATED: _silence(),
    "word_time_ms": counted(lambda pair: _word_times(pair).error, _timed),
    "word_time_coverage": counted(lambda pair: _word_times(pair).coverage, _timed),
    "box_accuracy_50": averaged(lambda p: _first_iou(p) >= scorers.IOU_THRESHOLD, _one_place),
    "box_f1_50": counted(_box_f1, lambda p: asks_boxes(p.expected) or p.task == "detection", nothing=1.0),
    "exact": counted(
        lambda p: scorers.exact(answer_text(p.expected), answer_text(p.given), p.language), _said_in_text
    ),
    "bleu": Computed(_bleu, _each_bleu, lambda p: p.task in CAPTIONS | {"translate"} and not p.silent),
    "cider": _cider(lambda text, language: units(normalized(text, language))),
    # Beside an original's alone.
    "cider_ptb_like": _cider(lambda text, language: captions.ptb_like(text)),
    "vqa_accuracy": averaged(lambda p: vqa.soft_accuracy(p.raw.replace("<unk>", ""), p.references)),
    "iou": averaged(_first_iou),
    "well_formed": averaged(lambda p: bool(answer_boxes(p.given))),
    "chair_i": counted(
        lambda p: Tally(*hallucination.mentions(p)), note=hallucination.nothing_named, nothing=0.0
    ),
    "chair_s": averaged(lambda p: hallucination.mentions(p).absent > 0),
    "length_words": averaged(lambda p: len(p.raw.split())),
    "without_times": averaged(lambda p: speech.read_times(p.raw) is None),
    "chroma_accuracy": averaged(music.same_chroma, lambda p: music.notes(p)[0].pitch != music.NONE),
    # The originals'.
    "minigpt_v2_vqa_accuracy": Computed(
        lambda pairs: round(100 * mean([vqa.original_accuracy(p.raw, p.references) for p in pairs]), 2),
        lambda pairs: [round(100 * vqa.original_accuracy(p.raw, p.references), 2) for p in pairs],
    ),
    "minigpt_v2_vizwiz_accuracy": averaged(lambda p: 100 * vqa.original_vizwiz(p.raw, p.references)),
    **{name: _equal(name, 100) for name in choices.EQUAL if name.startswith("minigpt_v2")},
    "minigpt_v2_accuracy": averaged(lambda p: 100 * boxes.original_hit(p.raw, *p.extra)),
    "qwen_audio_wer": counted(speech.original_errors),
    "qwen_audio_aas_seconds": Computed(speech.original_aas, speech.each_aas, note=speech.malformed),
    "qwen_audio_bleu": Computed(translation.original_bleu, note=translation.no_dictionary),
    "qwen_audio_accuracy": _equal("qwen_audio_accuracy"),
    "qwen_audio_accuracy_binary": _equal("qwen_audio_accuracy", applies=choices.yes_or_no),
    "qwen_audio_qualities_map": Computed(music.qualities_map),
    "qwen_audio_instrument_accuracy": _note(lambda x, y: x.instrument == y.instrument),
    "qwen_audio_pitch_accuracy": _note(lambda x, y: x.pitch == y.pitch),
    "qwen_audio_chroma_accuracy": Computed(
        lambda pairs: mean(music.same_places(pairs)), lambda pairs: [*music.same_places(pairs)]
    ),
    "qwen_audio_velocity_accuracy": _note(lambda x, y: x.velocity == y.velocity),
}  # fmt: skip
_TABLE = beside(__file__)
METRICS: dict[str, Metric] = {name: Metric(name, COMPUTED[name], **row) for name, row in _TABLE.items()}
# Those that any sample may have.
EVERYDAY = ("wer", "wer_normalized", "cer_normalized", "wer_whisper", HALLUCINATED, "word_time_ms",
            "word_time_coverage", "box_accuracy_50", "box_f1_50", "exact", "bleu", "cider")  # fmt: skip


def chosen(names: Sequence[str] | None) -> list[Metric]:
    """The metrics named, in the order of the table; all that any sample may have where none is named."""
    for name in names or ():
        if name not in EVERYDAY:
            raise WeftError(f"there is no metric {name!r}; choose among {', '.join(EVERYDAY)}")
    return [METRICS[name] for name in EVERYDAY if not names or name in names]


@dataclass(frozen=True)
class Figures:
    """What a test set gets: per task and metric, and per sample in the order given."""

    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # samples behind each figure
    samples: list[dict[str, float | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scored: list[tuple[str, Metric, list[Pair]]] = field(default_factory=list)  # what is behind each figure


def measure(pairs: Sequence[Pair], metrics: Sequence[Metric], name: str = "") -> Figures:
    """Every metric on the samples it applies to, by task; or on all together under a ``name``, each figure named."""
    figures = Figures(samples=[{} for _ in pairs])
    for task in [name] if name else sorted({p.task for p in pairs}):
        table, counts = figures.metrics.setdefault(task, {}), figures.counts.setdefault(task, {})
        for metric in metrics:
            computed = metric.computed
            where = [i for i, p in enumerate(pairs) if (name or p.task == task) and computed.applies(p)]
            group = [pairs[i] for i in where]
            if not group and (not name or metric.optional):
                continue
            table[metric.name] = computed.corpus(group) if group else None
            counts[metric.name] = len(group)
            figures.scored.append((task, metric, group))
            if note := group and computed.note(group):
                figures.notes.append(note)
            for i, one in zip(where, computed.each(group), strict=True) if computed.each and group else ():
                figures.samples[i][metric.name] = one
    return figures
