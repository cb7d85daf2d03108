"""A model that answers samples with what a test wants, and what is right."""

from weft.conversation import WeftError
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
