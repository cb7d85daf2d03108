"""`/v1/chat/completions` as OpenAI's clients use it: the answers are those of the model, whoever else asks."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from serving_kit import NAME, audio, image, png, questions, request, user, wav

from tiny_model import LANGUAGE, VISION
from weft.generation import Model
from weft.models.compose import compose


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="any", max_retries=0)


def ask(client, messages, **fields):
    return client.chat.completions.create(**request(messages, **fields))


def test_pictures_and_clips_in_any_order_are_answered_as_by_the_model(served, client):
    for messages, own in questions():
        reply = served.model.chat(own, max_new_tokens=12)
        answer = ask(client, messages)
        choice = answer.choices[0]
        assert choice.message.content == reply.text
        assert choice.message.weft["raw"] == reply.raw
        assert choice.message.weft["parts"] == reply.as_dict()["parts"]
        assert choice.finish_reason == ("stop" if reply.finished else "length")
        assert answer.usage.completion_tokens == reply.tokens
        details = answer.usage.prompt_tokens_details
        kinds = [part["type"] for part in messages[0]["content"]]
        assert (details.image_tokens > 0) == ("image_url" in kinds)
        assert (details.audio_tokens > 0) == ("input_audio" in kinds)
        assert answer.usage.prompt_tokens > details.image_tokens + details.audio_tokens


@pytest.mark.slow
def test_many_at_once_are_each_answered_as_alone(served, client):
    alone = [served.model.chat(own, max_new_tokens=12).text for _, own in questions()]
    assert len(set(alone)) == len(alone)
    with ThreadPoolExecutor(16) as pool:
        asked = [messages for messages, _ in questions()] * 8
        answers = list(pool.map(lambda m: ask(client, m).choices[0].message.content, asked))
    assert answers == alone * 8


def test_a_stream_is_the_answer(client):
    for messages, _ in questions():
        whole = ask(client, messages)
        stream = ask(client, messages, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        assert "".join(d.content or "" for d in deltas).strip() == whole.choices[0].message.content
        assert deltas[0].role == "assistant"
        assert deltas[-1].weft == whole.choices[0].message.weft
        assert chunks[-1].usage == whole.usage
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason


def test_earlier_turns_may_hold_media_and_an_answer_comes_back_as_it_was_given(served, client):
    first = user(image(png(5)), "one")
    answer = ask(client, first).choices[0].message
    messages = [*first, answer.model_dump(), *user(audio(wav(0.3)), "two")]
    assert ask(client, messages).choices[0].message.content
    plain = [*first, {"role": "assistant", "content": answer.content}, *user(audio(wav(0.3)), "two")]
    assert ask(client, plain).choices[0].message.content


@pytest.mark.slow
def test_stop_texts_end_an_answer_and_are_not_part_of_it(client):
    messages = questions()[4][0]
    whole = ask(client, messages, max_tokens=24).choices[0].message.content
    assert len(whole) > 6
    for at in range(1, 6):
        stop = whole[at : at + 2]
        expected = whole[: whole.index(stop)].strip()
        answer = ask(client, messages, max_tokens=24, stop=["\u2603", stop])
        assert answer.choices[0].message.content == expected
        assert answer.choices[0].finish_reason == "stop"
        chunks = ask(client, messages, max_tokens=24, stop=stop, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks).strip() == expected
    unmet = ask(client, messages, max_tokens=24, stop=whole + "more")
    assert unmet.choices[0].message.content == whole


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (["a", "b", "c", "d", "e"], "stop: List should have at most 4 items"),
        ([""], "stop: String should have at least 1 character"),
        ("", "stop: String should have at least 1 character"),
        (5, "stop: Input should be a valid string"),
    ],
)
def test_a_wrong_stop_is_told_by_what_is_wrong_with_it(client, stop, said):
    with pytest.raises(openai.BadRequestError, match=said):
        ask(client, questions()[0][0], stop=stop)


def test_choices_draw_by_themselves_and_a_seed_repeats_them(client):
    messages = questions()[0][0]

    def drawn(n, seed):
        return [c.message.content for c in ask(client, messages, n=n, seed=seed, temperature=1.5, top_p=0.95).choices]

    three = drawn(3, 5)
    assert three == drawn(3, 5) and len(set(three)) == 3
    assert three[:1] == drawn(1, 5) and three[1:2] == drawn(1, 6)
    stream = ask(client, messages, n=3, seed=5, temperature=1.5, top_p=0.95, stream=True)
    texts = ["", "", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert [text.strip() for text in texts] == three


def test_log_probabilities_are_those_of_the_tokens(served, client):
    messages, own = questions()[4]
    answer = ask(client, messages, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == max(t.logprob for t in token.top_logprobs) <= 0  # greedy takes the likeliest
    streamed = [
        t for c in ask(client, messages, logprobs=True, stream=True) if (p := c.choices[0].logprobs) for t in p.content
    ]
    assert [t.logprob for t in streamed] == pytest.approx([t.logprob for t in content], abs=1e-4)
    assert ask(client, messages).choices[0].logprobs is None


def test_models_are_listed(served, client):
    (card,) = client.models.list().data
    assert card.id == NAME and card.weft["modalities"] == ["text", "image", "audio"]
    assert "refer" in card.weft["tasks"]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"speed": 2}, "speed"),
        ({"n": 99}, "n"),
        ({"n": 0}, "n"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"model": "gpt-4o"}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "/etc/passwd"}]}]}, "type"),
        ({"messages": [*user("a"), {"role": "assistant", "content": "b"}]}, None),
    ],
)
def test_what_is_not_offered_is_refused_by_its_name(served, fields, param):
    answer = served.http.post("/v1/chat/completions", json={**request(user("a")), **fields})
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert param is None or (error["param"] or "").startswith(param) or param in error["param"]


def test_a_model_without_a_sense_refuses_its_media_instead_of_answering_over_them(serve):
    deaf = Model(*compose(vision=VISION, language=LANGUAGE))
    with serve(deaf) as served:
        answer = served.chat(user(audio(wav(0.3)), "what is said?"))
        assert answer.status_code == 400 and "no audio encoder" in answer.json()["error"]["message"]
        form = {"data": {"model": NAME}, "files": {"file": ("a.wav", wav(0.3))}}
        answer = served.http.post("/v1/audio/transcriptions", **form)
        assert answer.status_code == 400 and "no audio encoder" in answer.json()["error"]["message"]
        assert served.chat(user(image(png()), "what is it?")).status_code == 200


def test_json_that_is_not_said_to_be_json_is_told_so(served):
    body = json.dumps(request(user("a"))).encode()
    for kind in ("application/x-www-form-urlencoded", "text/plain"):  # the first is what curl -d sends
        answer = served.http.post("/v1/chat/completions", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 400 and "application/json" in answer.json()["error"]["message"]


def test_head_is_answered_where_get_is(served):
    for path in ("/health", "/ready", "/metrics", "/v1/models", f"/v1/models/{NAME}", "/"):
        answer = served.http.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path


def test_what_asks_for_nothing_passes(served):
    nothing = {
        "tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "frequency_penalty": 0.0, "n": None,
        "logit_bias": {}, "stop": None, "user": "me", "metadata": {"a": "b"}, "store": False, "stream": False,
    }  # fmt: skip
    plain = served.chat(user("a")).json()["choices"]
    assert served.chat(user("a"), **nothing).json()["choices"] == plain


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/completions", "/v1/embeddings", "/nothing"])
def test_addresses_that_are_not_offered_say_so(served, path):
    answer = served.http.post(path, json={"model": NAME})
    assert answer.status_code == 404 and "address" in answer.json()["error"]["message"]


def test_a_prompt_longer_than_the_context_is_refused(served):
    answer = served.chat(user("a b " * 600))
    assert answer.status_code == 400 and "512" in answer.json()["error"]["message"]


def test_events_are_json_lines_of_one_stream(served):
    with served.http.stream("POST", "/v1/chat/completions", json=request(user("a"), stream=True)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line[6:] for line in answer.iter_lines() if line]
    assert events[-1] == "[DONE]"
    assert len({json.loads(event)["id"] for event in events[:-1]}) == 1
