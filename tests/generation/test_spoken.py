"""A spoken turn is written down by the model and answered as if it were typed, where the dialect says so."""

import json

import pytest
import soundfile

import weft
from tiny_model import AUDIO, LANGUAGE, picture, sound, tiny, user
from weft.conversation import Audio, Conversation, Image, Message, Task, Text, WeftError, Word, Words
from weft.generation import Model, Options, spoken
from weft.generation.answers import replies
from weft.generation.reply import Reply
from weft.generation.requests import answer_file
from weft.generation.spoken import Written
from weft.models.compose import compose
from weft.recipes.finetune import finetune_recipe
from weft.training.build import build_model
from weft.training.recipe import ModelSpec, Source
from weft.training.sizes import planned

SHORT = Options(max_new_tokens=8)


@pytest.fixture(scope="module")
def model():
    """One whose answers end somewhere, though its weights are random."""
    plain = tiny()
    plain.stop |= frozenset(range(3, plain.model.vocab_size, 13))
    return plain


@pytest.fixture(scope="module")
def writing(model):
    """The same, which writes spoken turns down."""
    changed = Model(model.model, model.processor.with_switches(spoken="written"), "tiny")
    changed.stop = model.stop
    return changed


@pytest.fixture(scope="module")
def transcript(model):
    """Of a clip, what the model writes down when it is asked for no more."""
    return lambda clip: model.chat(user(clip, {"task": "transcribe"})).text.strip()


def test_a_spoken_turn_is_answered_as_the_words_that_were_heard(model, writing, transcript):
    clip = sound(0.9, 4)
    words = transcript(clip)
    assert words
    reply, typed = writing.chat(user(clip), SHORT), model.chat(user(words), SHORT)
    assert (reply.raw, reply.heard) == (typed.raw, words)
    assert model.chat(user(clip), SHORT).raw != reply.raw  # which is what it says of the sound
    assert reply.as_dict()["heard"] == words and "heard" not in typed.as_dict()


def test_pictures_stay_beside_it_and_streams_say_what_was_heard(model, writing, transcript):
    clip = sound(0.9, 5)
    stream = writing.stream(user(picture(1), clip), SHORT)
    text = "".join(stream)
    typed = model.chat(user(picture(1), transcript(clip)), SHORT)
    assert (text, stream.reply.raw, stream.heard) == (typed.text, typed.raw, transcript(clip))


def test_a_batch_writes_down_what_is_spoken_in_it_and_leaves_the_rest(model, writing, transcript):
    clips = [sound(0.6, 6), sound(1.1, 7)]
    asked = [user(clips[0]), user("hello"), user(clips[1], "what is it?"), user(clips[1]), user()]
    found = dict(writing.replies(asked, SHORT, batch_size=3))
    meant = [user(transcript(clips[0])), user("hello"), user(clips[1], "what is it?"), user(transcript(clips[1]))]
    assert [found[i].raw for i in range(4)] == [r.raw for r in model.chat_batch(meant, SHORT)]
    assert [found[i].heard for i in range(4)] == [transcript(clips[0]), "", "", transcript(clips[1])]
    assert isinstance(found[4], WeftError)


@pytest.mark.parametrize("beside", ["what is this?", {"task": "transcribe", "timestamps": True}])
def test_words_or_a_task_beside_a_clip_ask_for_its_sound(model, writing, beside):
    asked = user(sound(0.8, 8), beside)
    assert writing.chat(asked, SHORT) == model.chat(asked, SHORT)


def test_a_clip_is_written_down_once_and_stays_words_in_later_turns(model, writing, transcript, monkeypatch):
    clip, asked = sound(0.7, 9), []
    usual = writing.replies
    monkeypatch.setattr(writing, "replies", lambda them, *a, **k: usual(asked.append([*them]) or asked[-1], *a, **k))
    first = writing.chat(user(clip), SHORT)
    said = [{"role": "assistant", "content": first.text}]
    later = writing.chat([*user(clip), *said, *user("and then?")], SHORT)
    assert later.raw == model.chat([*user(transcript(clip)), *said, *user("and then?")], SHORT).raw
    assert later.heard == ""  # of the last turn, which was typed
    tasks = [one.messages[0].task for them in asked for one in them if isinstance(one, Conversation)]
    assert tasks == [Task("transcribe")]


