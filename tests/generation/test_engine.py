"""The engine: the same answer however it is asked for."""

import json
import math

import numpy as np
import pytest
import torch

import weft
from marks import slow
from tiny_model import picture, questions, sound, tiny, user
from weft.conversation import Text, WeftError, Word, Words
from weft.dialects.base import join_words
from weft.generation import Model, Options
from weft.generation.answer import Windows
from weft.generation.detokenize import Detokenizer


def test_batched_equals_single_in_float32(model):
    alone = [model.chat(q, max_new_tokens=24) for q in questions()]
    together = model.chat_batch(questions(), max_new_tokens=24)
    assert [r.raw for r in together] == [r.raw for r in alone]
    assert together == alone
    assert len({r.raw for r in alone}) >= 6  # different questions, different answers: mix-ups would show


def ending_at(model, stops, monkeypatch):
    """The model with a checkpoint's own list of ids that end an answer, beside its dialect's."""
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", list(stops))
    return Model(model.model, model.processor)


@pytest.mark.slow
def test_batched_equals_single_when_rows_end_at_different_steps(model, monkeypatch):
    """Rows leave the batch as they end; those that stay must not notice."""
    alone = [model.chat(q, max_new_tokens=20) for q in questions()]
    stops = {ids[-1] for ids in (model.processor.tokenizer(r.raw)["input_ids"][:12] for r in alone) if ids}
    early = ending_at(model, stops, monkeypatch)
    single = [early.chat(q, max_new_tokens=20).tokens for q in questions()]
    assert [r.tokens for r in early.chat_batch(questions(), max_new_tokens=20)] == single
    assert len(set(single)) > 2


def test_greedy_equals_generate_of_transformers(model):
    for question in questions()[:4]:
        inputs = model.processor.apply_chat_template(
            question, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        out = model.model.generate(**inputs, max_new_tokens=12, do_sample=False)[0].tolist()
        reply = model.chat(question, max_new_tokens=12)
        raw = model.processor.tokenizer.decode(out[-reply.tokens :], skip_special_tokens=False)
        assert raw.startswith(reply.raw)


@pytest.mark.parametrize(
    "options",
    [{}, slow({"do_sample": True, "temperature": 1.3, "seed": 4}), {"num_beams": 2}],
)
def test_stream_equals_chat(model, options):
    for question in questions()[:5]:
        stream = model.stream(question, max_new_tokens=16, **options)
        text = "".join(stream)
        assert stream.reply == model.chat(question, max_new_tokens=16, **options)
        if options.get("num_beams", 1) == 1:
            assert text.strip() == stream.reply.text


def test_sampling_repeats_with_a_seed_alone_and_in_a_batch(model):
    options = Options(max_new_tokens=16, do_sample=True, temperature=1.5, top_p=0.9, top_k=50, seed=7)
    first = [model.chat(q, options) for q in questions()]
    assert model.chat_batch(questions(), options) == first
    assert model.chat_batch(questions(), options, seed=8) != first


def test_a_very_low_temperature_is_greedy(model):
    for question in questions()[:3]:
        cold = model.chat(question, max_new_tokens=12, do_sample=True, temperature=1e-4, seed=0)
        assert cold.raw == model.chat(question, max_new_tokens=12).raw
        narrow = model.chat(question, max_new_tokens=12, do_sample=True, top_k=1, seed=0)
        assert narrow.raw == cold.raw


def test_repetition_penalty_equals_that_of_transformers(model):
    question = questions()[0]
    inputs = model.processor.apply_chat_template(
        question, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    out = model.model.language_model.generate(
        **inputs, max_new_tokens=16, do_sample=False, repetition_penalty=1.7, eos_token_id=-1
    )[0, inputs["input_ids"].shape[1] :]
    reply = model.chat(question, max_new_tokens=16, repetition_penalty=1.7)
    assert model.processor.tokenizer.decode(out, skip_special_tokens=False).startswith(reply.raw)


def test_beams_find_an_answer_at_least_as_likely_as_greedy(model):
    def likelihood(question, reply):
        return model.score([*question, {"role": "assistant", "content": reply.text}])

    question = user("hello")
    greedy = model.chat(question, max_new_tokens=6)
    beam = model.chat(question, max_new_tokens=6, num_beams=4)
    assert beam.tokens and greedy.tokens
    batch = model.chat_batch(questions()[:3], max_new_tokens=6, num_beams=3)
    assert [r.raw for r in batch] == [model.chat(q, max_new_tokens=6, num_beams=3).raw for q in questions()[:3]]


@pytest.mark.slow
def test_sampled_beams_do_not_depend_on_their_batch(model):
    options = Options(max_new_tokens=8, do_sample=True, num_beams=3, temperature=1.5, seed=3)
    alone = [model.chat(q, options).raw for q in questions()]
    assert [r.raw for r in model.chat_batch(questions(), options)] == alone
    assert [r.raw for r in model.chat_batch(questions()[::-1], options, batch_size=2)] == alone[::-1]


@pytest.mark.parametrize("beams", [1, 2])
def test_without_a_seed_each_answer_is_another(model, beams):
    options = Options(max_new_tokens=8, do_sample=True, num_beams=beams, temperature=2.0)
    assert len({model.chat(questions()[0], options).raw for _ in range(4)}) > 1


def test_beams_of_a_prompt_near_the_end_of_the_context_cut_no_others(model, monkeypatch):
    text = model.model.config.get_text_config()
    monkeypatch.setattr(text, "max_position_embeddings", 120)
    monkeypatch.setattr(type(model.processor), "stop_ids", [])
    model = ending_at(model, [], monkeypatch)
    both = model.chat_batch([user("hello"), user("x" * 80)], max_new_tokens=40, num_beams=2)
    assert both[0].tokens == 40 > both[1].tokens
    assert both[0].raw == model.chat(user("hello"), max_new_tokens=40, num_beams=2).raw


@pytest.mark.parametrize(
    "answer",
    [
        "<|t0.1|><|f0|>five<|t0.4|><|f0|><|t0.5|><|f0|>six<|t0.9|><|f0|>",
        "<|ref|>the cup<|p1|><|p2|><|p3|><|p4|> and <|ref|>a dog<|p1|><|p2|><|p3|><|p4|>.",
        "It says: <|t0.1|><|f0|>né<|t0.4|><|f0|> here",
        "<|t0.1|><|f0|>five<|t0.4|>",
        "none <|p1|> of it",
    ],
)
def test_what_is_streamed_of_boxes_and_words_reads_as_the_answer(model, answer):
    """As a trained model writes it: each id by itself."""
    tokenizer = model.processor.tokenizer
    ids = [*tokenizer(answer, add_special_tokens=False)["input_ids"], min(model.processor.stop_ids)]
    question = _typed(user(picture(1), sound(0.5), "what?"))
    growing = model.answer(question, model.processor.encode(question, generate=True))
    pieces = [p for p in map(growing.push, ids) if p]
    rest, reply = growing.finish()
    assert "".join([*pieces, rest]) == reply.text
    assert reply.raw == answer and reply.finished
    if "six" in answer:
        assert pieces == ["five", " six"]


def test_what_reads_like_a_special_token_stays_in_the_answer(model):
    """Only ids decide: HTML in an answer, or a word about a dialect, is text."""
    text = "End with <|im_end|> or <s>old</s>, <|t0.3|> is a time."
    ids = model.processor.renderer.encode_text(text)
    raw, said, parts = model.processor.parse_reply(ids, _typed(user("how?")))
    assert raw == said == text and parts == [Text(text)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"num_beams": 2.5}, "whole number"),
        ({"max_new_tokens": "5"}, "whole number"),
        ({"num_beams": 100_000}, "at most 128"),
        ({"max_new_tokens": 10**12}, "at most 1,048,576"),
        ({"top_k": 1 << 70}, "top_k is"),
        ({"seed": 1 << 63}, "below 2 to the power of 63"),
        ({"do_sample": True, "temperature": math.inf}, "temperature is inf"),
        ({"repetition_penalty": math.inf}, "above 0, and finite"),
    ],
)
def test_wrong_options_are_named(change, said):
    with pytest.raises(WeftError, match=said):
        Options(**change)


