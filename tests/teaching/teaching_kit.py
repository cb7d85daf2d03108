"""Lessons as a run hands them, for tests that do without one."""

from weft.data.loader import SourceSpec, TrainingData
from weft.teaching import Taught, teach
from weft.training.recipe import Source, Stage


def taught(files=(), **lessons) -> Taught:
    return teach(Stage(lessons=lessons, mixture=tuple(Source(path=str(file)) for file in files)))


def data(files, processor, row_tokens=300, lessons=None, **options) -> TrainingData:
    """What a run loads for these lessons."""
    hand = taught(files, **(lessons or {}))
    specs = hand.sources([SourceSpec(file) for file in files])
    return TrainingData(specs, processor, row_tokens=row_tokens, annotate=hand.annotate(processor), **options)
