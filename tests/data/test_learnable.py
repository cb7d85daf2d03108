"""What training learns of a sample is decided once, and said alike by the checks, `show` and training."""

from dataclasses import asdict

import pytest

from weft.cli import run
from weft.conversation import Conversation, Message, Text, write_samples
from weft.data.counts import Learnable
from weft.data.lengths import nothing_to_learn
from weft.data.stats import measure
from weft.data.validate import validate

ASK, ANSWER, MARKED = ("user", True), ("assistant", True), ("assistant", False)
SAMPLES = [
    # turns, and what they add to: end with the user, earlier answers, unlearned answers, nothing to learn
    ([ASK, ANSWER], (0, 0, 0, 0)),
    ([ASK, ANSWER, ASK], (1, 1, 0, 0)),
    ([ASK], (1, 0, 0, 1)),
    ([ASK, MARKED], (0, 0, 1, 1)),
    ([ASK, MARKED, ASK, ANSWER], (0, 0, 1, 0)),
    ([ASK, ANSWER, ASK, MARKED, ASK, ANSWER, ASK], (1, 2, 1, 0)),
    ([ASK, MARKED, ASK], (1, 0, 1, 1)),
]


def conversation(turns):
    return Conversation(tuple(Message(role, (Text("words"),), learn) for role, learn in turns))


@pytest.mark.parametrize(("turns", "counts"), SAMPLES)
def test_each_sample_is_counted_for_what_training_does_with_it(turns, counts):
    found = Learnable()
    found.add(conversation(turns))
    assert tuple(asdict(found).values()) == counts
    assert (nothing_to_learn(conversation(turns)) is not None) == bool(counts[-1])


def test_the_checks_and_show_say_the_same(tmp_path, capsys):
    file = tmp_path / "s.jsonl"
    write_samples(file, [conversation(turns) for turns, _ in SAMPLES])
    totals = Learnable(*(sum(counts) for counts in zip(*(counts for _, counts in SAMPLES), strict=True)))
    assert validate([file]).learnable == measure([file]).learnable == totals
    for command in ("data validate", "data stats", "show scratch --sample"):
        assert run([*command.split(), f"{file}:1-7" if command.startswith("show") else str(file)]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "end with the user 4 their last question is only a request; 3 earlier answers are learned" in said
        assert 'unlearned answers 4 say "learn": false' in said and "nothing to learn 3 no answer" in said
