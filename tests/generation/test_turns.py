"""A later turn of a conversation begins with what the turns before have read, and is answered as by itself."""

import pytest
import tiny as small
import torch
from test_batch import asked, run, words

from marks import slow
from tiny_model import picture, sound, user
from weft.generation import Options
from weft.generation.batch import Row, RunningBatch
from weft.generation.turns import Turns


def said(text):
    return [{"role": "assistant", "content": text}]


class Reading:
    """How many tokens prompts were read for, while it is open."""

    def __init__(self, model):
        self.model, self.tokens = model, 0

    def __enter__(self):
        self.hook = self.model.register_forward_pre_hook(self.count, with_kwargs=True)
        return self

    def __exit__(self, *_):
        self.hook.remove()

    def count(self, _, args, kwargs):
        if kwargs.get("inputs_embeds") is not None:
            self.tokens += kwargs["inputs_embeds"].shape[1]


def answered(model, prompts, limit=6):
    """Ids of rows one after the other with one `Turns`, each beside those alone, and how much was read for it."""
    turns = Turns(model, None)
    found = []
    for prompt in prompts:
        rows = [Row(prompt, Options(), limit) for _ in range(2)]
        with Reading(model) as reading:
            run(RunningBatch(model, turns, frozenset(), 1), [(0, rows[0])])
        run(RunningBatch(model, Turns(model, None), frozenset(), 1), [(0, rows[1])])
        found.append((rows[0].ids, rows[1].ids, reading.tokens, len(prompt)))
    return found


def longer(prompt, more):
    ids = torch.cat([torch.from_numpy(prompt.input_ids), torch.tensor(more)]).numpy()
    return type(prompt)(ids, ids.astype(bool))


# Sliding windows keep a part of what was read, and dynamic rotary embeddings turn it by the row's length.
@pytest.mark.parametrize(
    ("family", "kept"),
    [("llama", True), ("weft_qwen", False), *(slow(f, k) for f, k in (("gemma", True), ("mistral", False)))],
)
def test_a_turn_reads_what_is_new_and_answers_as_alone(family, kept):
    model = small.model(family)
    first = words(40, 0)
    once = Row(first, Options(), 6)
    run(RunningBatch(model, Turns(model, None), frozenset(), 1), [(0, once)])
    second = longer(first, [*once.ids, *small.words(5, 1)])  # the answer, and a question
    again = answered(model, [first, second, second, words(12, 3), first])
    for ids, alone, read, length in again:
        assert ids == alone
        assert kept or read == length
    if kept:  # of the last answer's tokens all but the last stand in the cache
        assert [read for _, _, read, _ in again] == [40, 6, 1, 12, 40]


def test_other_beginnings_are_read_anew():
    model = small.model("llama")
    first = words(30, 0)
    changed = longer(words(30, 0), small.words(9, 4))
    changed.input_ids[10] = small.words(1, 99)[0]
    for ids, alone, read, length in answered(model, [first, changed])[1:]:
        assert ids == alone and read == length - 10


def test_turns_with_media_are_answered_as_alone(model):
    question = [*user(picture(1), sound(1.0), "what is it?"), *said("a thing")]
    talks = [
        question[:1],
        [*question, *user("and now?")],
        [*question, *user("and now?"), *said("one more"), *user(picture(2), "this?")],
        [*user(picture(3), sound(1.0), "what is it?"), *said("a thing"), *user("and now?")],  # another picture
    ]
    turns, read = model.turns(), []
    for talk in talks:
        with Reading(model.model) as reading:
            stream = model.stream(talk, turns=turns, max_new_tokens=8)
            text = "".join(stream)
        assert text == stream.reply.text == model.chat(talk, max_new_tokens=8).text
        read.append(reading.tokens)
    whole = [len(asked(model, talk).prompt) for talk in talks]
    assert read[0] == whole[0] and all(0 < few < all_ / 2 for few, all_ in zip(read[1:3], whole[1:3], strict=True))
    assert read[3] > whole[3] / 2
    assert (turns.misses, turns.hits) == (4, 5)


def test_an_answer_that_was_broken_off_harms_no_later_one(model):
    turns, talk = model.turns(), user(picture(1), "what is it?")
    stream = model.stream(talk, turns=turns, max_new_tokens=12)
    next(stream)
    stream.close()
    layer = [m for m in model.model.language_model.modules() if hasattr(m, "self_attn")][-1]
    stop = layer.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        "".join(model.stream([*talk, *said("one"), *user("more")], turns=turns, max_new_tokens=12))
    stop.remove()
    for _ in range(2):
        reply = "".join(model.stream(talk, turns=turns, max_new_tokens=12))
        assert reply == model.chat(talk, max_new_tokens=12).text