@pytest.mark.parametrize(
    ("windows", "whole"),
    [
        ([["one ", "two"], [" three"]], "one two three"),
        ([["你好 "], ["", " 世", "界"]], "你好世界"),
        ([["你好"], ["world", " "], [" "], ["!"]], "你好 world !"),
        ([[" "], ["two  ", " words"]], "two   words"),
    ],
)
def test_windows_are_streamed_as_they_are_put_together(windows, whole):
    together, shown = Windows(), ""
    for window in windows:
        together.turn()
        shown += "".join(map(together.push, window))
    assert shown == whole
    assert join_words([text for w in windows if (text := "".join(w).strip())]) == whole


def test_score_is_the_sum_of_log_probabilities(model):
    question = questions()[1]
    answer = [*question, {"role": "assistant", "content": "a red cup"}]
    prompt = model.processor.encode(_typed(question), generate=True)
    whole = model.processor.encode(_typed(answer))
    n = len(prompt.input_ids)
    assert whole.input_ids[:n].tolist() == prompt.input_ids.tolist()
    total, ids = 0.0, whole.input_ids.tolist()
    for i in range(len(ids)):
        if whole.loss_mask[i]:
            inputs = model.processor.collate([whole])
            inputs = {k: v for k, v in inputs.items() if k != "labels"}
            with torch.inference_mode():
                total += model.model(**inputs).logits[0, i - 1].log_softmax(-1)[ids[i]].item()
    assert model.score(answer) == pytest.approx(total, abs=1e-4)
    with pytest.raises(WeftError, match="no answer"):
        model.score(question)
    unlearned = [*question, {**answer[-1], "learn": False}]
    with pytest.raises(WeftError, match='every answer says "learn": false'):
        model.score(unlearned)
    more = [*unlearned, {"role": "user", "content": "and now?"}, {"role": "assistant", "content": "blue"}]
    both = [*answer, *more[-2:]]
    assert model.score(more) == pytest.approx(model.score(both) - model.score(answer), abs=1e-4)


