"""Lengths are measured once for all runs, and again as soon as anything changes that they depend on."""

import json
import os
import shutil
from dataclasses import fields

import numpy as np
import pytest
import soundfile

from training_world import tiny_spec
from weft.data.kept_lengths import KeptLengths
from weft.data.lengths import Lengths, measure
from weft.data.sample_file import SampleFile
from weft.models.config import Connector
from weft.models.plan import plan

SAMPLES = 30


def made(**connector):
    spec = tiny_spec()
    audio = spec.audio.model_copy(update={"connector": Connector(**connector)})
    return plan(audio=audio, language=spec.language)[1]


@pytest.fixture(scope="module")
def processor():
    return made(merge=4)


@pytest.fixture
def samples(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    lines = []
    for i in range(SAMPLES):
        soundfile.write(tmp_path / "data" / f"{i}.wav", np.full(4000 + 100 * i, 0.01), 8000)
        asked = [{"type": "audio", "audio": f"{i}.wav"}, {"type": "task", "task": "transcribe"}]
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": "word " * (i + 1)}]
        lines.append(json.dumps({"messages": messages}))
    file = tmp_path / "data" / "train.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


class Counting:
    """A processor that counts the samples that it measures."""

    def __init__(self, processor):
        self.processor, self.count = processor, 0

    def render(self, conversation):
        self.count += 1
        return self.processor.render(conversation)

    def __getattr__(self, name):
        return getattr(self.processor, name)


def measured(file, processor, **options):
    """The lengths, and whether every sample was measured for them."""
    counting = Counting(processor)
    found = measure(SampleFile(file), counting, row_tokens=512, keep=KeptLengths, **options)
    return found, counting.count >= SAMPLES - 1  # one may be gone


def equal(one, other):
    if isinstance(one, Lengths) and one.clips is not None and not equal(one.clips, other.clips):
        return False
    names = [f.name for f in fields(one) if f.name != "clips"]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("edited", [False, True])
def test_a_second_run_measures_a_few_samples_only(samples, processor, edited):
    first, whole = measured(samples, processor, edited=edited)
    again, anew = measured(samples, processor, edited=edited)
    assert whole and not anew and equal(first, again)
    assert not measured(samples, processor)[1] and measured(samples, processor, edited=True)[1] == (not edited)
    assert (samples.parent / ".weft" / "lengths").is_dir()


@pytest.mark.parametrize("change", ["samples", "medium", "gone", "encoder", "switch", "damage"])
def test_what_lengths_depend_on_is_noticed(samples, processor, change):
    before, _ = measured(samples, processor)
    (kept,) = (samples.parent / ".weft" / "lengths").iterdir()
    options = {}
    if change == "samples":
        samples.write_text(samples.read_text().replace("word word", "words word", 1))
    elif change == "medium":
        soundfile.write(samples.parent / "7.wav", np.full(16000, 0.01), 8000)
    elif change == "gone":
        (samples.parent / "7.wav").unlink()
        options["on_bad_sample"] = "skip"
    elif change == "encoder":
        processor = made(merge=2)
    elif change == "switch":
        processor = processor.with_switches(system="You hear.")
    else:
        kept.write_bytes(kept.read_bytes()[:-100])
    after, anew = measured(samples, processor, **options)
    assert anew and equal(before, after) == (change == "damage")


def test_a_sample_that_is_mended_is_no_longer_left_out(samples, processor):
    clip = samples.parent / "7.wav"
    clip.rename(clip.with_suffix(".away"))
    assert len(measured(samples, processor, on_bad_sample="skip")[0].problems) == 1
    assert measured(samples, processor, on_bad_sample="skip")[1] is False
    clip.with_suffix(".away").rename(clip)
    assert measured(samples, processor, on_bad_sample="skip")[0].problems == ()


def test_what_cannot_be_written_beside_the_samples_is_kept_for_the_user(samples, processor, tmp_path):
    (samples.parent / ".weft").write_text("no folder")
    first, _ = measured(samples, processor)
    again, anew = measured(samples, processor)
    assert not anew and equal(first, again)
    shutil.rmtree(tmp_path / "cache")
    assert measured(samples, processor)[1]


def test_only_so_many_are_kept_of_one_file(samples, processor):
    other = samples.with_name("train.jsonl.other.jsonl")
    shutil.copy(samples, other)
    measured(other, processor)
    for i in range(10):
        measured(samples, processor.with_switches(system=f"You hear {i}."))
        os.utime(samples)
    names = [p.name for p in (samples.parent / ".weft" / "lengths").iterdir()]
    assert len(names) == 9 and sum(name.startswith(other.name) for name in names) == 1
