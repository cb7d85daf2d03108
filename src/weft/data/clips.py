"""Edits that change how long clips are, drawn for the samples of a source before anything is decoded."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from weft.data.augment import Augment, ClipPlan, Take, draw_clip
from weft.data.lengths import NOT_EDITABLE, Lengths, clip_tokens
from weft.data.lengths_along import LengthsAlong
from weft.models.processing import WeftProcessor

SEAM = 2  # tokens more that a clip's edge may take: a pause and its time


class ClipEdits:
    """The edits of one source's clips. A sample that would not fit a row of ``row_tokens`` stays as it is."""

    def __init__(self, lengths: Lengths | LengthsAlong, processor: WeftProcessor, row_tokens: int) -> None:
        self.lengths, self.processor, self.row_tokens = lengths, processor, row_tokens

    @cached_property
    def members(self) -> dict[int, np.ndarray]:
        return self.lengths.members()

    def draw(self, augment: Augment, index: int, rng: np.random.Generator) -> ClipPlan | None:
        """How the clip of a sample is edited in time; None where it is not."""
        if not (augment.speed or augment.pad_seconds or augment.cut or augment.join or augment.untimed):
            return None
        group = int(self.lengths.group[index])
        if group == NOT_EDITABLE or not self.lengths.clip_samples[index]:
            return None
        partners = self.members.get(group, np.zeros(0, np.int64))
        rate = self.processor.sounds.section.sample_rate
        plan = draw_clip(augment, rng, index, self.lengths.cut_points, partners, rate)
        return plan if self.tokens(plan) <= self.row_tokens else self._whole(index)

    def tokens(self, plan: ClipPlan) -> int:
        """The most that a sample can take: where a clip meets silence or another one, and where words reach into a
        further window of the encoder, dialects write a little more."""
        first = plan.takes[0].index
        if plan == self._whole(first):
            return int(self.lengths.tokens[first])
        tokens = clip_tokens(self.processor, plan.samples) + int(self.lengths.shared[first])
        tokens += SEAM * len(plan.takes) + len(self.processor.sounds.windows(plan.samples)) - 1
        return tokens + sum(self.lengths.answer_tokens(take.index, take.words) for take in plan.takes)

    def _whole(self, index: int) -> ClipPlan:
        return ClipPlan((Take(index, 0, int(self.lengths.clip_samples[index])),))
