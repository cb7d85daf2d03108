"""Micro-steps: the same whatever made them, complete, and clear about samples that are wrong."""

import json
from dataclasses import replace
from itertools import islice

import pytest
import torch

from training_world import RATE, picture, speech, text, tiny_spec, write
from weft.conversation import Conversation, Message, Text, WeftError, Words
from weft.data.augment import Augment
from weft.data.listening import Looking, listening_labels, looking_labels
from weft.data.loader import SourceSpec, TrainingData
from weft.training.build import build_model

AUGMENT = Augment(
    gain_db=6, speed=0.1, noise_db=(5, 30), pad_seconds=0.2, cut=0.3, join=0.4, untimed=0.3,
    time_masks=1, time_mask_frames=8, freq_masks=1, freq_mask_bands=4, color=0.2, shift=0.1, scale=0.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def model_and_processor():
    return build_model(tiny_spec())


@pytest.fixture(scope="module")
def processor(model_and_processor):
    return model_and_processor[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("samples")
    return [write(root / name, 30, (kind,), seed=i) for i, (name, kind) in enumerate(KINDS.items())]


KINDS = {"speech": speech, "pictures": picture, "texts": text}


def data(files, processor, augment=AUGMENT, **options):
    specs = [SourceSpec(f, augment=augment, name=f.parent.name) for f in files]
    return TrainingData(specs, processor, **{"row_tokens": 300, "seed": 3, **options})


def equal(one, other):
    return (
        one.samples == other.samples
        and one.inputs.keys() == other.inputs.keys()
        and all(torch.equal(one.inputs[k], other.inputs[k]) for k in one.inputs)
    )


def test_a_micro_step_does_not_depend_on_where_reading_began_or_on_the_cache(files, processor):
    first = list(islice(data(files, processor).batches(), 8))
    later = list(islice(data(files, processor, cache_bytes=0).batches(5), 3))
    assert all(equal(a, b) for a, b in zip(first[5:], later, strict=True))


def test_a_resumed_plan_goes_on_with_the_next_row(files, processor):
    whole = data(files, processor)
    first = list(islice(whole.batches(), 8))
    rest = data(files, processor, first_row=5, anchor=whole.plan.anchor(5))
    assert all(equal(a, b) for a, b in zip(first[5:], islice(rest.batches(), 3), strict=True))


def test_worker_processes_give_what_a_thread_gives(files, processor):
    thread = list(islice(data(files, processor).batches(), 4))
    workers = list(islice(data(files, processor).batches(workers=2), 4))
    assert all(equal(a, b) for a, b in zip(thread, workers, strict=True))


@pytest.mark.parametrize("world", [1, 2])
def test_ranks_read_every_row_once(files, processor, world):
    ranks = [data(files, processor, rank=r, world=world, rows=2) for r in range(world)]
    got = [s for step in range(6 // world) for rank in ranks for s in rank.batch(step)["samples"]]
    alone = data(files, processor, rows=1)
    assert got == [s for step in range(12) for s in alone.batch(step)["samples"]]


def test_evaluation_reads_each_sample_once_in_one_pass(files, processor):
    batches = list(data(files, processor, Augment(), in_order=True).batches())
    assert sorted(s for b in batches for s in b.samples) == sorted(f"{f}:{i + 1}" for f in files for i in range(30))
    some = list(data(files, processor, Augment(), in_order=True, limit=7).batches())
    assert sum(len(b.samples) for b in some) == 7


def test_rows_are_as_long_as_planned(files, processor):
    whole = data(files, processor, AUGMENT.model_copy(update={"cut": 0.0, "untimed": 0.0}))
    for row in range(20):
        batch = whole.batch(row)
        planned = sum(whole.length(p) for p in whole.plan[row])
        assert abs(batch["tokens"] - planned) <= 2 * len(batch["samples"])
        assert planned <= 300
    cut = data(files[:1], processor, AUGMENT.model_copy(update={"cut": 0.9, "untimed": 0.0}))
    tokens, planned = (
        sum(numbers)
        for numbers in zip(
            *((cut.batch(r)["tokens"], sum(map(cut.length, cut.plan[r]))) for r in range(20)), strict=True
        )
    )
    assert abs(tokens / planned - 1) < 0.1  # a run of words is as long as its share leads to expect, in the mean


def test_labels_counted_are_labels_learned(model_and_processor, files):
    model, processor = model_and_processor
    for packing in (True, False):
        batch = next(data(files, processor, packing=packing, rows=2).batches())
        with torch.no_grad():
            assert int(model(**batch.inputs).loss_count) == batch.labels


def test_packed_and_padded_batches_give_the_same_loss(model_and_processor, files):
    model, processor = model_and_processor
    plain = data(files, processor)
    encoded = [plain.encode(p).encoded for p in range(9)]
    with torch.no_grad():
        packed = model(**processor.pack(encoded))
        padded = model(**processor.collate(encoded))
    assert int(packed.loss_count) == int(padded.loss_count)
    assert abs(float(packed.loss) - float(padded.loss)) < 1e-5


def bad_copy(files, tmp_path, change):
    """The speech samples with one line changed, media beside it."""
    lines = files[0].read_text().splitlines()
    lines[4] = change(lines[4])
    path = files[0].parent / f"{tmp_path.name}.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_missing_file_is_named_or_counted(files, processor, tmp_path):
    path = bad_copy(files, tmp_path, lambda line: line.replace("4.wav", "nowhere.wav"))
    with pytest.raises(WeftError, match=rf"{path.name}:5: .*nowhere\.wav.*--on-bad-sample skip"):
        data([path], processor)
    whole = data([path], processor, on_bad_sample="skip")
    assert len(whole.problems) == 1 and f"{path.name}:5" in whole.problems[0]
    seen = {s for step in range(30) for s in whole.batch(step)["samples"]}
    assert f"{path}:5" not in seen and len(seen) == 29


def test_a_clip_that_does_not_decode_is_named_or_counted(files, processor, tmp_path):
    good = (files[0].parent / "4.wav").read_bytes()
    (files[0].parent / "broken.wav").write_bytes(good[:44] + b"")
    path = bad_copy(files, tmp_path, lambda line: line.replace("4.wav", "broken.wav"))
    with pytest.raises(WeftError, match=f"{path.name}:5"):
        whole = data([path], processor, Augment())
        list(islice(whole.batches(), 12))
    whole = data([path], processor, Augment(), on_bad_sample="skip")
    skipped = [p for step in range(12) for p in whole.batch(step)["skipped"]] + whole.problems
    assert skipped and all(f"{path.name}:5" in p for p in skipped)


def test_a_sample_longer_than_a_row_is_named_with_its_tokens(files, processor, tmp_path):
    long = " ".join(["word"] * 400)
    path = tmp_path / "long.jsonl"
    lines = files[2].read_text().splitlines()
    sample = json.loads(lines[2])
    sample["messages"][1]["content"] = long
    path.write_text("\n".join([*lines[:2], json.dumps(sample)]))
    with pytest.raises(WeftError, match=r"long\.jsonl:3: \d+ tokens do not fit a row of 300"):
        data([path], processor)
    whole = data([path], processor, on_bad_sample="skip")
    assert len(whole.problems) == 1
    assert len({s for step in range(3) for s in whole.batch(step)["samples"]}) == 2


def test_a_sample_without_an_answer_is_named_or_left_out(files, processor, tmp_path):
    path = tmp_path / "asked.jsonl"
    asked = {"messages": [{"role": "user", "content": "how many?"}]}
    answered = {"messages": [*asked["messages"], {"role": "assistant", "content": "two"}]}
    path.write_text(json.dumps(answered) + "\n" + json.dumps(asked) + "\n")
    with pytest.raises(WeftError, match=r"asked\.jsonl:2: there is no answer"):
        data([path], processor)
    assert len(data([path], processor, on_bad_sample="skip").problems) == 1
    answered["messages"][1]["learn"] = False
    path.write_text(json.dumps(answered) + "\n")
    with pytest.raises(WeftError, match=r'asked\.jsonl:1: there is nothing to learn: every answer says "learn": false'):
        data([path], processor)


@pytest.mark.parametrize("augment", [Augment(), AUGMENT, Augment(converse=1.0, flip=True)])
def test_an_answer_that_is_not_to_be_learned_is_learned_in_no_batch(processor, tmp_path, augment):
    """Every second answer is marked, and has words that no other sample holds."""
    path = asked_twice(tmp_path / "pictures")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for i, line in enumerate(lines):
        answer = line["messages"][1]
        if i % 2:
            line["messages"] += [line["messages"][0] | {"content": "again"}, {"role": "assistant", "content": "yes"}]
            answer |= {"content": "zzz", "learn": False}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    learned = ""
    for batch in islice(data([path], processor, augment).batches(), 8):
        labels = batch.inputs["labels"]
        assert "zzz" in processor.tokenizer.decode(batch.inputs["input_ids"][0])
        learned += processor.tokenizer.decode(labels[labels >= 0])
    assert "yes" in learned and "z" not in learned


def test_words_that_end_after_their_clip_are_named(files, processor, tmp_path):
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    wrong = next(line for line in lines if isinstance(line["messages"][1]["content"], list))
    wrong["messages"][1]["content"][0]["words"][-1]["end"] = 9.0
    path = files[0].with_name("late.jsonl")
    path.write_text(json.dumps(wrong) + "\n")
    with pytest.raises(WeftError, match=r"late\.jsonl:1: messages\[1\]\.content\[0\]: a word ends at 9 s, its clip at"):
        data([path], processor)


def test_nothing_left_is_an_error(files, processor, tmp_path):
    path = tmp_path / "all_bad.jsonl"
    path.write_text("{}\n[]\n")
    with pytest.raises(WeftError, match="every sample was left out"):
        data([path], processor, on_bad_sample="skip")


def test_lengths_are_measured_once(files, processor, tmp_path, monkeypatch):
    data(files, processor, lengths_dir=tmp_path)
    monkeypatch.setattr(type(processor), "length", lambda *_: pytest.fail("measured again"))
    data(files, processor, lengths_dir=tmp_path)


def test_listening_labels_name_the_word_that_sounds(processor, files):
    plain = data(files[:1], processor, Augment())
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
    plain = data(files[:1], processor, augment=Augment())
    timed = (plain.conversation(i) for i in range(12))
    whole = next(c for c in timed if isinstance(c.answer.parts[0], Words) and len(c.answer.parts[0].words) > 1)
    (part,) = whole.answer.parts
    halves = (Words(part.words[:1], 0), Text(" then "), Words(part.words[1:], 0))
    split = replace(whole, messages=(whole.messages[0], Message("assistant", halves)))
    one, other = (listening_labels(c, processor.encode(c), processor) for c in (whole, split))
    assert (one.heard == other.heard).all() and (one.sides == other.sides).all()


def test_media_teach_nothing_of_an_answer_that_is_not_to_be_learned(processor, files):
    for file, labels, told in ((files[0], listening_labels, "heard"), (files[1], looking_labels, "seen")):
        plain = data([file], processor, augment=Augment())
        for conversation in map(plain.conversation, range(8)):
            answer = replace(conversation.answer, learn=False)
            marked = replace(conversation, messages=(*conversation.messages[:-1], answer))
            assert (getattr(labels(marked, processor.encode(marked), processor), told) == -100).all()


def test_looking_labels_name_what_is_seen_in_each_box(processor, files):
    conversation = data(files[1:2], processor, Augment()).conversation(0)
    looking = looking_labels(conversation, processor.encode(conversation), processor)
    rows, columns = processor.images.token_grid
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
    plain = data(files[1:2], processor, Augment())
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
        b for b in data(files, processor, listen=True).batches() if {"pixel_values", "input_features"} <= set(b.inputs)
    )
    with torch.no_grad():
        views = model.embed_images(batch.inputs["pixel_values"])
        sounds = model.embed_audio(batch.inputs["input_features"], batch.inputs["feature_lengths"])
    assert len(batch.heard) == len(sounds) and (batch.heard >= 0).any()
    assert len(batch.seen) == len(batch.among) == len(views) and (batch.seen > 0).any()
    assert (
        len(batch.heard_sides) == len(sounds) and ((batch.heard_sides >= 0).any(-1).any(-1) <= (batch.heard >= 0)).all()
    )
    assert ((batch.seen_sides >= 0).all(-1).all(-1) == (batch.seen > 0)).all()


def asked_twice(folder, samples=6):
    """Pictures with a box question, a count and a colour each."""
    path = write(folder, samples, (picture,))
    lines = []
    for line in map(json.loads, path.read_text().splitlines()):
        lines.append(line)
        for text_, answer in (("how many boxes?", "1"), ("which colour?", "red")):
            question = [line["messages"][0]["content"][0], {"type": "text", "text": text_}]
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            lines.append({"id": line["id"] + text_, "messages": messages})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_questions_about_one_picture_become_one_conversation_about_it(processor, tmp_path):
    path = asked_twice(tmp_path / "pictures")
    alone = data([path], processor, Augment())
    together = data([path], processor, Augment(converse=1.0))
    for position in range(18):
        one, joined = alone.conversation(position), together.conversation(position)
        assert len(joined.images) == 1 and len(joined.messages) == 6
        assert joined.messages[:2] == one.messages or joined.messages[1] == one.messages[1]
        answers = {str(m.parts[0]) for m in joined.messages if m.role == "assistant"}
        assert len(answers) == 3  # the picture's own three, each once
        encoded = together.encode(position).encoded
        assert len(encoded.images) == 1 and 0 < len(encoded) <= together.length(position)
    assert {len(data([path], processor, Augment(converse=0.5)).conversation(p).messages) for p in range(18)} == {
        2,
        4,
        6,
    }
    batch = next(together.batches())
    assert len(batch.answers) == 3 * len(batch.samples) and min(batch.answers) > 0


def test_a_conversation_is_never_longer_than_a_row(processor, tmp_path):
    path = asked_twice(tmp_path / "pictures")
    longest = int(data([path], processor, Augment()).lengths[0].tokens.max())
    bounded = data([path], processor, Augment(converse=1.0), row_tokens=longest + 3)
    assert all(bounded.length(p) <= longest + 3 and len(bounded.encode(p).encoded) <= longest + 3 for p in range(18))
    assert {len(bounded.conversation(p).messages) for p in range(18)} == {2}
