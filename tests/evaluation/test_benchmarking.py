"""A published benchmark from a file to its report: prompts, limits, figures, baselines, mistakes."""

import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from weft.conversation import Box, Message, SampleError, Text, WeftError, Word, Words
from weft.dialects import get_dialect
from weft.evaluation.benchmark_data import read_benchmark
from weft.evaluation.benchmarking import evaluate_benchmark
from weft.evaluation.benchmarks import BENCHMARKS, get_benchmark
from weft.evaluation.report import described, table
from weft.generation import Options, Reply


class Processor:
    def __init__(self, dialect):
        self.dialect = get_dialect(dialect)

    def length(self, conversation):
        return 10 + len(conversation.messages[-1].text)


class Speaker:
    """Says what the test wants, in one dialect: texts, or parts."""

    name = "speaker"

    def __init__(self, answers, dialect, losses=None):
        self.answers, self.processor, self.losses, self.asked = answers, Processor(dialect), losses, []

    def replies(self, conversations, options=None, *, batch_size=16):
        self.options = options
        for i, conversation in enumerate(conversations):
            self.asked.append(conversation)
            answer = self.answers[i]
            if isinstance(answer, WeftError):
                yield i, answer
            elif isinstance(answer, str):
                yield i, Reply(answer, answer, (Text(answer),), 1, True)
            else:
                yield i, Reply("", "", tuple(answer), 1, True)

    def score(self, conversation):
        return -self.losses[conversation.messages[-1].text]


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.full((100, 200, 3), 90, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((100, 200, 3), 10, np.uint8)).save(tmp_path / "b.png")
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.sin(np.arange(16000) / 20) * 0.3, 16000)
    return tmp_path


def lines(folder, *rows):
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


REFERENCES = {  # metric: what a line holds, the right answer, and a wrong line beside it
    "vqa": ({"answers": ["cup"] * 9 + ["mug"]}, "cup", {"answers": ["dog"] * 10}),
    "vizwiz": ({"answers": ["cup"] * 10}, "cup", {"answers": ["dog"] * 10}),
    "gqa": ({"answer": "cup"}, "cup", {"answer": "dog"}),
    "vsr": ({"answer": "true"}, "True", {"answer": "false"}),
    "hm": ({"answer": "1"}, "yes", {"answer": "0"}),
    "refcoco": ({"bbox_xywh": [20, 10, 100, 50], "width": 200, "height": 100}, "{<10><10><60><60>}",
                {"bbox_xywh": [150, 80, 20, 20], "width": 200, "height": 100}),
    "chair": ({"objects": ["dog"]}, "a dog", {"objects": ["cat"]}),
    "wer": ({"text": "four two"}, "four two", {"text": "one"}),
    "srwt": ({"text": "<|0.10|>四<|0.50|>二<|0.90|>"}, "<|0.10|>四<|0.50|>二<|0.90|>", {"text": "<|0.20|>一<|0.40|>"}),
    "bleu": ({"text": "one two three four five"}, "one two three four five", {"text": "six seven eight nine ten"}),
    "cider": ({"answers": ["a dog barks loudly"]}, "a dog barks loudly", {"answers": ["rain falls on a roof"]}),
    "accuracy": ({"answer": "happy"}, "happy", {"answer": "sad"}),
    "nsynth": ({"text": "<|pitch|><|midi_pitch_60|><|instrument|>organ<|sonic|>bright"},
               "<|pitch|><|midi_pitch_60|><|instrument|>organ<|sonic|>bright",
               {"text": "<|pitch|><|midi_pitch_61|><|instrument|>bass<|sonic|>dark"}),
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n, b in BENCHMARKS.items() if not b.choices])
def test_a_right_answer_beats_the_best_constant(folder, name):
    benchmark = get_benchmark(name)
    right, said, wrong = REFERENCES[benchmark.metric]
    others = {"hm": "no", "vsr": "false", "refcoco": "{<75><80><85><100>}", "chair": "a cat"}
    given = next(iter(wrong.values()))
    other = others.get(benchmark.metric) or (given[0] if isinstance(given, list) else given)
    media = {benchmark.media: "a.png" if benchmark.media == "image" else "a.wav"}
    rows = [{"id": i, **media, **dict.fromkeys(benchmark.fields, "what?"), **f} for i, f in enumerate((right, wrong))]
    speaker = Speaker([said, other], benchmark.system)
    report = evaluate_benchmark(speaker, name, lines(folder, *rows), folder / "out")
    figures, baseline = report["metrics"][name], report["baseline"].get(name)
    assert benchmark.figure in figures and figures[benchmark.figure] is not None
    if baseline is not None:
        assert baseline.keys() == figures.keys()
        # A constant's few matched words can be in time to the millisecond; that it matches few is what tells.
        figure = "word_time_coverage" if benchmark.metric == "srwt" else benchmark.figure
        lower = described(figure).better == "lower"
        ours, theirs = figures[figure], baseline[figure]
        assert theirs is None or (ours < theirs if lower else ours > theirs)
    signature = report["signature"]
    assert signature["scorer"] == benchmark.metric and signature["weft"] and "normaliser" in signature
    assert signature["dialect"]["name"] == benchmark.system
    assert signature["decoding"]["max_new_tokens"] == benchmark.max_new_tokens == speaker.options.max_new_tokens
    assert json.loads((folder / "out/report.json").read_text())["metrics"] == report["metrics"]
    assert name in (folder / "out/index.html").read_text()
    assert table(report).row_count == len(figures)


