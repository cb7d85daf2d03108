"""Shards: the same batches as the file they were made of, wherever they lie; and clear about what cannot be read."""

import io
import json
import pickle
import tarfile
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from training_world import asked_twice, tiny_spec, write
from weft.conversation import SampleError, WeftError
from weft.data import shards, tar_shard
from weft.data.augment import Augment
from weft.data.lengths import Lengths
from weft.data.loader import SourceSpec, TrainingData
from weft.data.shard_writing import shard
from weft.data.shards import Shards
from weft.data.source import open_source
from weft.media import Stored, load_image
from weft.models.plan import plan
from weft.teaching.samples import Conversing

FORMATS = ("tar", "parquet")
SIZE = 20_000  # bytes of a shard: several for the samples here
AUGMENT = Augment(speed=0.1, pad_seconds=0.1, cut=0.3, join=0.4, gain_db=6, color=0.2, shift=0.1)


@pytest.fixture(scope="module")
def processor():
    spec = tiny_spec()
    return plan(vision=spec.vision, audio=spec.audio, language=spec.language, dialect=spec.dialect)[1]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("samples"), 24)


@pytest.fixture(scope="module", params=FORMATS)
def folder(request, file, tmp_path_factory):
    place = tmp_path_factory.mktemp("shards") / request.param
    done = shard(file, place, format=request.param, size=SIZE)
    assert len(done) > 1 and sum(count for _, count in done) == 24
    return place


@pytest.fixture(autouse=True)
def at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(shards, "PAUSE", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def batches(path, processor, count=6, **options):
    options = {"row_tokens": 300, "seed": 3, **options}
    data = TrainingData([SourceSpec(path, augment=AUGMENT, name="one")], processor, **options)
    return list(islice(data.batches(), count))


def equal(one, other):
    return all(
        a.inputs.keys() == b.inputs.keys() and all(torch.equal(a.inputs[k], b.inputs[k]) for k in a.inputs)
        for a, b in zip(one, other, strict=True)
    )


def test_shards_train_as_the_file_that_they_were_made_of(file, folder, processor):
    assert equal(batches(file, processor), batches(folder, processor))


def test_shards_are_gone_on_with_at_a_position(file, folder, processor):
    assert equal(batches(file, processor)[4:], batches(folder, processor, count=2, first_row=4))


def test_samples_of_an_address_are_those_of_the_folder(folder):
    there = fsspec.filesystem("memory")
    there.put(str(folder), f"/{folder.name}", recursive=True)
    here, away = Shards(folder), Shards(f"memory://{folder.name}")
    assert [away[i] for i in range(len(away))] == [here[i] for i in range(len(here))]
    assert away.home is None and here.home == folder.parent
    wave, picture = (
        next(p.source for p in away[i].parts() if isinstance(getattr(p, "source", 0), Stored)) for i in (0, 1)
    )
    assert wave.read()[:4] == b"RIFF" and load_image(picture).size == (48, 40)


def test_what_is_said_in_a_clip_is_kept(file, tmp_path):
    first = json.loads(file.read_text().splitlines()[0])
    first["messages"][0]["content"][0] |= {"audio": str(file.parent / "0.wav"), "transcript": "one two"}
    (tmp_path / "one.jsonl").write_text(json.dumps(first) + "\n")
    shard(tmp_path / "one.jsonl", tmp_path / "shards")
    (clip,) = Shards(tmp_path / "shards")[0].audios
    assert isinstance(clip.source, Stored) and clip.transcript == "one two"


def test_a_source_of_shards_can_be_sent_to_another_process(folder):
    source = pickle.loads(pickle.dumps(Shards(folder)))
    assert source[3].id == "3"


def test_questions_about_one_picture_find_each_other_in_shards(tmp_path, processor):
    file = asked_twice(tmp_path / "data")
    shard(file, tmp_path / "shards")
    one, other = open_source(file), open_source(tmp_path / "shards")
    tokens = np.full(len(one), 50)
    lengths = Lengths(tokens, np.zeros((len(tokens), 2), np.int32))
    rooms = [Conversing(0.5, source, lengths, processor, 512).others for source in (one, other)]
    assert rooms[0] and all(np.array_equal(rooms[0][i], rooms[1][i]) for i in rooms[0])


def test_a_tar_unpacks_to_samples_in_the_layout_of_webdataset(file, tmp_path):
    shard(file, tmp_path / "shards", size=SIZE)
    with tarfile.open(tmp_path / "shards" / "00000.tar") as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "out", filter="data")
    assert names[:2] == ["000000000.json", "000000000.0.wav"]
    sample = json.loads((tmp_path / "out" / names[0]).read_text())
    assert (tmp_path / "out" / sample["messages"][0]["content"][0]["audio"]).is_file()


