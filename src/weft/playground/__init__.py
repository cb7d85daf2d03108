"""Embedded worlds: pictures, speech and sounds that weft makes itself, with exact answers.

`world` is the wide one (`docs/playground.md`): `scenes` and `phrases` make pictures and what picks out one thing of
them, `speech` and `sentences` what is said and when, `sounds` what else is heard; `picture_tasks`, `sound_tasks` and
`together` ask about them. `tasks`, with `shapes` and `tones`, is so small that a model of a few
layers from random weights learns it within minutes: the demo and the tiny sizes of the recipes use it.
"""
