"""A file of samples is read at random, and says where it is wrong."""

import json
import pickle

import numpy as np
import pytest

from training_world import text, write
from weft.conversation import SampleError, WeftError
from weft.conversation.samples import iter_lines
from weft.data import kept_index, sample_file
from weft.data.sample_file import SampleFile


def test_every_sample_is_found_by_its_index(tmp_path):
    path = write(tmp_path, 20, (text,))
    source = SampleFile(path)
    ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert [source[i].id for i in (19, 0, 7)] == [ids[19], ids[0], ids[7]]
    assert len(source) == 20


def test_blank_lines_a_byte_order_mark_and_a_missing_last_newline_do_not_matter(tmp_path):
    lines = write(tmp_path, 3, (text,)).read_text().splitlines()
    odd = tmp_path / "odd.jsonl"
    odd.write_text("\ufeff" + lines[0] + "\n\n   \n" + lines[1] + "\r\n" + lines[2])
    source = SampleFile(odd)
    assert [source[i].id for i in range(3)] == ["0", "1", "2"]
    assert [source.where(i).rsplit(":", 1)[1] for i in range(3)] == ["1", "4", "5"]


def test_a_wrong_line_names_file_line_and_field(tmp_path):
    path = write(tmp_path, 3, (text,))
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"role"', '"rolle"', 1)
    path.write_text("\n".join(lines))
    source = SampleFile(path)
    assert source[0].id == "0"
    with pytest.raises(SampleError, match=r"train\.jsonl:2: messages\[0\]"):
        source[1]


def test_an_empty_or_missing_file_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(WeftError, match="holds no samples"):
        SampleFile(tmp_path / "empty.jsonl")
    with pytest.raises(WeftError, match="cannot be read"):
        SampleFile(tmp_path / "none.jsonl")


def test_a_source_travels_to_another_process(tmp_path):
    source = SampleFile(write(tmp_path, 4, (text,)))
    source[0]
    assert pickle.loads(pickle.dumps(source))[3].id == "3"


def test_where_lines_of_a_large_file_begin_is_written_down_once(tmp_path, monkeypatch):
    path = write(tmp_path, 50, (text,))
    path.write_text("\n" + path.read_text())
    there = [SampleFile(path)[i] for i in range(50)]
    monkeypatch.setattr(sample_file, "LARGE", 0)
    monkeypatch.setattr(sample_file, "CHUNK", 100)  # shorter than a line
    source = SampleFile(path)
    assert [source[i] for i in range(50)] == there and source.where(3).endswith(":5")
    assert isinstance(source._lines, np.memmap)
    scan = kept_index.lines
    monkeypatch.setattr(kept_index, "lines", lambda _: pytest.fail("scanned again"))
    again = pickle.loads(pickle.dumps(SampleFile(path)))
    assert len(pickle.dumps(again)) < 1000 and again[49] == there[49]
    monkeypatch.setattr(kept_index, "lines", scan)
    path.write_text(path.read_text() + path.read_text().splitlines()[7])
    assert len(SampleFile(path)) == 51 and len(list((tmp_path / ".weft" / "lines").iterdir())) == 1


def test_the_index_of_a_large_file_lies_in_the_cache_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sample_file, "LARGE", 0)
    path = write(tmp_path / "data", 5, (text,))
    (path.parent / ".weft").write_text("a file where the folder would be")
    assert SampleFile(path)[4].id == "4"
    assert len(list((tmp_path / "cache").rglob("*.lines"))) == 1


def test_a_line_is_a_sample_here_where_it_is_one_to_all_others(tmp_path):
    bom = b"\xef\xbb\xbf"
    for content in (b" " * 40 + b"\n{}\n", b"{}\n\t \r\n \n  {}", bom + b"\n{}\n", bom + b"{}\n\n", b"\r\n{}\r\n"):
        (tmp_path / "x.jsonl").write_bytes(content)
        source = SampleFile(tmp_path / "x.jsonl")
        read = [(number, raw.removeprefix(bom).rstrip(b"\n")) for number, raw in iter_lines(tmp_path / "x.jsonl")]
        assert [(source.where(i), source.raw(i)) for i in range(len(source))] == [
            (f"{tmp_path / 'x.jsonl'}:{number}", raw) for number, raw in read
        ]
