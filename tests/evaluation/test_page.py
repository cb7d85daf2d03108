"""The page: what it holds, and, measured in a browser, that nothing is drawn outside its card."""

import json
import re
import subprocess
from shutil import which

import pytest
from evaluation_samples import NASTY, Canned, right

from weft.conversation import Box, Text, Word, Words
from weft.evaluation.page import page_data, quality
from weft.evaluation.run import evaluate, read_questions


def test_the_report_is_written_and_stands_alone(data, tmp_path):
    out = tmp_path / "deep" / "report"
    report = evaluate(Canned(right(data)), data, out, name=NASTY)
    assert json.loads((out / "report.json").read_text()) == report
    page = (out / "index.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1)
    assert json.loads(embedded)["samples"][5]["expected"]["text"] == NASTY.strip()
    assert page.count("<script") == 2 and "<script>alert" not in page.replace("&lt;", "")
    assert "data:image/jpeg;base64," in page and "data:audio/mpeg;base64," in page
    assert len(list(out.iterdir())) == 2  # nothing is left of writing aside


def test_media_used_by_many_samples_are_in_the_page_once(data):
    report = evaluate(Canned(right(data)), data)
    made = page_data(report, read_questions(data))
    assert len(made["media"]) == 2
    assert made["samples"][0]["images"] == made["samples"][1]["images"]


def test_a_page_that_would_grow_too_large_says_so(data, monkeypatch):
    from weft.evaluation import page

    monkeypatch.setattr(page, "MEDIA_BYTES", 1)
    report = evaluate(Canned(right(data)), data)
    made = page_data(report, read_questions(data))
    assert [bool(item["src"]) for item in made["media"]] == [True, False]
    assert any("1 of its pictures and clips" in note for note in made["notes"])


def test_samples_are_sorted_by_what_is_right_then_by_the_first_figure_then_by_times():
    order = [
        quality({"wer": 0.0, "word_time_ms": 20.0}, True),
        quality({"wer": 0.0, "word_time_ms": 90.0}, True),
        quality({"wer": 0.0, "word_time_ms": 200.0}, False),
        quality({"wer": 0.1}, False),
        quality({"hallucinated_words_per_minute": 20.0}, False),
    ]
    assert order == sorted(order, reverse=True) and len(set(order)) == 5


WORDS = [("before", -1.0, 0.1), ("none", 0.5, 0.5), ("last", 1.0, 1.0), ("over", 0.8, 1.7), ("past", 5.0, 60.0)]
BOXES = ((-0.5, -0.5, 1.5, 0.5), (1.2, 1.2, 1.4, 1.4), (0.0, 0.0, 1.0, 1.0), (0.9, 0.9, 0.2, 0.2))
WILD = [  # answers to `data` that lie where there is no clip and no picture, and a clip of many words
    [Box(BOXES, None, 0)],
    [Box(BOXES[:1], "x" * 300, 0)],
    [Words(tuple(Word(*word) for word in WORDS), 0)],
    [Words(tuple(Word(f"word{i}", i / 200, i / 200 + 0.004) for i in range(200)), 0)],
    [Text("13" * 200)],
    [Text(NASTY)],
]


def test_what_lies_outside_clip_and_picture_is_named(data):
    report = evaluate(Canned(WILD), data)
    made = {s["id"]: s["problems"] for s in page_data(report, read_questions(data))["samples"]}
    assert made["r"] == ["2 boxes partly or wholly outside the picture", "1 box without area"]
    assert made["w"] == ["2 words past the end of the clip (1.00 s)"]
    assert made["p"] == made["q"] == []


MEASURE = """<script>
const found = [], all = names => document.querySelectorAll(names);
function inside(node, frame, what) {
  const a = node.getBoundingClientRect(), b = frame.getBoundingClientRect();
  if (a.left < b.left - .6 || a.right > b.right + .6 || a.top < b.top - .6 || a.bottom > b.bottom + .6)
    found.push(what + " " + node.title);
}
for (const word of all(".word")) inside(word, word.closest(".lane"), "word");
for (const rect of all("rect")) inside(rect, rect.closest("svg"), "box");
for (const part of all(".lanes, .strip, .lane, .picture svg, .sample, dd"))
  if (getComputedStyle(part).overflow === "visible") found.push(part.className + " is not clipped");
for (const part of all(".sample > *, .sample .lanes, .sample .picture, .sample dd, .sample p"))
  inside(part, part.closest(".sample"), part.className);
for (const card of all(".sample, .task")) inside(card, document.querySelector("main"), "card");
if (document.getElementById("more").offsetHeight) found.push("a button for more, and there are no more");
if (document.documentElement.scrollWidth > innerWidth) found.push("the page is wider than the window");
document.title = "measured: " + (found.join("; ") || "nothing");
</script></body>"""


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["right", "wild"])
def test_the_page_draws_all_and_nothing_outside_its_cards(data, tmp_path, answers):
    """A second or two each: a browser draws the page, and its script measures every word, box and card."""
    browser = which("chromium") or which("chromium-browser") or which("google-chrome")
    if browser is None:
        pytest.skip("needs a Chromium to draw the page")
    evaluate(Canned(right(data) if answers == "right" else WILD), data, tmp_path)
    page = tmp_path / "measured.html"
    page.write_text((tmp_path / "index.html").read_text().replace("</body>", MEASURE))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    dom = subprocess.run([browser, *flags, f"file://{page}"], capture_output=True, text=True, timeout=120).stdout
    assert "<title>measured: nothing</title>" in dom, re.search("<title>.*?</title>", dom)
    assert dom.count('<article class="sample"') == 6
    assert dom.count('class="figure"') == 11 and dom.count('class="rule"') == 5
    if answers == "right":  # boxes, each with its halo: one expected and given, two expected and given
        assert dom.count("<rect") == 2 * 6 and dom.count('class="word') == 4
    else:
        assert dom.count('class="word') == 2 + 5 + 200 and dom.count('class="word past"') == 2
