"""A model that answers samples with what a test wants, and what is right; rows for `weft score`."""

from weft.conversation import WeftError
from weft.evaluation.families import get_family
from weft.evaluation.published.rows import Line, Row
from weft.evaluation.run import read_questions
from weft.generation import Reply

NASTY = "</script><script>alert(1)</script><!-- & \u2028"


class Canned:
    """Answers each sample with what the test wants."""

    name = "canned"

    def __init__(self, answers):
        self.answers = answers

    def replies(self, conversations, options=None, *, batch_size=16):
        for i, conversation in reversed(list(enumerate(conversations))):
            assert conversation.messages[-1].role == "user"  # the expected answer is not shown
            answer = self.answers[i]
            yield i, answer if isinstance(answer, WeftError) else Reply("t", "raw", tuple(answer), 3, len(answer) > 0)


def right(path):
    return [c.answer.parts for c in read_questions(path)]


def score(name, rows, **options):
    """What `weft score NAME` makes of rows: figures, samples and notes."""
    family = get_family(name)
    return family.measure(family.pairs(rows, **options))


def rows(*pairs):
    """Answers beside the fields of their references."""
    return [Row(str(i), given, Line(fields, "r.jsonl", i + 1)) for i, (given, fields) in enumerate(pairs)]