def test_a_clip_longer_than_a_window_is_written_down_window_by_window(writing, transcript):
    clip = sound(4.5, 10)
    assert writing.chat(user(clip), SHORT).heard == transcript(clip)


def test_a_bad_clip_is_named_as_without_it(model, writing, tmp_path):
    (tmp_path / "no.wav").write_text("no sound")
    asked = [{"role": "user", "content": [{"type": "audio", "audio": str(tmp_path / "no.wav")}]}]
    said = []
    for each in (model, writing):
        with pytest.raises(WeftError) as error:
            each.chat(asked)
        said.append(str(error.value))
    assert said[0] == said[1] and "no.wav" in said[0]


def turn(*parts):
    return Message("user", parts)


def reply(text, *parts, finished=True):
    return Reply(text, text, parts, 1, finished)


def learned(written, conversation, *texts):
    for mark, text in zip(written.asks(conversation), texts, strict=True):
        written.learn(mark, reply(text))


def test_where_nothing_is_said_the_sound_itself_is_asked():
    asked = Conversation((turn(Audio(sound(0.5))),))
    written = Written(16000)
    learned(written, asked, " ")
    typed = written.typed(asked)
    assert (typed.conversation, typed.words, typed.kept) == (asked, "", (0,))
    assert not written.asks(asked)  # and it is not asked again


def test_a_transcript_that_was_cut_is_not_the_question():
    asked = Conversation((turn(Audio(sound(0.5))),))
    written = Written(16000)
    (mark,) = written.asks(asked)
    written.learn(mark, reply("the beginning of", finished=False))
    assert written.typed(asked).conversation == asked


@pytest.mark.parametrize("beside", [(), (Image(picture()),)])
def test_a_task_about_an_earlier_clip_has_its_sound(beside):
    task = Task("transcribe", {"timestamps": True})
    asked = Conversation(
        (turn(Audio(sound(0.5))), Message("assistant", (Text("ok"),)), turn(*beside, task)),
    )
    written = Written(16000)
    learned(written, asked, "listen to this")
    assert written.typed(asked).conversation == asked
    about = Conversation((*asked.messages[:2], turn(Image(picture()), Task("caption"))))  # of the picture
    assert not written.typed(about).conversation.audios


def test_more_clips_than_are_remembered_are_all_written_down(model, writing, transcript, monkeypatch):
    """However many are asked together, and whatever was asked before."""
    monkeypatch.setattr(spoken, "KEPT", 2)
    clips = [sound(0.3, 20 + n) for n in range(6)]
    found = dict(writing.replies([user(clip) for clip in (*clips, *clips[:2])], SHORT, batch_size=1))
    assert [found[n].heard for n in range(8)] == [transcript(clip) for clip in (*clips, *clips[:2])]


def test_a_known_transcript_is_not_taken_from_the_data():
    asked = Conversation((turn(Audio(sound(0.5), transcript="the answer key")),))
    written = Written(16000)
    learned(written, asked, "hello")
    assert written.typed(asked).conversation.messages[0].parts == (Text("hello"),)


def test_times_stay_with_their_clips():
    """Clips are numbered over the conversation, and those that became words no longer count in what the model is
    asked."""
    said, bell, ring = Audio(sound(0.4, 1)), Audio(sound(0.5, 2)), Word("ring", 0.1, 0.2)
    before = Message("assistant", (Words((ring,), 1),))
    asked = Conversation((turn(said), turn(bell, Text("when?")), before, turn(Text("and where?"))))
    written = Written(16000)
    learned(written, asked, "listen to this")
    typed = written.typed(asked)
    assert typed.conversation.audios == (bell,)
    assert typed.conversation.messages[2].parts == (Words((ring,), 0),)
    for place in (0, None):  # the only clip that the model was given, named or not
        parts = typed.told(reply("", Words((ring,), place), Text("there"))).parts
        assert parts == (Words((ring,), 1), Text("there"))


@pytest.mark.parametrize("place", [0, None])
def test_a_clip_that_times_point_into_stays(place):
    times = Message("assistant", (Words((Word("ring", 0.1, 0.2),), place),))
    asked = Conversation((turn(Audio(sound(0.4, 3))), times, turn(Text("?"))))
    written = Written(16000)
    learned(written, asked, "listen")
    assert written.typed(asked).conversation == asked


