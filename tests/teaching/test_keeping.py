"""A model that learns through LoRA keeps what it said of text alone, and answers speech as the same words typed."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from teaching_kit import taught

from training_world import ALL, RATE, picture, speech, tiny_spec, tone, write
from weft.conversation import Audio, Conversation, Message, Task, Text, WeftError, parse_sample
from weft.data.augment import Augment
from weft.data.loader import Batch, SourceSpec, TrainingData
from weft.models.table_rows import look_up
from weft.teaching.keeping import AsBefore, as_typed, without_lora
from weft.training.build import build_model
from weft.training.parts import apply_parts
from weft.training.ranks import ALONE
from weft.training.recipe import PartTraining, Stage
from weft.training.update import MicroStep, backward, counted

LESSON = AsBefore(1.0)
WORDS, ANSWER = "how are you today", "well"


@pytest.fixture(scope="module")
def made():
    return build_model(tiny_spec())


@pytest.fixture
def processor(made):
    return made[1]


@pytest.fixture
def model():
    made, _ = build_model(tiny_spec())
    stage = Stage(
        parts={"language": PartTraining(train="lora"), "audio_connector": ALL["audio_connector"]},
        mixture=({"path": "none"},),
        steps=1,
    )
    apply_parts(made, stage, tokens=[5, 6])
    look_up(made)
    return made


def chat(*turns, learn=True) -> Conversation:
    """Questions and answers by turns; strings are typed."""
    parts = ((Text(turn),) if isinstance(turn, str) else turn for turn in turns)
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[i % 2], tuple(each), learn or i % 2 == 0) for i, each in enumerate(parts)))


def said(words=WORDS, seconds=0.6, pitch=440) -> tuple[Audio]:
    return (Audio((tone(seconds, pitch), RATE), words),)


TEXT = chat("count to three", "one two three")
SPOKEN = chat(said(), ANSWER)
UNKNOWN = chat(said(None), ANSWER)


def batch(processor, *samples, packed=True) -> Batch:
    """What the loader makes of them for this lesson."""
    labels = taught(keep=1.0).annotate(processor)
    encoded = [processor.encode(sample) for sample in samples]
    told = [labels(*pair) for pair in zip(samples, encoded, strict=True)]
    lengths = [len(each) for each in encoded]
    firsts = np.cumsum([0, *lengths[:-1]]).tolist()
    starts = [(0, first) if packed else (row, 0) for row, first in enumerate(firsts)] if samples else []
    inputs = (processor.pack if packed else processor.collate)(encoded) if samples else {}
    return Batch(inputs, sum(lengths), sum(lengths), 0, [], labels.join(told, starts))


def bend(model) -> None:
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "delta" in name:
            weight.data += 0.1 * torch.randn_like(weight)


def loss(model, found, among=None) -> torch.Tensor:
    return LESSON.loss(MicroStep(model, found), None, among or LESSON.counts(found))


def learned(processor, sample) -> int:
    return int(processor.encode(sample).loss_mask.sum())


def test_it_is_how_far_answers_of_text_alone_moved(model, processor):
    found = batch(processor, TEXT, UNKNOWN, chat("not learned", "at all", learn=False))
    count = learned(processor, TEXT)
    assert LESSON.counts(found) == (count,)
    assert loss(model, found).abs() < 1e-6
    bend(model)
    moved = loss(model, found)
    encoded = processor.encode(TEXT)
    ids, places = torch.from_numpy(encoded.input_ids)[None], np.flatnonzero(encoded.loss_mask) - 1
    with torch.no_grad():
        now = model.logits(model.last_hidden(input_ids=ids)[0, places]).log_softmax(-1)
        with without_lora(model):
            before = model.logits(model.last_hidden(input_ids=ids)[0, places]).log_softmax(-1)
    torch.testing.assert_close(moved, (before.exp() * (before - now)).sum(-1).mean())
    assert moved > 1e-4
    moved.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and any(p.grad is not None and p.grad.any() for p in trained)


def test_a_spoken_prompt_is_compared_with_the_same_words_typed_without_lora(model, processor):
    bend(model)
    found, spoken, typed = batch(processor, SPOKEN), processor.encode(SPOKEN), processor.encode(chat(WORDS, ANSWER))
    assert LESSON.counts(found) == (learned(processor, SPOKEN),)
    with torch.no_grad():
        own = model.last_hidden(**{k: v for k, v in processor.collate([spoken]).items() if k != "labels"})
        now = model.logits(own[0, np.flatnonzero(spoken.loss_mask) - 1]).log_softmax(-1)
        with without_lora(model):
            ids = torch.from_numpy(typed.input_ids)[None]
            teacher = model.last_hidden(input_ids=ids)[0, np.flatnonzero(typed.loss_mask) - 1]
            before = model.logits(teacher).log_softmax(-1)
    torch.testing.assert_close(loss(model, found), (before.exp() * (before - now)).sum(-1).mean())


def test_nothing_is_to_be_learned_where_a_clip_is_heard_as_its_words_and_lora_is_off(model, processor):
    """A step of the typed prompt, that counts as one of the spoken: as if the connector gave the words' embeddings."""
    typed = chat(WORDS, ANSWER)
    twin = as_typed(SPOKEN, processor.encode(SPOKEN), processor)
    found = batch(processor, TEXT, typed)
    heard_as_words = replace(twin, own_N=found.extra.typed[1].own_N)
    found.extra = replace(found.extra, typed=(found.extra.typed[0], heard_as_words))
    assert loss(model, found).abs() < 1e-6
    assert loss(model, batch(processor, TEXT, SPOKEN)) > 1e-4