def test_a_long_clip_is_transcribed_window_by_window(model, monkeypatch):
    """Each window's words come back offset by where the window starts; every sample is heard once."""
    heard = []

    def parse_reply(ids, conversation):
        wave = conversation.audios[0].source[0]
        heard.append(wave)
        return "raw", "tick", [Words((Word("tick", 0.25, 0.5),), 0)]

    monkeypatch.setattr(model.processor, "parse_reply", parse_reply)
    wave, rate = sound(5.1, 3)
    reply = model.chat(
        user((wave, rate), {"task": "transcribe", "language": "en", "timestamps": True}), max_new_tokens=2
    )
    assert reply.windows == len(heard) >= 3
    assert sorted(len(w) for w in heard)[-1] <= 2 * rate
    joined = np.concatenate(sorted(heard, key=lambda w: _place(w, wave)))
    np.testing.assert_array_equal(joined, wave)
    starts = np.cumsum([0, *(len(w) for w in sorted(heard, key=lambda w: _place(w, wave)))])[:-1] / rate
    (words,) = reply.words
    assert [w.start for w in words.words] == pytest.approx([s + 0.25 for s in starts], abs=1e-3)
    assert reply.text == " ".join(["tick"] * reply.windows)


def test_other_tasks_hear_all_windows_in_one_prompt(model):
    reply = model.chat(user(sound(5.1, 2), "what do you hear?"), max_new_tokens=2)
    assert reply.windows == 3
    assert model.chat(user(sound(0.5), sound(1.5), "and here?"), max_new_tokens=2).windows == 1


def test_too_long_is_an_error_and_never_cut(model):
    with pytest.raises(WeftError, match="512"):
        model.chat("a 1 " * 400)
    nearly = user("1" * 470)
    reply = model.chat(nearly, max_new_tokens=400)
    assert reply.finished or reply.tokens < 400  # the room that is left, and said so


def test_one_bad_conversation_does_not_spoil_the_others(model):
    asked = [user("hello"), [{"role": "user", "content": [{"type": "image", "image": b"no picture"}]}], user("a")]
    results = dict(model.replies(asked, Options(max_new_tokens=2)))
    assert isinstance(results[1], WeftError)
    assert results[0] == model.chat(asked[0], max_new_tokens=2)
    with pytest.raises(WeftError):
        model.chat_batch(asked, max_new_tokens=2)


def test_many_conversations_come_back_in_order(model):
    asked = [user(f"{'x ' * (i % 7)}{i}") for i in range(40)]
    together = model.chat_batch(asked, max_new_tokens=3, batch_size=4)
    assert together == [model.chat(q, max_new_tokens=3) for q in asked]
    assert model.chat_batch([], max_new_tokens=3) == []


@pytest.mark.parametrize(
    "options, word",
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": 0.5}, "do_sample"),
        ({"do_sample": True, "top_p": 0.0}, "top_p"),
        ({"speed": 3}, "speed"),
    ],
)
def test_options_that_make_no_sense_are_refused(model, options, word):
    with pytest.raises(WeftError, match=word):
        model.chat("hello", **options)


def test_a_conversation_that_asks_nothing_is_refused(model):
    with pytest.raises(WeftError, match="user message"):
        model.chat([*user("a"), {"role": "assistant", "content": "b"}])


def test_saved_and_loaded_answers_the_same(model, tmp_path):
    model.model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    again = weft.load(tmp_path, device="cpu")
    assert again.chat_batch(questions(), max_new_tokens=8) == model.chat_batch(questions(), max_new_tokens=8)


def test_what_is_no_model_is_refused_in_one_sentence(tmp_path):
    for name in (tmp_path / "nothing", tmp_path):
        with pytest.raises(WeftError, match="config.json|no model folder"):
            weft.load(name)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(WeftError, match="llama"):
        weft.load(tmp_path)


def test_detokenizer_never_shows_half_a_character(model):
    tokenizer = model.processor.tokenizer
    text = "naïve – 你好, 🎵 and 👩‍👩‍👧 done"
    ids = tokenizer(text)["input_ids"]
    push = Detokenizer(tokenizer)
    deltas = [push.push(i) for i in ids] + [push.flush()]
    assert "".join(deltas) == text
    assert not any("\ufffd" in d for d in deltas)
    cut = Detokenizer(tokenizer)
    assert "".join([cut.push(i) for i in tokenizer("é")["input_ids"][:1]] + [cut.flush()]) == "\ufffd"


def test_bfloat16_and_other_seeds_answer_too():
    other = tiny(seed=3)
    other.model.to(torch.bfloat16)
    assert other.chat(user(picture(), sound(0.4), "hello"), max_new_tokens=4).tokens


def _typed(messages):
    from weft.conversation import parse_messages

    return parse_messages(messages)


def _place(window, wave):
    return next(i for i in range(0, len(wave), 160) if np.array_equal(wave[i : i + len(window)], window))