def test_only_a_clip_alone_is_spoken():
    clip, image = Audio(sound(0.3)), Image(picture())
    for parts in ((clip, clip), (clip, Text("a")), (clip, Task("transcribe")), (image,)):
        assert not Written(16000).asks(Conversation((turn(*parts),)))
    assert not Written(16000).asks(Conversation((Message("assistant", (clip,)),)))
    for parts in ((image, clip), (clip, Text(" "))):
        assert Written(16000).asks(Conversation((turn(*parts),)))
    answered = Conversation((turn(clip), Message("assistant", (Text("ok"),))))
    assert not Written(16000).asks(answered)  # nothing is asked


def test_answers_are_scored_as_they_are_asked_and_read_back(model, writing, transcript, tmp_path):
    clip, said = sound(0.6, 30), [{"role": "assistant", "content": "yes"}]
    scores = [writing.score([*user(clip), *said]), model.score([*user(transcript(clip)), *said])]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6) and writing.score([*user("hi"), *said]) < 0
    with pytest.raises(WeftError, match="no answer to score"):
        writing.score(user(clip))
    soundfile.write(tmp_path / "a.wav", *clip)
    asked = {"id": "a", "messages": [{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}]}
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked))
    answer_file(writing, tmp_path / "asked.jsonl", tmp_path / "answers.jsonl", SHORT)
    ((_, back),) = replies(tmp_path / "answers.jsonl")
    asked["messages"][0]["content"][0]["audio"] = str(tmp_path / "a.wav")
    assert back.heard and back == writing.chat(asked["messages"], SHORT)


def lines(folder, **beside):
    """Samples of a clip and an answer; ``beside``: what is asked of the clip."""
    soundfile.write(folder / "a.wav", *sound(0.5))
    content = [{"type": "audio", "audio": "a.wav"}, *([{"type": "task", **beside}] if beside else [])]
    sample = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "four"}]}
    path = folder / f"{len(beside)}.jsonl"
    path.write_text(json.dumps(sample))
    return Source(path=str(path))


def test_who_is_taught_what_is_spoken_hears_it_itself_from_then_on(tmp_path):
    base = tiny(dialect={"name": "chatml", "switches": {"spoken": "written", "system": "Be kind."}})
    base.model.save_pretrained(tmp_path / "base")
    base.processor.save_pretrained(tmp_path / "base")
    assert weft.load(tmp_path / "base").written is not None
    taught = finetune_recipe(str(tmp_path / "base"), [lines(tmp_path)]).model
    model = Model(*build_model(taught))
    assert model.written is None and model.processor.section.switches["system"] == "Be kind."
    assert model.model.config.dialect["switches"]["spoken"] == "heard"
    assert planned(taught)[1].section == model.processor.section  # as `weft show` shows samples
    other = finetune_recipe(str(tmp_path / "base"), [lines(tmp_path, task="transcribe", language="en")]).model
    assert Model(*build_model(other)).written is not None


def test_a_base_keeps_the_tokens_of_its_dialect(tmp_path):
    base = tiny(dialect={"name": "chatml", "switches": {"system": "You answer what is spoken."}})
    base.model.save_pretrained(tmp_path / "base")
    base.processor.save_pretrained(tmp_path / "base")
    taught = finetune_recipe(str(tmp_path / "base"), [lines(tmp_path)]).model
    assert not taught.dialect.switches  # a word of its system message is no switch
    for dialect, said in (
        ({"name": "llava", "switches": {"template": "plain"}}, "the base learned with 'chatml'"),
        ({"switches": {"box_bins": 500}}, "the base has no tokens for them"),
        ({"switches": {"bos": "<s>"}}, "the base has no tokens for them"),
        ({"switches": {"tune": 1}}, "has no switch"),
    ):
        with pytest.raises(WeftError, match=said):
            build_model(ModelSpec(base=str(tmp_path / "base"), dialect=dialect))


def test_a_run_that_goes_on_has_the_same_switches_whatever_its_base_learned_with(tmp_path):
    """Its recipe names the usual dialect where nobody named one."""
    model, processor = compose(audio=AUDIO, language=LANGUAGE, dialect={"name": "qwen2_audio"})
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    asked = ModelSpec(base=str(tmp_path / "base"), dialect={"switches": {"system": "Be kind."}})
    for spec in (asked, ModelSpec.model_validate_json(asked.model_dump_json())):
        section = build_model(spec)[1].section
        assert (section.name, section.switches["system"]) == ("qwen2_audio", "Be kind.")
