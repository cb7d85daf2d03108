"""A server whose model writes spoken turns down: what clients of it get, and what it counts."""

import json

import pytest
from scripted import Scripted, patient
from serving_kit import audio, user, wav

from weft.conversation import Text
from weft.generation import Model
from weft.serving.limits import Limits


def reply(conversation):
    message = conversation.messages[-1]
    if message.task is not None:
        return [Text("what is two and two?")]
    return [Text(f"You said {message.text!r}")]


@pytest.fixture(scope="module")
def served(serve):
    plain = patient()
    model = Model(plain.model, plain.processor.with_switches(spoken="written"), "tiny")
    with serve(None, Limits(tokens=64), Scripted(model, reply)) as served:
        yield served


def test_a_spoken_turn_is_answered_as_typed_and_says_what_was_heard(served):
    given = served.chat(user(audio(wav())), max_tokens=40).json()
    message = given["choices"][0]["message"]
    assert message["content"] == "You said 'what is two and two?'"
    assert message["weft"]["heard"] == "what is two and two?"
    tokens = given["usage"]
    assert tokens["prompt_tokens_details"]["audio_tokens"] > 0  # it was heard, and written with tokens of its own
    again = served.chat(user(audio(wav())), max_tokens=40).json()
    assert again["choices"] == given["choices"] and again["usage"]["prompt_tokens_details"]["audio_tokens"] == 0
    assert again["usage"]["completion_tokens"] < tokens["completion_tokens"]
    asked = [one.messages[-1].task for one in served.engine.asked]
    assert [task is not None for task in asked] == [True, False, False]


def test_a_stream_says_it_in_its_last_chunk(served):
    streamed = served.chat(user(audio(wav(seed=3))), max_tokens=40, stream=True).text
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "You said 'what is two and two?'"
    assert [delta["weft"]["heard"] for delta in deltas if "weft" in delta] == ["what is two and two?"]


def test_words_beside_a_clip_ask_for_its_sound(served):
    message = served.chat(user(audio(wav(seed=4)), "what is it?"), max_tokens=40).json()["choices"][0]["message"]
    assert message["content"] == "You said 'what is it?'" and "heard" not in message["weft"]


def test_a_clip_that_cannot_be_read_is_the_clients_error(served):
    assert served.chat(user(audio(b"no sound"))).status_code == 400
