"""Lessons for models that start from nothing. Loader and update are handed them and know none of them.

Such a model must find out at once what media mean and how answers are written. `media` and `gaze` say what the answers
of a sample tell of its pictures and clips, `losses` are what is learned from that beside the answers, `samples` changes
which samples come together. `lessons` reads what a stage of a recipe asks for; `teach` is what training is handed.
"""

from weft.teaching.lessons import Listen, SourceLessons, StageLessons, Taught, teach

__all__ = ["Listen", "SourceLessons", "StageLessons", "Taught", "teach"]
