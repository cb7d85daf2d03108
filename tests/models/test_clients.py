"""What programs that know nothing of weft ask of a processor and a configuration: pipelines, trainers, evaluators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import pipeline

import tiny_model as made
from weft.conversation import WeftError
from weft.models.compose import compose


@pytest.fixture(scope="module")
def model() -> Any:
    return made.tiny()


def asked(text: str, picture: Any = None, **more: Any) -> list[dict[str, Any]]:
    """A question about a picture; None leaves the picture out, as who hands it over apart does."""
    image = {"type": "image"} if picture is None else {"type": "image", "image": picture}
    return [{"role": "user", "content": [image | more, {"type": "text", "text": text} | more]}]


PROMPT = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}


def test_places_of_media_are_written_and_the_media_come_apart(model: Any) -> None:
    processor, picture = model.processor, made.picture()
    expected = processor.apply_chat_template(asked("what?", picture), **PROMPT)
    for part in ({}, {"image": None}):  # left out, or a column of a table that holds nothing here
        text = processor.apply_chat_template(asked("what?", **part), add_generation_prompt=True)
        got = processor(text=[text], images=[[picture]], return_tensors="pt", padding="longest", truncation=False)
        assert got["input_ids"].tolist() == expected["input_ids"].tolist()
        torch.testing.assert_close(got["pixel_values"], expected["pixel_values"])
    with pytest.raises(WeftError, match='"image"'):
        processor.apply_chat_template(asked("what?"), **PROMPT)


def test_keys_that_hold_nothing_are_as_if_they_were_not_there(model: Any) -> None:
    filled = asked("what?", made.picture(), audio=None, task=None)
    filled[0] |= {"tool_calls": None, "name": None}
    got = model.processor.apply_chat_template(filled, **PROMPT)
    assert (
        got["input_ids"].tolist()
        == model.processor.apply_chat_template(asked("what?", made.picture()), **PROMPT)["input_ids"].tolist()
    )
    with pytest.raises(WeftError, match="tool_calls"):
        model.processor.apply_chat_template([{"role": "user", "content": "a", "tool_calls": [{"name": "f"}]}])


def test_an_answer_that_is_to_go_on_is_left_open(model: Any) -> None:
    processor = model.processor
    begun = [*asked("what?", made.picture()), {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]
    opened = processor.apply_chat_template(begun, continue_final_message=True)
    assert opened == processor.apply_chat_template(begun[:1], add_generation_prompt=True) + "It is"
    ids = processor.apply_chat_template(begun, continue_final_message=True, tokenize=True)
    assert ids == processor.apply_chat_template(begun, tokenize=True)[: len(ids)]
    with pytest.raises(WeftError, match="ends with none"):
        processor.apply_chat_template(begun[:1], continue_final_message=True)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_filled_up_as_asked(model: Any, side: str) -> None:
    conversations = [[{"role": "user", "content": text}] for text in ("a", "a longer question")]
    options = {"padding_side": side, "pad_to_multiple_of": 16}
    rows = model.processor.apply_chat_template(conversations, **PROMPT, processor_kwargs=options)
    again = model.processor.apply_chat_template(conversations, **PROMPT, text_kwargs=options)
    assert rows["input_ids"].shape[1] % 16 == 0 and torch.equal(rows["input_ids"], again["input_ids"])
    outside = rows["input_ids"][rows["attention_mask"] == 0]
    assert len(outside) and (outside == model.processor.pad_id).all()
    assert rows["attention_mask"][0, 0 if side == "right" else -1] == 1
    full = model.processor(text="a", padding="max_length", max_length=40, return_tensors="pt")
    assert full["input_ids"].shape == (1, 40)


def test_nothing_is_cut_and_nothing_passed_over(model: Any) -> None:
    processor = model.processor
    with pytest.raises(WeftError, match=r"8 tokens, more than max_length=3"):
        processor(text="a word in text", truncation=True, max_length=3)
    assert len(processor(text="a word", truncation=True, max_length=300)["input_ids"][0]) < 8
    with pytest.raises(WeftError, match="no use for do_resize=True"):
        processor(text="a", images_kwargs={"do_resize": True})
    with pytest.raises(WeftError, match="give it once"):
        processor(text="a", padding_side="left", text_kwargs={"padding_side": "right"})


def test_arrays_of_sound_are_at_the_rate_that_is_named(model: Any) -> None:
    wave, rate = made.sound(0.5)
    halved = wave[::2]
    named = [{"role": "user", "content": [{"type": "audio", "audio": (halved, rate // 2)}]}]
    bare = [{"role": "user", "content": [{"type": "audio", "audio": halved}]}]
    got = model.processor.apply_chat_template(bare, **PROMPT, sampling_rate=rate // 2)
    expected = model.processor.apply_chat_template(named, **PROMPT)
    torch.testing.assert_close(got["input_features"], expected["input_features"])
    assert got["feature_lengths"].tolist() == expected["feature_lengths"].tolist()


def test_names_that_others_look_for_are_there(model: Any) -> None:
    processor, config = model.processor, model.model.config
    assert processor.tokenizer.decode([config.image_token_id]) == processor.image_token
    assert (processor.image_token_id, processor.audio_token_id) == (config.image_token_id, config.audio_token_id)
    text = processor.apply_chat_template(made.questions()[4])
    assert text.count(processor.image_token) == 1 and text.count(processor.audio_token) == 1
    assert config.vocab_size == model.model.vocab_size >= len(processor.tokenizer)
    assert config.audio_config.num_mel_bins == 16 and config.vision_config is not None
    assert processor.tokenizer.eos_token_id in processor.stop_ids


def test_pipelines_answer_in_batches_as_one_by_one(model: Any, tmp_path: Path) -> None:
    model.model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    pipe = pipeline("image-text-to-text", model=str(tmp_path))
    chats = [asked("what?", made.picture(1)), asked("and which of these is longer?", made.picture(2))]
    options = {"max_new_tokens": 5, "return_full_text": False, "do_sample": False}
    alone = [pipe(text=chat, **options)[0]["generated_text"] for chat in chats]
    assert [row[0]["generated_text"] for row in pipe(text=chats, batch_size=2, **options)] == alone
    assert alone == [model.chat(chat, max_new_tokens=5).text for chat in chats]
    begun = [*chats[0], {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]
    whole = pipe(text=begun, max_new_tokens=3)[0]["generated_text"]
    assert whole[-1]["content"][0]["text"].startswith("It is") and len(whole) == 2


def heard(folder: Path, *seconds: float) -> list[list[dict[str, Any]]]:
    """A question about a clip of each length."""
    chats = []
    for i, length in enumerate(seconds):
        soundfile.write(folder / f"{i}.wav", np.random.default_rng(i).normal(0, 0.1, int(16000 * length)), 16000)
        parts = [{"type": "audio", "audio": str(folder / f"{i}.wav")}, {"type": "text", "text": f"what? {i}"}]
        chats.append([{"role": "user", "content": parts}])
    return chats


@pytest.mark.parametrize("task", ["image-text-to-text", "any-to-any"])
def test_pipelines_hear_clips_of_unequal_length_in_a_batch(model: Any, task: str, tmp_path: Path) -> None:
    """They fill features up on the side of the text's ids, which begins a clip with silence."""
    kept = model.model
    if task == "any-to-any":  # it demands torchvision of models that see
        kept, processor = compose(vision=None, audio=made.AUDIO, language=made.LANGUAGE, seed=0)
    processor = model.processor if kept is model.model else processor
    kept.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    try:
        pipe = pipeline(task, model=str(tmp_path))
    except ImportError as error:
        if "librosa" not in str(error):
            raise
        pytest.skip("this release of transformers demands librosa for sound, which weft does without")
    chats, scores = heard(tmp_path, 0.4, 1.3, 0.9), {}
    plain = pipe.model.generate
    for size in (1, 3):
        found = []

        def generate(*, found: list[torch.Tensor] = found, **inputs: Any) -> Any:
            out = plain(**{**inputs, "output_scores": True, "return_dict_in_generate": True})
            found.append(out.scores[0])
            return out if inputs.get("return_dict_in_generate") else out.sequences

        pipe.model.generate = generate
        pipe(text=chats, batch_size=size, max_new_tokens=2, do_sample=False)
        scores[size] = torch.cat(found)
    torch.testing.assert_close(scores[3], scores[1], rtol=1e-4, atol=1e-5)
    twice = [[chat[0] | {"content": [*chats[0][0]["content"], *chat[0]["content"]]}] for chat in chats]
    with pytest.raises(WeftError, match="6 windows of sound have a length, and 3 are there"):
        pipe(text=twice, batch_size=3, max_new_tokens=2)
