"""What training learns of a sample: one rule for `validate`, `stats`, `show` and training itself.

Training learns the answers that do not say ``"learn": false``. A file may be used as requests and as training data: in
a conversation that ends with the user the earlier answers are learned, and the last question is only a request.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.conversation import Conversation


def nothing_to_learn(conversation: Conversation) -> str | None:
    """Why training has no use for a conversation, or None."""
    if conversation.learned:
        return None
    if any(m.role == "assistant" for m in conversation.messages):
        return 'there is nothing to learn: every answer says "learn": false'
    return "there is no answer (an assistant message) to learn from"


@dataclass
class Learnable:
    """Counts over samples."""

    end_with_user: int = 0  # samples that `weft generate` answers
    earlier_answers: int = 0  # learned ones in those
    unlearned_answers: int = 0  # that say "learn": false
    nothing_to_learn: int = 0  # samples that training refuses or leaves out

    def add(self, conversation: Conversation) -> None:
        learned = len(conversation.learned)
        self.unlearned_answers += sum(m.role == "assistant" for m in conversation.messages) - learned
        self.nothing_to_learn += not learned
        if conversation.answer is None:
            self.end_with_user += 1
            self.earlier_answers += learned

    def rows(self) -> list[tuple[str, int, str]]:
        """What there is to say: a name, a count, a remark."""
        earlier = f"{self.earlier_answers:,} earlier answer{'s are' if self.earlier_answers != 1 else ' is'} learned"
        found = [
            ("end with the user", self.end_with_user, f"their last question is only a request; {earlier}"),
            ("unlearned answers", self.unlearned_answers, 'say "learn": false: written, never learned'),
            ("nothing to learn", self.nothing_to_learn, "no answer, or none that is learned: not training data"),
        ]
        return [row for row in found if row[1]]
