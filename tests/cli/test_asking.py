"""`weft chat`, `weft generate` and `weft evaluate` as they are used."""

import io
import json
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from tiny_model import tiny
from weft import cli
from weft.cli.asking import parse_task
from weft.cli.session import Session, save_drawing, show
from weft.conversation import Box, WeftError, Word, Words, parse_messages
from weft.generation import Model, Options, Reply


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder, a picture, a clip and a small test set."""
    where = tmp_path_factory.mktemp("asking")
    model = tiny()
    model.model.save_pretrained(where / "model")
    model.processor.save_pretrained(where / "model")
    Image.new("RGB", (64, 48), "orange").save(where / "a.png")
    soundfile.write(where / "a.wav", np.sin(np.arange(48000) / 30) * 0.2, 16000)
    image, clip = {"type": "image", "image": "a.png"}, {"type": "audio", "audio": "a.wav"}
    look, hear = {"type": "task", "task": "refer"}, {"type": "task", "task": "transcribe", "timestamps": True}
    box = {"type": "box", "boxes": [[0.1, 0.1, 0.6, 0.6]], "label": "cup"}
    words = {"type": "words", "words": [{"text": "one", "start": 0.1, "end": 0.4}]}
    samples = []
    for i in range(3):
        samples += [
            ([image, look, {"type": "text", "text": "cup"}], [box]),
            ([clip, hear], [words]),
            ([{"type": "text", "text": f"say {i}"}], str(i)),
        ]
    lines = [
        {"id": str(i), "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for i, (q, a) in enumerate(samples)
    ]
    (where / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return where


def run(*arguments):
    return cli.run([str(a) for a in arguments])


class Pipe(io.StringIO):
    def isatty(self):
        return False


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_one_question_is_answered_on_stdout(folder, capsys):
    assert run("chat", folder / "model", "--image", folder / "a.png", "--max-new-tokens", 6, "what is it?") == 0
    done = capsys.readouterr()
    assert done.out.strip()
    assert "cut after 6 tokens" in done.err or not done.err


def test_json_is_one_object_with_the_parts(folder, capsys):
    question = ["--task", "transcribe timestamps=true language=en", "--max-new-tokens", 5]
    assert run("chat", folder / "model", "--audio", folder / "a.wav", *question, "--json") == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply.keys() == {"text", "parts", "raw", "tokens", "finished", "windows", "malformed"}
    assert reply["windows"] == 2  # three seconds, windows of two
    assert all(part["type"] in ("text", "words") for part in reply["parts"])


@pytest.mark.slow
def test_the_question_may_come_through_a_pipe(folder, capsys, monkeypatch):
    def asked(*arguments):
        assert run("chat", folder / "model", "--max-new-tokens", 4, "--json", *arguments) == 0
        return json.loads(capsys.readouterr().out)["raw"]

    said = asked("what is it?")
    for arguments in ((), ("-",)):
        monkeypatch.setattr(sys, "stdin", Pipe("what is it?\n"))
        assert asked(*arguments) == said
    monkeypatch.setattr(sys, "stdin", Pipe(""))
    assert run("chat", folder / "model") == 2
    assert "nothing to ask" in capsys.readouterr().err


def test_a_box_can_be_asked_about(folder, capsys):
    arguments = ["--image", folder / "a.png", "--box", "0.1 0.2 0.5 0.6", "--task", "identify", "--max-new-tokens", 3]
    assert run("chat", folder / "model", *arguments) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["hello", "--image", "nothing.png"], "nothing.png"),
        (["hello", "--task", "reefer"], 'did you mean "refer"'),
        (["hello", "--task", "refer"], "refer"),
        (["hello", "--task", "transcribe timestamps"], "key=value"),
        (["hello", "--top-p", "3"], "top_p"),
        (["hello", "--dtype", "float8"], "float8"),
        (["hello", "--box", "1 2 3"], "four numbers"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(folder, capsys, arguments, words):
    assert run("chat", folder / "model", *arguments) == 2
    done = capsys.readouterr()
    assert not done.out and words in done.err and done.err.count("\n") == 1
    assert done.err.startswith("error: ")


def test_a_model_that_is_not_there(folder, capsys):
    for command in (["chat", "nowhere/at/all", "hi"], ["evaluate", "nowhere", "--data", folder / "test.jsonl"]):
        assert run(*command) == 2
        assert "nowhere" in capsys.readouterr().err


def conversation_in_a_terminal(folder, *lines):
    lines = iter(lines)
    prompts = []

    def read(prompt):
        prompts.append(prompt)
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    session = Session(tiny(), Options(max_new_tokens=4))
    session.run(read)
    return session, prompts


def test_a_conversation_in_the_terminal(folder, capsys):
    session, prompts = conversation_in_a_terminal(
        folder,
        f"/image {folder / 'a.png'}",
        "what is it?",
        "",
        "and now?",
        f"/audio {folder / 'a.wav'}",
        "/task transcribe timestamps=true",
        "",
        "/quit",
        "never read",
    )
    assert prompts[:3] == ["› ", "[1 image] › ", "› "]
    assert prompts[6] == "[1 audio, transcribe] › "
    assert [m.role for m in session.messages] == ["user", "assistant"] * 3
    assert len(session.conversation.images) == 1 and len(session.conversation.audios) == 1
    assert session.messages[4].task.name == "transcribe"
    assert "never" not in capsys.readouterr().out


def test_a_recording_alone_is_asked_by_enter_and_what_was_heard_is_shown(folder, capsys):
    lines = f"/audio {folder / 'a.wav'}", "", f"/image {folder / 'a.png'}", ""
    session, prompts = conversation_in_a_terminal(folder, *lines)
    assert [m.role for m in session.messages] == ["user", "assistant"] and prompts[2] == "› "
    said = capsys.readouterr().err
    assert "heard:" not in said and "type a question" in said  # a picture alone asks nothing
    model = tiny()
    model = Model(model.model, model.processor.with_switches(spoken="written"), "tiny")
    model.stop |= frozenset(range(3, model.model.vocab_size, 13))  # so that random weights come to an end
    session = Session(model, Options(max_new_tokens=4))
    session.attach("audio", folder / "a.wav")
    reply = session.stream("", lambda text: None)
    assert reply.heard and f"heard: {reply.heard}" in " ".join(capsys.readouterr().err.split("\n"))
    show(reply, session.conversation)
    assert reply.heard in capsys.readouterr().err


def test_mistakes_in_the_terminal_do_not_end_it(folder, capsys):
    session, _ = conversation_in_a_terminal(
        folder, "/image gone.png", "/fly", "/task reefer", "hello", "/task", "hello", "/save x.png", "/reset", "/help"
    )
    said = capsys.readouterr()
    found = ("gone.png", "no command /fly", 'did you mean "refer"', "tasks: vqa, ", "nothing to draw", "/audio FILE")
    for words in found:
        assert words in said.err
    assert session.messages == []


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("reefer", 'did you mean "refer"'),
        ("transcribe timestamps=maybe", "timestamps: must be true or false"),
        ("transcribe speed=2", "speed"),
        ("transcribe language", "has no value"),
    ],
)
def test_a_task_is_checked_when_it_is_named(task, said):
    session = Session(tiny())
    session.choose("refer")
    with pytest.raises(WeftError, match=said):
        session.choose(task)
    assert session.task == {"type": "task", "task": "refer"}
    session.choose("")
    assert session.task is None


def test_a_task_that_the_dialect_cannot_write_is_refused(monkeypatch):
    session = Session(tiny())
    monkeypatch.setattr(type(session.model.processor.dialect), "tasks", frozenset({"vqa"}))
    with pytest.raises(WeftError, match="has no task refer; it has vqa"):
        session.choose("refer")


def test_an_interrupted_answer_can_be_asked_again(folder, capsys):
    session = Session(tiny(), Options(max_new_tokens=4))

    def interrupt(text):
        if text != "\n":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.stream("hello", interrupt)
    assert session.messages == []
    assert session.stream("hello").tokens


def test_streaming_writes_the_answer_as_it_comes(folder):
    session = Session(tiny(), Options(max_new_tokens=12))
    pieces = []
    session.stream("hello", pieces.append)
    assert len(pieces) > 3 and pieces[-1] == "\n"


def test_boxes_and_words_are_shown_and_drawn(folder, tmp_path, capsys):
    asked = parse_messages([{"role": "user", "content": [{"type": "image", "image": str(folder / "a.png")}]}])
    reply = Reply("cup", "", (Box(((0.1, 0.2, 0.3, 0.4),), "cup", 0),), 3, True)
    show(reply, asked)
    assert "[0.100 0.200 0.300 0.400]  cup" in capsys.readouterr().out
    (file,) = save_drawing(reply, asked, tmp_path / "deep" / "a.png")
    assert Image.open(file).size[0] >= 64
    heard = parse_messages([{"role": "user", "content": [{"type": "audio", "audio": str(folder / "a.wav")}]}])
    spoken = Reply("one", "", (Words((Word("one", 0.5, 0.75),)),), 3, True, windows=2)
    show(spoken, heard)
    done = capsys.readouterr()
    assert "0.50 – 0.75 s  one" in done.out and "2 windows" in done.err
    assert save_drawing(spoken, heard, tmp_path / "a.jpg")[0].is_file()
    with pytest.raises(WeftError, match="nothing to draw"):
        save_drawing(spoken, asked, tmp_path / "b.png")
    with pytest.raises(WeftError, match="b.txt"):
        save_drawing(reply, asked, tmp_path / "b.txt")


def test_generate_goes_on_where_it_stopped(folder, tmp_path, capsys):
    command = ["generate", folder / "model", folder / "test.jsonl", "-o", tmp_path / "a.jsonl", "--max-new-tokens", 3]
    assert run(*command) == 0
    whole = (tmp_path / "a.jsonl").read_text()
    assert [json.loads(line)["id"] for line in whole.splitlines()] == [str(i) for i in range(9)]
    (tmp_path / "a.jsonl").write_text("".join(whole.splitlines(keepends=True)[:4]) + '{"id": "7", "te')
    assert run(*command) == 0
    assert "4 of them by an earlier run" in capsys.readouterr().err
    assert (tmp_path / "a.jsonl").read_text() == whole
    assert run(*command, "--on-bad-sample", "shrug") == 2


def test_evaluate_prints_a_table_and_writes_the_report(folder, tmp_path, capsys):
    command = ["evaluate", folder / "model", "--data", folder / "test.jsonl", "--max-new-tokens", 4]
    assert run(*command, "-o", tmp_path / "report") == 0
    table = capsys.readouterr().out
    for word in ("refer", "transcribe", "chat", "box_accuracy_50", "wer", "exact", "best constant"):
        assert word in table
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report.keys() == {"metrics", "baseline", "samples", "signature"}
    assert (tmp_path / "report" / "index.html").stat().st_size > 10_000
    assert run(*command, "--metrics", "exact", "--limit", 3) == 0
    assert "wer" not in capsys.readouterr().out
    assert run(*command, "--metrics", "exactly") == 2


def test_tasks_are_read_from_a_line():
    assert parse_task("refer") == {"type": "task", "task": "refer"}
    made = parse_task("transcribe language=en timestamps=true itn=false")
    assert made == {"type": "task", "task": "transcribe", "language": "en", "timestamps": True, "itn": False}
    assert parse_task("translate language=null to='de'")["language"] is None


RATES = {"wer", "wer_normalized", "cer_normalized", "wer_whisper"}


def test_a_published_benchmark_by_name(folder, tmp_path, capsys):
    row = {"id": 1, "audio": "a.wav", "text": "one"}
    (folder / "librispeech.jsonl").write_text(json.dumps(row) + "\n")
    arguments = [folder / "model", "--data", folder / "librispeech.jsonl", "-o", tmp_path / "report"]
    assert run("evaluate", *arguments, "--benchmark", "librispeech", "--max-new-tokens", 6) == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["metrics"]["librispeech"].keys() == RATES | {"qwen_audio_wer"}
    assert report["signature"]["decoding"]["max_new_tokens"] == 6 and report["signature"]["limit"] is None
    shown = capsys.readouterr()
    assert "qwen audio wer" in shown.out.replace("_", " ") and "not the published one" in shown.err
    assert run("evaluate", *arguments, "--benchmark", "libri") == 2
    assert "did you mean 'librispeech'" in capsys.readouterr().err
    assert run("evaluate", *arguments, "--benchmark", "librispeech", "--metrics", "wer") == 2


def test_the_benchmarks_are_listed(capsys):
    assert run("evaluate", "--list-benchmarks") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("okvqa", "librispeech", "nsynth", "choices"))


def test_switches_of_a_models_dialect(folder, capsys):
    asked = ("chat", folder / "model", "--audio", folder / "a.wav", "--task", "transcribe", "--max-new-tokens", 4)
    assert run(*asked, "--json", "--switch", "language=en") == 0
    assert json.loads(capsys.readouterr().out)["tokens"] <= 8
    assert run(*asked, "--switch", "langauge=en") == 2
    assert "has no switch 'langauge'" in capsys.readouterr().err
    assert run(*asked, "--switch", "language") == 2


def test_a_built_in_is_a_model_from_python_too():
    import weft

    model = weft.load("scratch", switches={"language": "en"})
    assert model.name == "scratch" and model.processor.dialect.switches.language == "en"
    assert weft.load("scratch").processor.dialect.switches.language is None
