"""A spoken turn is written down by the model and answered as if it were typed, where the dialect says so."""

import json

import pytest
import soundfile

import weft
from tiny_model import picture, sound, tiny, user
from weft.conversation import Audio, Conversation, Image, Message, Task, Text, WeftError, Word, Words
from weft.generation import Model, Options
from weft.generation.reply import Reply
from weft.generation.spoken import Written
from weft.recipes.finetune import finetune_recipe
from weft.training.build import build_model
from weft.training.recipe import Source

SHORT = Options(max_new_tokens=8)


@pytest.fixture(scope="module")
def writing():
    """A model that writes spoken turns down, and what else it was asked on the way."""
    plain = tiny()
    return Model(plain.model, plain.processor.with_switches(spoken="written"), "tiny")


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
    replies = dict(writing.replies(asked, SHORT, batch_size=3))
    meant = [user(transcript(clips[0])), user("hello"), user(clips[1], "what is it?"), user(transcript(clips[1]))]
    assert [replies[i].raw for i in range(4)] == [r.raw for r in model.chat_batch(meant, SHORT)]
    assert [replies[i].heard for i in range(4)] == [transcript(clips[0]), "", "", transcript(clips[1])]
    assert isinstance(replies[4], WeftError)


@pytest.mark.parametrize("beside", ["what is this?", {"task": "transcribe", "timestamps": True}])
def test_words_or_a_task_beside_a_clip_ask_for_its_sound(model, writing, beside):
    asked = user(sound(0.8, 8), beside)
    assert writing.chat(asked, SHORT) == model.chat(asked, SHORT)


def test_a_clip_is_written_down_once_and_stays_words_in_later_turns(model, writing, transcript, monkeypatch):
    clip, asked = sound(0.7, 9), []
    replies = writing.replies
    monkeypatch.setattr(writing, "replies", lambda them, *a, **k: replies(asked.append([*them]) or asked[-1], *a, **k))
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


def reply(text, *parts):
    return Reply(text, text, parts, 1, True)


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


def test_a_known_transcript_is_not_taken_from_the_data():
    asked = Conversation((turn(Audio(sound(0.5), transcript="the answer key")),))
    written = Written(16000)
    learned(written, asked, "hello")
    assert written.typed(asked).conversation.messages[0].parts == (Text("hello"),)


def test_times_stay_with_their_clips():
    """Clips are numbered over the conversation, and those that became words no longer count in what the model is
    asked."""
    spoken, bell, ring = Audio(sound(0.4, 1)), Audio(sound(0.5, 2)), Word("ring", 0.1, 0.2)
    before = Message("assistant", (Words((ring,), 1),))
    asked = Conversation((turn(spoken), turn(bell, Text("when?")), before, turn(Text("and where?"))))
    written = Written(16000)
    learned(written, asked, "listen to this")
    typed = written.typed(asked)
    assert typed.conversation.audios == (bell,)
    assert typed.conversation.messages[2].parts == (Words((ring,), 0),)
    assert typed.told(reply("", Words((ring,), 0), Text("there"))).parts == (Words((ring,), 1), Text("there"))


def test_a_clip_that_times_point_into_stays():
    spoken = Audio(sound(0.4, 3))
    asked = Conversation((turn(spoken), Message("assistant", (Words((Word("ring", 0.1, 0.2),), 0),)), turn(Text("?"))))
    written = Written(16000)
    learned(written, asked, "listen")
    assert written.typed(asked).conversation == asked


def test_only_a_clip_alone_is_spoken():
    clip, image = Audio(sound(0.3)), Image(picture())
    for parts in ((clip, clip), (clip, Text("a")), (clip, Task("transcribe")), (image,)):
        assert not Written(16000).asks(Conversation((turn(*parts),)))
    assert not Written(16000).asks(Conversation((Message("assistant", (clip,)),)))
    assert Written(16000).asks(Conversation((turn(image, clip),)))


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
    other = finetune_recipe(str(tmp_path / "base"), [lines(tmp_path, task="transcribe", language="en")]).model
    assert Model(*build_model(other)).written is not None
