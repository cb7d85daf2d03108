"""What programs built on transformers do with a model: other attention, caches handed back, drafts, exports, graphs."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

KINDS = {"whisper": {}, "qwen_audio": {"boundaries": True}, "wav2vec2": {"config": {"feat_extract_norm": "layer"}}}
GREEDY = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}


def model(kind: str = "whisper", seed: int = 0) -> Any:
    return tiny.model("llama", tiny.vision("siglip"), tiny.audio(kind, {"merge": 2}, **KINDS[kind]), seed=seed)


def two_clips(kind: str = "whisper") -> dict[str, torch.Tensor]:
    """A row with a clip and a picture, and one with a shorter clip."""
    vision, audio = tiny.vision("siglip"), tiny.audio(kind, {"merge": 2}, **KINDS[kind])
    long, long_frames, long_ids = tiny.clip(audio, 12000)
    short, short_frames, short_ids = tiny.clip(audio, 7000, seed=1)
    rows = [[*tiny.words(3), *long_ids, *tiny.image_ids(vision), 5, 6], [*short_ids, *tiny.words(4, seed=1)]]
    features, lengths = tiny.pad([long, short])
    assert lengths.tolist() == long_frames + short_frames
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    media = {"pixel_values": pixels, "input_features": features, "feature_lengths": lengths}
    return {**tiny.batch(rows, left=True), **media}


def one() -> dict[str, torch.Tensor]:
    """One row: a clip, a picture and words."""
    both = two_clips()
    return {name: value[:1] for name, value in both.items()}


def picture() -> tuple[torch.Tensor, torch.Tensor]:
    """The ids of one more picture and a word, and its pixels."""
    ids = [*tiny.image_ids(tiny.vision("siglip")), 7]
    return torch.tensor([ids]), torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_every_attention_gives_the_same(kind: str, name: str) -> None:
    ours, inputs = model(kind), two_clips(kind)
    there = inputs["attention_mask"].bool()
    expected = ours(**inputs).logits[there]
    ours.set_attn_implementation(name)
    torch.testing.assert_close(ours(**inputs).logits[there], expected, atol=1e-4, rtol=1e-4)


def test_an_attention_that_is_asked_for_is_the_towers_too(tmp_path: Any) -> None:
    ours = model()
    ours.save_pretrained(tmp_path)
    found = type(ours).from_pretrained(tmp_path, attn_implementation="eager")
    parts = (found.language_model, found.vision.tower, found.audio.tower)
    assert [part.config._attn_implementation for part in parts] == ["eager"] * 3
    torch.testing.assert_close(found(**one()).logits, ours(**one()).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("given", ["all", "new ids", "all with media", "new ids with media"])
def test_generation_goes_on_from_a_cache_it_returned(given: str) -> None:
    ours, inputs = model(), one()
    first = ours.generate(**inputs, **{**GREEDY, "max_new_tokens": 3}, return_dict_in_generate=True)
    held = first["cache"] if "cache" in first else first["past_key_values"]
    row, media = first.sequences, {name: inputs[name] for name in ("input_features", "feature_lengths")}
    pixels = inputs["pixel_values"]
    if given == "new ids with media":
        ids, new_pixels = picture()
        row = torch.cat([row, ids], 1)
        given_now = {"input_ids": row[:, inputs["input_ids"].shape[1] + 2 :], "pixel_values": new_pixels}
        pixels = torch.cat([pixels, new_pixels])
    else:
        given_now = {"input_ids": row[:, -1:] if given == "new ids" else row}
        if given == "all with media":
            given_now |= {**media, "pixel_values": pixels}
    mask = torch.ones_like(row)
    anew = ours.generate(input_ids=row, attention_mask=mask, pixel_values=pixels, **media, **GREEDY)
    on = ours.generate(**given_now, attention_mask=mask, past_key_values=held, **GREEDY)
    assert on[:, -6:].tolist() == anew[:, -6:].tolist()


@pytest.mark.parametrize("draft", ["another model", "the prompt"])
def test_drafts_change_no_answer(draft: str) -> None:
    ours, inputs = model(), one()
    with torch.no_grad():  # what stands in the prompt is likely, placeholders too: drafts of any kind
        ours.get_output_embeddings().weight.mul_(0.3)
    options = {"prompt_lookup_num_tokens": 3} if draft == "the prompt" else {"assistant_model": model(seed=1)}
    assert ours.generate(**inputs, **GREEDY, **options).tolist() == ours.generate(**inputs, **GREEDY).tolist()


def test_media_are_encoded_once_however_many_beams() -> None:
    ours, inputs, calls = model(), one(), []
    ours.vision.register_forward_hook(lambda *_: calls.append(1))
    ours.generate(**inputs, **GREEDY, num_beams=3, num_return_sequences=2)
    assert len(calls) == 1


def test_a_cache_is_kept_only_where_it_is_asked_for() -> None:
    ours = model()
    out = {use: ours(**one(), use_cache=use) for use in (True, False)}
    names = {"cache", "past_key_values"}
    assert [any(out[use].get(name) is not None for name in names) for use in out] == [True, False]


def test_outputs_come_as_tuples_too() -> None:
    ours, inputs = model(), one()
    torch.testing.assert_close(ours(**inputs, return_dict=False)[0], ours(**inputs).logits)
    learned = {**inputs, "labels": inputs["input_ids"]}
    assert ours(**learned, return_dict=False)[0] == ours(**learned).loss


def test_the_model_without_its_head_gives_what_the_head_takes() -> None:
    ours, inputs = model(), one()
    hidden = ours.base_model(**inputs).last_hidden_state
    torch.testing.assert_close(ours.get_output_embeddings()(hidden), ours(**inputs).logits)


def test_features_of_media_are_what_the_model_puts_in_place() -> None:
    ours, inputs = model(), two_clips()
    images = ours.get_image_features(inputs["pixel_values"])
    torch.testing.assert_close(torch.cat(images.pooler_output), ours.embed_images(inputs["pixel_values"]))
    sounds = inputs["input_features"], inputs["feature_lengths"]
    audio = ours.get_audio_features(*sounds)
    torch.testing.assert_close(torch.cat(audio.pooler_output), ours.embed_audio(*sounds))
    assert images.last_hidden_state.shape[:2] == (1, 9) and len(audio.last_hidden_state) == 2
    assert isinstance(ours.get_image_features(inputs["pixel_values"], return_dict=False), tuple)


@pytest.mark.nightly
def test_a_model_with_sound_is_one_graph() -> None:
    """As a compiler that may not fall back sees it: for clips of other lengths too."""
    ours, inputs = model("qwen_audio"), two_clips("qwen_audio")
    torch.compiler.reset()
    traced = torch.compile(ours, backend="eager", fullgraph=True)
    swapped = {**inputs, "input_ids": inputs["input_ids"].flip(0), "attention_mask": inputs["attention_mask"].flip(0)}
    swapped |= {name: inputs[name].flip(0) for name in ("input_features", "feature_lengths")}
    for given in (inputs, swapped):
        there = given["attention_mask"].bool()
        expected = ours(**given, use_cache=False).logits[there]
        torch.testing.assert_close(traced(**given, use_cache=False).logits[there], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_model_can_be_exported() -> None:
    ours, inputs = model(), two_clips()
    program = torch.export.export(ours, (), {**inputs, "use_cache": False}, strict=False)
    got = program.module()(**inputs, use_cache=False).logits
    torch.testing.assert_close(got, ours(**inputs).logits, atol=1e-4, rtol=1e-4)
