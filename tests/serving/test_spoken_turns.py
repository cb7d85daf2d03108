"""A server whose model writes spoken turns down: what clients of it get, and what it counts."""

import json
import time

import httpx2 as httpx
import pytest
from scripted import Scripted, patient
from serving_kit import audio, request, user, wav

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


def test_nothing_is_written_down_for_a_request_that_asks_nothing_or_whose_client_is_gone(served):
    before = len(served.engine.asked)
    said = [*user(audio(wav(seed=5))), {"role": "assistant", "content": "ok"}]
    assert served.chat(said).status_code == 400 and len(served.engine.asked) == before
    served.engine.pause, cancelled = 0.2, served.engine.cancelled
    with pytest.raises(httpx.TimeoutException):
        served.http.post("/v1/chat/completions", json=request(user(audio(wav(seed=6)))), timeout=1.0)
    for _ in range(100):
        if served.engine.cancelled == cancelled:
            time.sleep(0.05)
    served.engine.pause = 0.0
    assert served.engine.cancelled == cancelled + 1
    assert [one.messages[-1].task is None for one in served.engine.asked[before:]] == [False]


def test_a_transcript_is_no_longer_than_an_answer_may_be(serve):
    plain = patient()
    model = Model(plain.model, plain.processor.with_switches(spoken="written"), "tiny")
    with serve(None, Limits(tokens=5), Scripted(model, reply)) as short:
        message = short.chat(user(audio(wav())), max_tokens=5).json()["choices"][0]["message"]
        assert [options.max_new_tokens for options in short.engine.options] == [5, 5]
        assert "heard" not in message["weft"]  # it was cut, so the sound itself was asked