def test_only_the_model_that_hears_learns_of_it(model, processor):
    bend(model)
    found = batch(processor, SPOKEN)
    step = MicroStep(model, found)
    step.hidden_BLD = step.hidden_BLD.detach().requires_grad_()
    LESSON.loss(step, None, LESSON.counts(found)).backward()
    assert step.hidden_BLD.grad.any()
    head = {id(p) for p in model.get_output_embeddings().parameters()}
    assert all(p.grad is None for p in model.parameters() if id(p) not in head)  # the teacher's pass has no gradient
    backward(model, [found], [LESSON], precision="float32")
    assert all(p.grad is not None and p.grad.any() for p in model.audio_connector.parameters())


def test_several_in_a_row_learn_as_each_alone(model, processor):
    bend(model)
    other = chat(said("what is that", 0.9, 300), "a dog barks", said("and this", 0.4, 700), "a cat")
    samples = (SPOKEN, UNKNOWN, TEXT, other)
    each = [batch(processor, sample) for sample in samples if sample is not UNKNOWN]
    whole = (sum(LESSON.counts(one)[0] for one in each),)
    alone = sum(loss(model, one, whole) for one in each)
    for packed in (True, False):
        found = batch(processor, *samples, packed=packed)
        assert LESSON.counts(found) == whole
        torch.testing.assert_close(loss(model, found), alone)


def test_what_cannot_be_typed_is_left_to_its_labels(tmp_path, processor):
    image = parse_sample(picture(tmp_path, 0, np.random.default_rng(0)), root=tmp_path)
    asked = chat((*said(), Task("transcribe", {"language": "en"})), ANSWER)
    with_text = chat((*said(), Text("Translate it.")), ANSWER)
    half = chat(said(), ANSWER, said(None), ANSWER)
    found = batch(processor, image, asked, with_text, half, UNKNOWN)
    assert found.extra.typed == (None,) * 5
    assert LESSON.counts(found) == (0,)


def test_batches_and_ranks_without_anything_to_keep(model, processor):
    assert LESSON.counts(batch(processor)) == (0,)
    micro = [batch(processor, UNKNOWN), batch(processor, SPOKEN), batch(processor)]
    counts, among = counted([LESSON], micro, ALONE)
    assert [c[0] for c in counts[0]] == [0, learned(processor, SPOKEN), 0] and among == [[learned(processor, SPOKEN)]]

    class Other:
        """Another rank has all there is."""

        def total(self, own):
            return [each + 4 for each in own]

        def place(self, number):
            return number

    assert backward(model, micro[:1], [LESSON], precision="float32", ranks=Other())["keep"] == 0


def test_a_recording_is_decoded_and_changed_and_its_words_stay(tmp_path, processor):
    question = json.loads(write(tmp_path, 1, (speech,)).read_text())["messages"][0]["content"][0]
    turns = [("user", [{**question, "transcript": WORDS}]), ("assistant", ANSWER)]
    (tmp_path / "talk.jsonl").write_text(
        json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})
    )
    source = SourceSpec(tmp_path / "talk.jsonl", augment=Augment(gain_db=6, speed=0.1, pad_seconds=0.1))
    loader = TrainingData([source], processor, row_tokens=100, annotate=taught(keep=1.0).annotate(processor))
    (found,) = islice(loader.batches(), 1)
    expected = processor.encode(chat(WORDS, ANSWER)).input_ids
    assert found.extra.typed and all(np.array_equal(typed.ids_L, expected) for typed in found.extra.typed)
    assert LESSON.counts(found) == (found.labels,)


def test_learning_it_brings_the_model_back(model, processor):
    found = batch(processor, TEXT, SPOKEN)
    bend(model)
    first = float(loss(model, found).detach())
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss(model, found).backward()
        optimizer.step()
    assert float(loss(model, found).detach()) < 0.3 * first


def test_an_answer_that_is_other_tokens_behind_the_clip_is_an_error(processor):
    encoded = processor.encode(chat(said(), "otherwise"))
    with pytest.raises(WeftError, match="lesson keep: the answer has other tokens behind a clip"):
        as_typed(SPOKEN, encoded, processor)


def test_it_needs_lora(made, processor):
    with pytest.raises(WeftError, match="lesson keep needs a language model that trains through LoRA"):
        loss(made[0], batch(processor, TEXT))
