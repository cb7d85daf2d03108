"""What answers with word times and boxes tell of the media themselves."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer

from training_world import RATE, picture, speech, tiny_spec, write
from weft.conversation import Conversation, Message, Text, WeftError, Words
from weft.data.loader import SourceSpec, TrainingData
from weft.models.config import Connector
from weft.models.places import token_grid
from weft.teaching.labels import Labels
from weft.teaching.media import Looking, listening_labels, looking_labels, within_text
from weft.training.build import build_model


@pytest.fixture(scope="module")
def model_and_processor():
    return build_model(tiny_spec())


@pytest.fixture(scope="module")
def processor(model_and_processor):
    return model_and_processor[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("samples")
    return [write(root / kind.__name__, 30, (kind,), seed=i) for i, kind in enumerate((speech, picture))]


def data(files, processor, **options):
    return TrainingData([SourceSpec(f) for f in files], processor, row_tokens=300, seed=3, **options)


def test_listening_labels_name_the_word_that_sounds(processor, files):
    plain = data(files[:1], processor)
    timed = next(p for p in range(9) if plain.conversation(p).answer.parts[0].__class__.__name__ == "Words")
    conversation = plain.conversation(timed)
    encoded = processor.encode(conversation)
    told = listening_labels(conversation, encoded, processor)
    heard = told.heard
    (span,) = [s for s in encoded.spans if s.modality == "audio"]
    assert len(heard) == span.length
    wave = conversation.audios[0].source[0]
    names = processor.tokenizer.convert_ids_to_tokens
    for k, (token, sides) in enumerate(zip(heard, told.sides, strict=True)):
        moment = (k + 0.5) * len(wave) / RATE / span.length
        word = next((w for w in conversation.answer.parts[0].words if w.start <= moment < w.end), None)
        if word is None:
            assert token == processor.token_ids["audio_token_id"] and (sides == -100).all()
        else:
            assert token in processor.renderer.encode_text(word.text)
            for side, time in zip(sides, (word.start, word.end), strict=True):
                assert (
                    "".join(names(side.tolist()))
                    == f"<|t{int(time * 10 + 1e-6) / 10:.1f}|><|f{round(time * 100) % 10}|>"
                )


def test_words_in_several_parts_of_an_answer_all_sound(processor, files):
    plain = data(files[:1], processor)
    timed = (plain.conversation(i) for i in range(12))
    whole = next(c for c in timed if isinstance(c.answer.parts[0], Words) and len(c.answer.parts[0].words) > 1)
    (part,) = whole.answer.parts
    halves = (Words(part.words[:1], 0), Text(" then "), Words(part.words[1:], 0))
    split = replace(whole, messages=(whole.messages[0], Message("assistant", halves)))
    one, other = (listening_labels(c, processor.encode(c), processor) for c in (whole, split))
    assert (one.heard == other.heard).all() and (one.sides == other.sides).all()


def test_media_teach_nothing_of_an_answer_that_is_not_to_be_learned(processor, files):
    for file, labels, told in ((files[0], listening_labels, "heard"), (files[1], looking_labels, "seen")):
        plain = data([file], processor)
        for conversation in map(plain.conversation, range(8)):
            answer = replace(conversation.answer, learn=False)
            marked = replace(conversation, messages=(*conversation.messages[:-1], answer))
            assert (getattr(labels(marked, processor.encode(marked), processor), told) == -100).all()


def test_looking_labels_name_what_is_seen_in_each_box(processor, files):
    conversation = data(files[1:2], processor).conversation(0)
    looking = looking_labels(conversation, processor.encode(conversation), processor)
    rows, columns = token_grid(processor.images)
    ((left, top, right, bottom),) = conversation.answer.parts[0].boxes
    label = processor.renderer.encode_text("the red box")
    assert [n[n >= 0].tolist() for n in looking.names] == [[processor.token_ids["image_token_id"]], label]
    assert looking.among.all() and len(looking.seen) == rows * columns
    middle = int((top + bottom) / 2 * rows) * columns + int((left + right) / 2 * columns)
    scale = [processor.renderer.token_id(f"<|p{k}|>") for k in range(processor.dialect.switches.box_bins)]
    for k, (name, sides) in enumerate(zip(looking.seen, looking.sides, strict=True)):
        steps = [scale.index(token) / (len(scale) - 1) if token >= 0 else None for token in sides[:, 0]]
        assert steps == (pytest.approx([left, top, right, bottom], abs=0.5 / len(scale)) if name else [None] * 4)
        x, y = (k % columns + 0.5) / columns, (k // columns + 0.5) / rows
        assert name == (left <= x < right and top <= y < bottom or k == middle)


def test_a_picture_only_tells_of_what_its_sample_asks_for(processor, files):
    plain = data(files[1:2], processor)
    parts = []
    for position, label in enumerate(("the red box", "the blue box", "the red box")):
        conversation = plain.conversation(position)
        question, answer = conversation.messages
        box = replace(answer.parts[0], label=label)
        told = Conversation((question, replace(answer, parts=(box,))))
        parts.append(looking_labels(told, processor.encode(told), processor))
    question = Conversation((conversation.messages[0], Message("assistant", (Text("two"),))))
    parts.append(looking_labels(question, processor.encode(question), processor))  # tells of nothing
    joined = Looking.join(parts)
    assert (joined.seen[-len(parts[0].seen) :] == -100).all() and not joined.among[-1].any()
    one = len(parts[0].seen)
    assert len(joined.names) == 3 and joined.among[: 3 * one].sum(1).tolist() == [2] * 3 * one
    assert (joined.among[:one] == joined.among[2 * one : 3 * one]).all() and not (
        joined.among[0] == joined.among[one]
    ).all()
    assert set(joined.seen[one : 2 * one]) == {0, 2} and set(joined.seen[:one]) == {0, 1}


def test_labels_stand_for_every_embedding_of_sound_and_sight(model_and_processor, files):
    model, processor = model_and_processor
    batch = next(
        b
        for b in data(files, processor, annotate=Labels(processor)).batches()
        if {"pixel_values", "input_features"} <= set(b.inputs)
    )
    with torch.no_grad():
        views = model.embed_images(batch.inputs["pixel_values"])
        sounds = model.embed_audio(batch.inputs["input_features"], batch.inputs["feature_lengths"])
    heard, seen = batch.extra.heard, batch.extra.seen
    assert len(heard.heard) == len(heard.sides) == len(sounds) and (heard.heard >= 0).any()
    assert len(seen.seen) == len(seen.among) == len(views) and (seen.seen > 0).any()
    assert ((heard.sides >= 0).any(-1).any(-1) <= (heard.heard >= 0)).all()
    assert ((seen.sides >= 0).all(-1).all(-1) == (seen.seen > 0)).all()


def test_an_encoder_whose_embeddings_have_no_places_is_named_with_the_lesson(files):
    spec = tiny_spec()
    vision = spec.vision.model_copy(update={"connector": Connector(kind="queries", queries=4, heads=2)})
    _, processor = build_model(spec.model_copy(update={"vision": vision}))
    data = TrainingData([SourceSpec(files[1])], processor, row_tokens=300, annotate=Labels(processor))
    with pytest.raises(WeftError, match=r"jsonl:\d+: the lesson listen: vision.*, or leave it out"):
        next(data.batches())


@pytest.mark.parametrize("blank_merges", (True, False))
def test_a_heard_word_is_named_as_it_stands_in_a_text(blank_merges):
    tokenizer = ByteLevelBPETokenizer()
    said = ["say one two, say one two"] if blank_merges else ["one", "two"]
    tokenizer.train_from_iterator(said, 300, min_frequency=1)
    processor = SimpleNamespace(renderer=SimpleNamespace(encode_text=lambda text: tokenizer.encode(text).ids))
    told = within_text("two", processor)
    assert tokenizer.decode(told) == (" two" if blank_merges else "two")
    assert len(told) == 1
