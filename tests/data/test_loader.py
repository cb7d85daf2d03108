"""Micro-steps: the same whatever made them, complete, and clear about samples that are wrong."""

import json
import multiprocessing
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from marks import nightly, slow
from processes import CONTEXT
from training_world import RATE, asked_twice, picture, speech, text, tiny_spec, tone, write
from weft.conversation import WeftError
from weft.data.augment import Augment
from weft.data.loader import SourceSpec, TrainingData
from weft.models.config import Connector, DialectSection
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


@pytest.mark.slow
def test_worker_processes_give_what_a_thread_gives(files, processor, monkeypatch):
    thread = list(islice(data(files, processor).batches(), 4))
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: CONTEXT)  # which has imported everything
    workers = list(islice(data(files, processor).batches(workers=2), 4))
    assert all(equal(a, b) for a, b in zip(thread, workers, strict=True))


@pytest.mark.parametrize("world", [slow(1), 2])
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


LONG = ("a", "bb", "of", "supercalifragilistic", "internationalization")


def wordy(folder, number, rng):
    """A clip of words of very different lengths, some with a gap between, up to beyond the encoder's window."""
    words, waves, at = [], [], 0.0
    for _ in range(int(rng.integers(2, 7))):
        text, gap = LONG[rng.integers(len(LONG))], round(float(rng.choice([0.0, 0.1, 0.25])), 3)
        length = round(0.08 + 0.06 * len(text), 3)
        waves += [tone(gap, 0), tone(length, 300)]
        words.append({"text": text, "start": round(at + gap, 3), "end": round(at + gap + length, 3)})
        at += gap + length
    soundfile.write(folder / f"{number}.wav", np.concatenate([*waves, tone(0.1, 0)]), RATE)
    user = [{"type": "audio", "audio": f"{number}.wav"}, {"type": "task", "task": "transcribe", "language": "en"}]
    answer = [{"type": "words", "words": words, "audio": 0}]
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module", params=["chatml", nightly("qwen_audio")])
def wordy_files(request, processor, tmp_path_factory):
    """A processor of the dialect, and clips of such words."""
    file = write(tmp_path_factory.mktemp("wordy"), 60, (wordy,))
    if request.param == "chatml":
        return processor, file
    spec = tiny_spec().model_copy(update={"dialect": DialectSection(name="qwen_audio"), "vision": None})
    return build_model(spec)[1], file


@pytest.mark.parametrize(
    "changes",
    [
        {},
        slow({"cut": 1.0}),
        slow({"cut": 1.0, "cut_words": 0.5}),
        slow({"join": 0.7}),
        slow({"pad_seconds": 1.0, "speed": 0.2}),
        slow({"untimed": 0.5, "join": 0.5}),
    ],
)
def test_no_sample_is_longer_than_planned_and_no_row_longer_than_a_row(wordy_files, changes):
    """Nor much shorter, so that rows are full, but where times are left out."""
    processor, file = wordy_files
    whole = data([file], processor, Augment(**changes) if changes else AUGMENT, row_tokens=500)
    tokens = [len(whole.encode(p)[0].input_ids) for p in range(40)]
    planned = [whole.length(p) for p in range(40)]
    assert all(a <= b for a, b in zip(tokens, planned, strict=True))
    if not (changes.get("untimed") or not changes):
        assert sum(planned) - sum(tokens) <= 6 * len(tokens)
    assert all(whole.batch(row)["tokens"] <= 500 for row in range(3))


def wide(folder, number, rng):
    """A question about a picture of any shape."""
    shape = [int(n) for n in rng.integers(12, 120, 2)]
    Image.fromarray(rng.integers(0, 255, (*shape, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    user = [{"type": "image", "image": f"{number}.png"}, {"type": "text", "text": "what?"}]
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": "this"}]}


def test_a_crop_takes_the_tokens_that_were_planned_for_its_picture(tmp_path_factory):
    """Where tiles let them depend on its size."""
    spec = tiny_spec()
    tiled = spec.vision.model_copy(update={"options": {"size": [32, 32], "tiles": 6}, "connector": Connector(merge=4)})
    _, processor = build_model(spec.model_copy(update={"vision": tiled}))
    file = write(tmp_path_factory.getbasetemp() / "wide", 30, (wide,))
    whole = data([file], processor, Augment(shift=0.3, scale=0.8), row_tokens=500)
    lengths = [(len(whole.encode(p)[0].input_ids), whole.length(p)) for p in range(40)]
    assert all(made == planned for made, planned in lengths)
    assert len({planned for _, planned in lengths}) > 3


def test_labels_counted_are_labels_learned(model_and_processor, files):
    model, processor = model_and_processor
    for packing in (True, False):
        batch = next(data(files, processor, packing=packing, rows=2).batches())
        with torch.no_grad():
            assert int(model(**batch.inputs).loss_count) == batch.labels


def test_packed_and_padded_batches_give_the_same_loss(model_and_processor, files):
    model, processor = model_and_processor
    plain = data(files, processor)
    encoded = [plain.encode(p)[0] for p in range(9)]
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


@pytest.mark.parametrize("augment", [Augment(), AUGMENT, Augment(flip=True)])
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
    for batch in islice(data([path], processor, augment, even_rows=False).batches(), 8):
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
