"""Which metric scores which sample, and how its figure is read.

A metric reads the expected and the given parts of an answer. It applies to a sample by its task and by what the
expected answer holds, never by what was given: a malformed answer is scored, and is wrong.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from weft.conversation import Box, Conversation, Part, Text, WeftError, Word, Words
from weft.evaluation import constants, scorers
from weft.evaluation.scorers import BoxTuple, Tally, pooled
from weft.evaluation.text import letters, no_whisper_figure, normalized, units, whisper_normalized
from weft.media import audio_samples

CHAT = "chat"  # the task key of samples that name none
CAPTIONS = frozenset({"caption", "grounded_caption"})
HALLUCINATED = "hallucinated_words_per_minute"
SPOKEN = frozenset({"transcribe", "translate"})


@dataclass(frozen=True)
class Pair:
    """An expected answer beside the given one. ``task`` is the name in the report; ``seconds``: how long the clips are,
    known where nobody speaks in them."""

    task: str
    expected: tuple[Part, ...]
    given: tuple[Part, ...]
    language: str | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, conversation: Conversation, given: tuple[Part, ...]) -> Pair:
        """``conversation`` ends with the expected answer; the task is that of the last user message."""
        assert conversation.answer is not None
        task = next((m.task for m in reversed(conversation.messages) if m.role == "user"), None)
        language = None if task is None else task.get("to") or task.get("language")
        pair = cls(task.name if task else CHAT, conversation.answer.parts, given, language)
        return replace(pair, seconds=clip_seconds(conversation)) if pair.silent else pair

    @property
    def wordless(self) -> bool:
        """Whether no word is expected: no rate over expected words can be had, nor may one enter a mean."""
        return not normalized(answer_text(self.expected), self.language)

    @property
    def silent(self) -> bool:
        """Whether words were asked for where nobody speaks."""
        return self.task in SPOKEN and self.wordless


def clip_seconds(conversation: Conversation) -> float | None:
    """How long all clips of a conversation are; None where there is none, or one cannot be read."""
    try:
        return sum(audio_samples(clip.source) for clip in conversation.audios) / 16000 or None
    except WeftError:
        return None


def answer_text(parts: Sequence[Part]) -> str:
    """The words of an answer: its text and its timed words, in order; boxes have none."""
    pieces = []
    for part in parts:
        if isinstance(part, Text):
            pieces.append(part.text.strip())
        elif isinstance(part, Words):
            pieces += [word.text for word in part.words]
    return " ".join(piece for piece in pieces if piece)


def answer_words(parts: Sequence[Part]) -> list[Word]:
    return [word for part in parts if isinstance(part, Words) for word in part.words]


def answer_boxes(parts: Sequence[Part], image: int | None = None) -> list[BoxTuple]:
    """All boxes in order, or those on one image (a part that names none is on the first)."""
    return [b for p in parts if isinstance(p, Box) and (image is None or (p.image or 0) == image) for b in p.boxes]


class Metric(ABC):
    """A named figure. ``better`` says which way is up, ``unit`` how it is printed."""

    name: ClassVar[str]
    title: ClassVar[str]  # the name for people
    better: ClassVar[str] = "higher"
    unit: ClassVar[str] = "rate"  # rate (0..1), ms, score
    says: ClassVar[str]  # one line for the signature

    @abstractmethod
    def applies(self, pair: Pair) -> bool: ...

    @abstractmethod
    def each(self, pairs: Sequence[Pair]) -> list[float | None]:
        """The figure of every sample alone; None where it has none (no word matched)."""

    @abstractmethod
    def corpus(self, pairs: Sequence[Pair]) -> float | None: ...

    def missing(self, pairs: Sequence[Pair]) -> str | None:
        """Why there is no figure, in a sentence; None where there is one, or where a missing one says itself."""
        return None

    @abstractmethod
    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        """What the best constant answer gets, and that answer as JSON-ready data."""


class TallyMetric(Metric):
    """A metric that pools counts over the corpus."""

    nothing: ClassVar[float | None] = None  # a sample's figure where there was nothing to count

    @abstractmethod
    def tally(self, pair: Pair) -> Tally | None:
        """The counts of one sample; None where this metric cannot mean anything of it, and so of no corpus with it."""

    def each(self, pairs: Sequence[Pair]) -> list[float | None]:
        tallies = [self.tally(p) for p in pairs]
        return [t and (t.value if t.out_of else self.nothing if not t.amount else 1.0) for t in tallies]

    def corpus(self, pairs: Sequence[Pair]) -> float | None:
        tallies = [tally for p in pairs if (tally := self.tally(p)) is not None]
        return pooled(tallies).value if len(tallies) == len(pairs) else None


class WordErrorRate(TallyMetric):
    name, better = "wer", "lower"
    title = "WER"
    says = "jiwer, words as written (letters where a script has no spaces), pooled over the corpus"

    def units(self, text: str, language: str | None) -> list[str] | None:
        return units(text)

    def applies(self, pair: Pair) -> bool:
        return (pair.task == "transcribe" or bool(answer_words(pair.expected))) and not pair.wordless

    def tally(self, pair: Pair) -> Tally | None:
        expected, given = (self.units(answer_text(p), pair.language) for p in (pair.expected, pair.given))
        return None if expected is None or given is None else scorers.unit_errors(expected, given)

    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        expected = [found for p in pairs if (found := self.units(answer_text(p.expected), p.language)) is not None]
        return constants.best_transcript(expected) if len(expected) == len(pairs) else (None, "")


class NormalizedWordErrorRate(WordErrorRate):
    name = "wer_normalized"
    title = "WER, normalised"
    says = "as wer after weft's normaliser (docs/scores.md: case, punctuation and optional points off, all marks kept)"

    def units(self, text: str, language: str | None) -> list[str] | None:
        return units(normalized(text, language))


class NormalizedCharacterErrorRate(WordErrorRate):
    name = "cer_normalized"
    title = "CER, normalised"
    says = "letters with their marks after weft's normaliser, spaces left out, pooled over the corpus"

    def units(self, text: str, language: str | None) -> list[str] | None:
        return letters(normalized(text, language))


class WhisperWordErrorRate(WordErrorRate):
    name = "wer_whisper"
    title = "WER, Whisper's normaliser"
    says = "as wer after Whisper's normaliser (English for language en, which joins spoken digits; basic otherwise)"

    def units(self, text: str, language: str | None) -> list[str] | None:
        made = whisper_normalized(text, language)
        return None if made is None else made.split()

    def missing(self, pairs: Sequence[Pair]) -> str | None:
        return no_whisper_figure([self.tally(p) is None for p in pairs])


class HallucinatedWords(TallyMetric):
    name, better, unit, nothing = HALLUCINATED, "lower", "per_minute", 0.0
    title = "hallucinated words"
    says = (
        "words (by weft's normaliser) given in a minute of the clips where nothing is said, which enter no error rate"
    )

    def applies(self, pair: Pair) -> bool:
        return pair.silent

    def tally(self, pair: Pair) -> Tally | None:
        words = len(units(normalized(answer_text(pair.given), pair.language)))
        return Tally(60.0 * words, pair.seconds or 0) if pair.seconds or not words else None

    def missing(self, pairs: Sequence[Pair]) -> str | None:
        unknown = sum(not p.seconds for p in pairs)
        if not unknown or not any(normalized(answer_text(p.given)) for p in pairs):
            return None
        return (
            f"{self.name} has no figure: the length of {unknown} of {len(pairs)} clips without speech is not known; "
            'write "seconds" beside their references.'
        )

    def corpus(self, pairs: Sequence[Pair]) -> float | None:
        return None if self.missing(pairs) else super().corpus(pairs) or 0.0

    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        return 0.0, ""


class WordTime(TallyMetric):
    name, better, unit = "word_time_ms", "lower", "ms"
    title = "word time error"
    says = (
        "mean of |start error| and |end error| in ms over words matched by jiwer's alignment (case and punctuation off)"
    )

    def applies(self, pair: Pair) -> bool:
        return bool(answer_words(pair.expected))

    def tally(self, pair: Pair) -> Tally:
        return scorers.word_times(answer_words(pair.expected), answer_words(pair.given)).error

    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        return constants.best_word_times([answer_words(p.expected) for p in pairs])


class WordTimeCoverage(WordTime):
    name, better, unit = "word_time_coverage", "higher", "rate"
    title = "words matched"
    says = "expected words that were matched, and so entered word_time_ms"

    def tally(self, pair: Pair) -> Tally:
        return scorers.word_times(answer_words(pair.expected), answer_words(pair.given)).coverage

    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        """That of the constant transcript, since `WordTime.constant` gives its words away."""
        _, answer = constants.best_transcript([[w.text for w in answer_words(p.expected)] for p in pairs])
        words = [Word(w, 0, 0) for w in answer.split()]
        return pooled([scorers.word_times(answer_words(p.expected), words).coverage for p in pairs]).value, answer


class BoxAccuracy(TallyMetric):
    name = "box_accuracy_50"
    title = "box accuracy, IoU ≥ 0.5"
    says = "first box given against the first expected, IoU >= 0.5; no box is wrong"

    def applies(self, pair: Pair) -> bool:
        boxes = answer_boxes(pair.expected)
        return bool(boxes) and (pair.task == "refer" or pair.task not in CAPTIONS | {"detection"} and len(boxes) == 1)

    def tally(self, pair: Pair) -> Tally:
        first = next(p for p in pair.expected if isinstance(p, Box) and p.boxes)
        given = answer_boxes(pair.given)[:1]
        same_image = given and given[0] in answer_boxes(pair.given, first.image or 0)[:1]
        return scorers.box_accuracy(first.boxes, given if same_image else [])

    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        value, box = constants.best_box([answer_boxes(p.expected)[0] for p in pairs])
        return value, list(box)


class BoxF1(TallyMetric):
    name, nothing = "box_f1_50", 1.0
    title = "box F1, IoU ≥ 0.5"
    says = "largest one-to-one matching at IoU >= 0.5 per image, labels ignored, counts pooled over the corpus"

    def applies(self, pair: Pair) -> bool:
        return bool(answer_boxes(pair.expected)) or pair.task == "detection"

    def tally(self, pair: Pair) -> Tally:
        images = {p.image or 0 for p in (*pair.expected, *pair.given) if isinstance(p, Box)}
        return pooled([scorers.box_f1(answer_boxes(pair.expected, i), answer_boxes(pair.given, i)) for i in images])

    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        value, boxes = constants.best_box_set([answer_boxes(p.expected) for p in pairs])
        return value, [list(box) for box in boxes]


class Exact(TallyMetric):
    name = "exact"
    title = "exact match"
    says = "equal after NFKC, casefold, spaces collapsed and punctuation at both ends removed"

    def applies(self, pair: Pair) -> bool:
        written = {"transcribe", "translate"} | CAPTIONS
        return pair.task not in written and not answer_boxes(pair.expected) and not answer_words(pair.expected)

    def tally(self, pair: Pair) -> Tally:
        return scorers.exact(answer_text(pair.expected), answer_text(pair.given), pair.language)

    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        return constants.best_exact([answer_text(p.expected) for p in pairs])


class Bleu(Metric):
    name = "bleu"
    title = "BLEU"

    @property
    def says(self) -> str:  # type: ignore[override]
        return f"sacrebleu {scorers.bleu_signature()} (zh: tok:zh; ja, th, lo, my, km: tok:char), over 100"

    def applies(self, pair: Pair) -> bool:
        return pair.task in CAPTIONS | {"translate"} and not pair.silent

    def each(self, pairs: Sequence[Pair]) -> list[float | None]:
        return [scorers.sentence_bleu(answer_text(p.expected), answer_text(p.given), p.language) for p in pairs]

    def corpus(self, pairs: Sequence[Pair]) -> float | None:
        return scorers.bleu(*_texts(pairs))

    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        expected, _, languages = _texts(pairs)
        return constants.best_bleu(expected, languages)


class Cider(Metric):
    name, unit = "cider", "score"
    title = "CIDEr"
    says = (
        "CIDEr-D (0..10), one reference, lower-cased words without punctuation, frequencies from the references scored"
    )

    def applies(self, pair: Pair) -> bool:
        return pair.task in CAPTIONS

    def each(self, pairs: Sequence[Pair]) -> list[float | None]:
        return list(scorers.cider(*_texts(pairs)))

    def corpus(self, pairs: Sequence[Pair]) -> float | None:
        scores = scorers.cider(*_texts(pairs))
        return sum(scores) / len(scores) if scores else None

    def constant(self, pairs: Sequence[Pair]) -> tuple[float | None, object]:
        expected, _, languages = _texts(pairs)
        return constants.best_cider(expected, languages)


def _texts(pairs: Sequence[Pair]) -> tuple[list[str], list[str], list[str | None]]:
    return [answer_text(p.expected) for p in pairs], [answer_text(p.given) for p in pairs], [p.language for p in pairs]


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        WordErrorRate(),
        NormalizedWordErrorRate(),
        NormalizedCharacterErrorRate(),
        WhisperWordErrorRate(),
        HallucinatedWords(),
        WordTime(),
        WordTimeCoverage(),
        BoxAccuracy(),
        BoxF1(),
        Exact(),
        Bleu(),
        Cider(),
    )
}


def chosen(names: Sequence[str] | None) -> list[Metric]:
    """The metrics named, in the order of the table; all where none is named."""
    for name in names or ():
        if name not in METRICS:
            raise WeftError(f"there is no metric {name!r}; choose among {', '.join(METRICS)}")
    return [metric for name, metric in METRICS.items() if not names or name in names]


@dataclass(frozen=True)
class Figures:
    """The scores of one test set: per task and metric, and per sample in the order given."""

    metrics: dict[str, dict[str, float | None]]
    baseline: dict[str, dict[str, float | None]]
    constants: dict[str, dict[str, object]]  # the constant answer behind each baseline figure
    counts: dict[str, dict[str, int]]  # samples behind each figure
    samples: list[dict[str, float | None]]
    notes: list[str]  # why a figure is missing


def score(pairs: Sequence[Pair], metrics: Sequence[Metric] | None = None, *, baseline: bool = True) -> Figures:
    """Every metric on the samples it applies to, by task, beside the best constant answer."""
    metrics = metrics or list(METRICS.values())
    figures = Figures({}, {}, {}, {}, [{} for _ in pairs], [])
    for task in sorted({p.task for p in pairs}):
        table = figures.metrics.setdefault(task, {})
        for metric in metrics:
            where = [i for i, p in enumerate(pairs) if p.task == task and metric.applies(p)]
            if not where:
                continue
            group = [pairs[i] for i in where]
            table[metric.name] = metric.corpus(group)
            figures.counts.setdefault(task, {})[metric.name] = len(group)
            if note := metric.missing(group):
                figures.notes.append(note)
            if baseline:
                value, answer = metric.constant(group)
                figures.baseline.setdefault(task, {})[metric.name] = value
                figures.constants.setdefault(task, {})[metric.name] = answer
            for i, one in zip(where, metric.each(group), strict=True):
                figures.samples[i][metric.name] = one
    return figures