def test_a_tar_of_somebody_else_is_indexed_once(file, folder, tmp_path, monkeypatch):
    if folder.name != "tar":
        pytest.skip("about tars")
    for name in ("00000.tar", "00001.tar"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    source, whole = Shards(tmp_path), Shards(folder)
    assert [source[i] for i in range(len(source))] != []
    assert [source[i].id for i in range(len(source))] == [whole[i].id for i in range(len(source))]
    assert source[1].images[0].source.read() == whole[1].images[0].source.read()
    monkeypatch.setattr(tar_shard, "_samples", lambda *_: pytest.fail("walked again"))
    assert len(Shards(tmp_path)) == len(source)
    assert Shards(tmp_path / "00001.tar")[0].id == whole[source._ends[0]].id


def failing(source, times):
    """The file system of a source, whose next reads fail."""
    left = [times]
    real = source._files

    class Files:
        def __getattr__(self, name):
            return getattr(real, name)

        def cat_file(self, *args, **how):
            left[0] -= 1
            if left[0] >= 0:
                raise OSError("no answer")
            return real.cat_file(*args, **how)

    source._files = Files()
    return source


def test_a_read_that_fails_is_tried_again(file, tmp_path):
    shard(file, tmp_path / "shards")
    assert failing(Shards(tmp_path / "shards"), shards.TRIES - 1)[2].id == "2"
    source = failing(Shards(tmp_path / "shards"), shards.TRIES)
    with pytest.raises(WeftError, match=r"00000\.tar:3: cannot be read \(no answer\)"):
        source[2]


class Elsewhere(AbstractFileSystem):
    """A folder here as a file system that fsspec reads ahead for, as the hub's; ``given``: bytes that it read."""

    protocol, cachable, given = "elsewhere", False, 0

    def info(self, path, **_):
        found = Path(path)
        if not found.exists():
            raise FileNotFoundError(path)
        return {"name": path, "size": found.stat().st_size, "type": "directory" if found.is_dir() else "file"}

    def ls(self, path, detail=True, **_):
        found = [str(each) for each in sorted(Path(path).iterdir())]
        return [self.info(each) for each in found] if detail else found

    def _open(self, path, mode="rb", **options):
        return Ahead(self, path, mode, **{k: options[k] for k in ("cache_type",) if k in options})


class Ahead(AbstractBufferedFile):
    def _fetch_range(self, start, end):
        data = Path(self.path).read_bytes()[start:end]
        Elsewhere.given += len(data)
        return data


def test_of_a_tar_elsewhere_comes_what_is_asked_for(file, tmp_path):
    fsspec.register_implementation("elsewhere", Elsewhere, clobber=True)
    shard(file, tmp_path / "shards", format="tar", size=1 << 20)
    source = Shards(f"elsewhere://{tmp_path}/shards")
    assert len(source) == 24
    texts = sum(int(row["bytes"]) for row in source._shard(0).rows[:24])
    Elsewhere.given = 0
    samples = [source[i] for i in range(24)]
    media = [len(part.source.read()) for sample in samples for part in (*sample.images, *sample.audios)]
    assert Elsewhere.given == texts + sum(media) and len(media) == 16


def test_a_shard_that_is_cut_is_an_error_or_left_out_and_counted(file, tmp_path, processor):
    shard(file, tmp_path / "shards", size=SIZE)
    last = sorted((tmp_path / "shards").glob("*.tar"))[-1]
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(WeftError, match=rf"{last.name}:2: cannot.* --on-bad-sample skip"):
        batches(tmp_path / "shards", processor)
    one = SourceSpec(tmp_path / "shards")
    data = TrainingData([one], processor, row_tokens=300, on_bad_sample="skip")
    count = json.loads((tmp_path / "shards" / "shards.json").read_text())["shards"][-1]["samples"]
    heard = [s for b in islice(data.batches(), 20) for s in b.skipped] + data.problems
    assert {p.split(": ")[0] for p in heard} >= {f"{last}:{row}" for row in range(1, count)}


def test_a_missing_shard_is_named_with_the_sample(folder, tmp_path):
    place = tmp_path / "copy"
    place.mkdir()
    for path in folder.iterdir():
        if not path.name.startswith("00001."):
            (place / path.name).write_bytes(path.read_bytes())
    source = Shards(place)
    assert source[0].id == "0"
    with pytest.raises(WeftError, match=r"00001\.\w+:1: cannot be read"):
        source[source._ends[0]]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_single_shard_that_is_not_there_is_named(kind):
    with pytest.raises(WeftError, match=rf"nothing/here.{kind}: cannot be read"):
        Shards(f"memory://nothing/here.{kind}")


def test_a_sample_with_a_mistake_is_named_by_shard_row_and_field(tmp_path):
    with tarfile.open(tmp_path / "mine.tar", "w") as tar:
        for name, data in (
            ("a.json", b'{"messages": [{"role": "user", "content": "?"}]}'),
            ("b.json", b'{"messages": 1}'),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = open_source(tmp_path / "mine.tar")
    assert source[0].messages[0].text == "?"
    with pytest.raises(SampleError, match=r"mine\.tar:2: messages: must be a list"):
        source[1]


def test_shards_of_other_layouts_are_told_what_makes_samples_of_them(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(WeftError, match="no column media and sample; .*weft data convert parquet"):
        Shards(tmp_path / "a.parquet")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("x.jpg"))
    with pytest.raises(WeftError, match="weft data convert webdataset"):
        Shards(tmp_path / "b.tar")


def test_nothing_is_written_over_and_no_half_of_a_folder_stays(file, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(WeftError, match="is there already"):
        shard(file, tmp_path / "there")
    lines = file.read_text().splitlines()
    bad = file.with_name("bad.jsonl")
    bad.write_text("\n".join([*lines[:5], "{}"]))
    with pytest.raises(WeftError, match="bad.jsonl:6"):
        shard(bad, tmp_path / "new")
    assert [p.name for p in Path(tmp_path).iterdir() if "new" in p.name] == []
