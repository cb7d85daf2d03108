"""The measures of sample files: right figures, from headers alone, and a picture of whatever there is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from marks import slow
from weft.conversation import SampleError, WeftError
from weft.data.stats import Stats, count_words, draw, measure, share, summarise


@pytest.fixture()
def samples(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    soundfile.write(tmp_path / "a.wav", np.zeros(12000, np.float32), 8000)
    words = [{"text": w, "start": 0, "end": 1} for w in ("one", "two")]
    box = {"type": "box", "boxes": [[0, 0, 1, 1]] * 3, "label": "red cups"}
    lines: list[list[Any]] = [
        [
            [
                {"type": "image", "image": "a.png"},
                {"type": "task", "task": "detection"},
                {"type": "text", "text": "cups"},
            ],
            [box],
        ],
        [
            [{"type": "audio", "audio": "a.wav"}, {"type": "task", "task": "transcribe", "language": None}],
            [{"type": "words", "words": words}],
            "and now in three words",
            "two and a half",
        ],
    ]
    with open(tmp_path / "s.jsonl", "w") as file:
        for contents in lines:
            roles = ("user", "assistant")
            messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
            file.write(json.dumps({"messages": messages}) + "\n")
    return tmp_path / "s.jsonl"


def test_the_measures_are_those_of_the_samples(samples: Path) -> None:
    s = measure([samples], length=lambda conversation: 10 * len(conversation.messages))
    assert s.samples == 2 and s.tokens == [20, 40]
    assert s.text_words == [3, 11] and s.answer_words == [2, 2, 4] and s.turns == [1, 2]
    assert s.seconds == [1.5] and s.sizes == [(40, 20)] and s.boxes == [3] and s.words == [2]
    assert s.tasks == {"detection": 1, "transcribe": 1, "": 1} and s.languages == {"to predict": 1}


def test_what_is_left_out_or_guessed_is_noted_once_a_file(samples: Path) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (0, 99, 200)]
    frames[0].save(samples.parent / "a.png", "TIFF", save_all=True, append_images=frames[1:])
    (note,) = measure([samples, samples]).as_dict()["notes"]
    assert "a.png: holds 3 pictures (pages or frames), of which the first is read" in note


def test_the_limit_counts_samples(samples: Path) -> None:
    assert measure([samples, samples], limit=3).samples == 3


def test_words_are_counted_in_any_script() -> None:
    assert count_words("it's  two\nwords") == 3
    assert count_words("你好 world こんにちは") == 8
    assert count_words(" ") == 0


def test_a_mistake_names_its_place(samples: Path) -> None:
    (samples.parent / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(SampleError, match=r"s\.jsonl:2: messages\[0\]\.content\[0\]\.audio: .*a\.wav"):
        measure([samples])

    def refuse(conversation: Any) -> int:
        raise WeftError("this task cannot be written")

    with pytest.raises(SampleError, match=r"s\.jsonl:1: this task cannot be written"):
        measure([samples], length=refuse)
    samples.write_text("\n")
    with pytest.raises(SampleError, match="no samples"):
        measure([samples])


def test_quantiles() -> None:
    s = summarise(np.arange(101.0))
    assert s == {"count": 101, "min": 0, "p05": 5, "median": 50, "mean": 50, "p95": 95, "max": 100, "total": 5050}


def test_a_share_is_never_nothing_of_something() -> None:
    assert [share(n, 1000) for n in (0, 1, 500, 999, 1000)] == ["0%", "<1%", "50%", ">99%", "100%"]


def test_the_figures_are_json(samples: Path) -> None:
    data = json.loads(json.dumps(measure([samples]).as_dict()))
    assert data["measures"]["seconds_a_clip"]["total"] == 1.5 and data["tasks"]["detection"] == 1


STATS = [
    Stats(files=["a.jsonl"], samples=1, text_words=[0]),
    Stats(files=["a.jsonl"], samples=2, text_words=[1, 100_000], tokens=[5, 5], turns=[1, 1]),
    Stats(files=["x/a.jsonl", "y/a.jsonl"] * 3, samples=3, text_words=list(range(60)), seconds=[0.003], boxes=[0]),
    Stats(files=["a.jsonl"], samples=9, text_words=[1] * 9, sizes=[(1, 1), (1, 20000), (640, 480)]),
]


@pytest.mark.parametrize("stats", STATS)
@pytest.mark.parametrize("kind", [slow("png"), "svg"])
def test_whatever_there_is_can_be_drawn(stats: Stats, kind: str, tmp_path: Path) -> None:
    stats.tasks.update({f"task_{i}": i + 1 for i in range(stats.samples * 2)})
    drawn = draw(stats, tmp_path / "new" / f"picture.{kind}")
    if kind == "png":
        with Image.open(drawn) as picture:
            assert min(picture.size) > 300
    else:
        assert "<svg" in drawn.read_text()[:1000]


def test_a_picture_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeftError, match=r"\.png, \.svg or \.pdf"):
        draw(STATS[0], tmp_path / "picture.jpeg")