def sample(name, content, answer):
    return {"id": name, "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


IMAGE, CLIP = {"type": "image", "image": "a.png"}, {"type": "audio", "audio": "a.wav"}


def task(name, **fields):
    return {"type": "task", "task": name, **fields}


def text(words):
    return {"type": "text", "text": words}


def test_weft_samples_are_read_and_answers_of_any_dialect_are_put_into_the_published_notation(folder):
    box = {"type": "box", "boxes": [[0.1, 0.1, 0.6, 0.6]]}
    data = lines(folder, sample("r", [IMAGE, task("refer"), text("the cup")], [box]))
    (question,) = read_benchmark(get_benchmark("refcoco"), data)
    assert question.reference.fields["bbox_xywh"] == pytest.approx([20, 10, 100, 50])
    assert question.conversation.messages[0].text == "give me the location of the cup"
    speaker = Speaker([[Box(((0.1, 0.1, 0.6, 0.6),), None, 0)]], "chatml")
    report = evaluate_benchmark(speaker, "refcoco", data)
    assert report["metrics"]["refcoco"]["minigpt_v2_accuracy"] == 100
    assert report["metrics"]["refcoco"]["box_accuracy_50"] == 1
    assert any("dialect chatml" in note for note in report["notes"])

    words = {"type": "words", "words": [{"text": "四", "start": 0.1, "end": 0.5}]}
    data = lines(folder, sample("w", [CLIP, task("transcribe", language="zh", timestamps=True)], [words]))
    speaker = Speaker([[Words((Word("四", 0.2, 0.5),), 0)]], "chatml")
    figures = evaluate_benchmark(speaker, "srwt", data)["metrics"]["srwt"]
    assert figures["qwen_audio_aas_seconds"] == pytest.approx(0.1)
    assert figures["word_time_ms"] == pytest.approx(50)

    data = lines(folder, sample("n", [CLIP, task("note")], "pitch 60; instrument organ"))
    figures = evaluate_benchmark(Speaker([[Text("pitch 60")]], "chatml"), "nsynth", data)["metrics"]["nsynth"]
    assert figures["qwen_audio_pitch_accuracy"] == 1 and figures["qwen_audio_instrument_accuracy"] == 0


def test_samples_that_ask_the_same_are_one_question_with_several_answers(folder):
    said = ["cup"] * 9 + ["mug"]
    data = lines(folder, *(sample(f"7-{i}", [IMAGE, task("vqa"), text("What?")], a) for i, a in enumerate(said)))
    (question,) = read_benchmark(get_benchmark("okvqa"), data)
    assert question.id == "7-0" and question.reference.fields["answers"] == said
    assert evaluate_benchmark(Speaker(["cup"], "minigpt_v2"), "okvqa", data)["metrics"]["okvqa"]["vqa_accuracy"] == 1
    few = lines(folder, *(sample(str(i), [IMAGE, task("vqa"), text("What?")], "cup") for i in range(3)))
    with pytest.raises(SampleError, match="answers every"):
        read_benchmark(get_benchmark("okvqa"), few)
    with pytest.raises(SampleError, match=r":2: .*asks the same as line 1"):
        read_benchmark(get_benchmark("gqa"), few)


def test_a_choice_is_made_by_likelihood_and_the_two_rules_may_differ(folder):
    row = {"id": 1, "image": "a.png", "question": "Which?", "choices": ["b", "a long one"], "answer": "b"}
    speaker = Speaker([], "minigpt_v2", losses={"b": 5.0, "a long one": 6.0})  # 5/11 a token, 6/20 a token
    report = evaluate_benchmark(speaker, "iconqa", lines(folder, row))
    assert report["metrics"]["iconqa"] == {"exact": 1.0, "minigpt_v2_iconqa_accuracy": 0.0}
    assert report["samples"][0]["text"] == "b"


def test_other_decoding_and_questions_not_asked_are_said(folder):
    rows = [{"id": i, "image": f"{i}.png", "question": "?", "answer": "cup"} for i in "ab"]
    speaker = Speaker(["cup", WeftError("broken picture")], "minigpt_v2")
    data = lines(folder, *rows)
    report = evaluate_benchmark(speaker, "gqa", data, options=Options(max_new_tokens=5), on_bad_sample="skip")
    assert report["metrics"]["gqa"] == {"exact": 1.0, "minigpt_v2_gqa_accuracy": 100.0}
    assert report["signature"]["not_asked"] == 1 and report["samples"][1]["error"] == "broken picture"
    assert any("not the published one" in note for note in report["notes"])
    with pytest.raises(WeftError, match="broken picture"):
        evaluate_benchmark(Speaker(speaker.answers, "minigpt_v2"), "gqa", data)
    with pytest.raises(WeftError, match="none of the 1 questions"):
        evaluate_benchmark(Speaker(speaker.answers[1:], "minigpt_v2"), "gqa", lines(folder, rows[0]),
                           on_bad_sample="skip")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("gqa", {"image": "a.png", "answer": "x"}, 'needs a "question"'),
        ("gqa", {"image": "c.png", "question": "?", "answer": "x"}, "no such file: 'c.png'"),
        ("gqa", {"image": 3, "question": "?", "answer": "x"}, "image"),
        ("iconqa", {"image": "a.png", "question": "?", "answer": "x", "choices": ["x"]}, "at least two"),
        ("okvqa", {"image": "a.png", "question": "?", "answers": ["x"]}, "several people"),
        ("gqa", sample("1", [IMAGE, IMAGE, text("?")], "x"), "asks about one image"),
        ("refcoco", sample("1", [IMAGE, text("x")], "x"), "expects a box"),
        ("srwt", sample("1", [CLIP, text("x")], "x"), "expects word times"),
        ("chair", sample("1", [IMAGE, text("x")], "x"), "needs objects"),
        ("librispeech", {"messages": [{"role": "user", "content": [CLIP]}]}, "the expected answer"),
        ("gqa", [1], "object"),
    ],
)
def test_mistakes_are_named_by_file_and_line(folder, name, row, said):
    with pytest.raises(SampleError, match=rf"test\.jsonl:1: .*{said}"):
        read_benchmark(get_benchmark(name), lines(folder, row))


def test_a_report_needs_a_folder_before_anything_is_asked(folder):
    data = lines(folder, {"id": 1, "audio": "a.wav", "text": "four"})
    with pytest.raises(WeftError, match="is a file; name a folder"):
        evaluate_benchmark(None, "librispeech", data, data)


def test_limit_and_language(folder):
    data = lines(folder, *({"id": i, "audio": "a.wav", "text": "四"} for i in range(3)))
    questions = read_benchmark(get_benchmark("aishell1"), data, limit=2)
    assert [q.id for q in questions] == ["0", "1"]
    assert {q.reference.fields["language"] for q in questions} == {"zh"}
    assert isinstance(questions[0].conversation.messages[0], Message)
