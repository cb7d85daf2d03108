"""What the loader asks of each sample for the lessons, and hands on with the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weft.conversation import Conversation, WeftError
from weft.models.encoding import Encoded
from weft.models.processing import WeftProcessor
from weft.teaching.gaze import Gaze, gaze_labels
from weft.teaching.keeping import Typed, as_typed
from weft.teaching.media import Listening, Looking, listening_labels, looking_labels


@dataclass(frozen=True)
class Told:
    """What the answers of a sample, or of the samples of a batch, tell of its media. Empty where it was not asked."""

    heard: Listening
    seen: Looking
    gazes: tuple[Gaze, ...] = ()  # of each sample
    typed: tuple[Typed | None, ...] = ()  # each sample as it is typed; None where it cannot be
    starts: tuple[tuple[int, int], ...] = ((0, 0),)  # row and first place of each sample in the batch


@dataclass(frozen=True)
class Labels:
    """``labels(conversation, encoded)`` of a sample; `join` makes those of a batch."""

    processor: WeftProcessor
    listen: bool = True
    guide: bool = True
    keep: bool = False

    def __call__(self, conversation: Conversation, encoded: Encoded) -> Told:
        """The conversation is the one that ``encoded`` was made of, its media decoded."""
        sample = conversation, encoded, self.processor
        typed = (as_typed(*sample),) if self.keep else ()
        try:
            return Told(
                listening_labels(*sample) if self.listen else Listening.join([]),
                looking_labels(*sample) if self.listen else Looking.join([]),
                (gaze_labels(*sample),) if self.guide else (),
                typed,
            )
        except WeftError as error:  # of an encoder whose embeddings have no places or moments
            raise WeftError(f"the lesson listen: {error}, or leave it out") from None

    def join(self, samples: Sequence[Told], starts: Sequence[tuple[int, int]]) -> Told:
        return Told(
            Listening.join([sample.heard for sample in samples]),
            Looking.join([sample.seen for sample in samples]),
            tuple(gaze for sample in samples for gaze in sample.gazes),
            tuple(typed for sample in samples for typed in sample.typed),
            tuple(starts),
        )
