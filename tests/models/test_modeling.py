"""The composed model: splice, batches, caches, beams, gradients, saving."""

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM

from weft.conversation import WeftError
from weft.models.attention import packing_problem
from weft.models.modeling import WeftForConditionalGeneration
from weft.training.recipe import PART_NAMES

PICTURE, SOUND = tiny.vision(connector={"merge": 4}), tiny.audio("whisper", {"merge": 2})


@pytest.fixture(scope="module")
def model():
    return tiny.model(vision=PICTURE, audio=SOUND)


@pytest.fixture(scope="module")
def rows():
    """Three rows: two images; text only; a clip, an image and a clip. With their media, row by row."""
    torch.manual_seed(1)
    pixels = torch.randn(3, 3, 24, 24)
    clips = [tiny.clip(SOUND, n, n) for n in (4000, 9000)]
    image = tiny.image_ids(PICTURE)
    ids = [
        tiny.words(2) + image + tiny.words(1) + image + tiny.words(3),
        tiny.words(8, 4),
        clips[0][2] + image + clips[1][2] + tiny.words(2),
    ]
    media = [
        {"pixel_values": pixels[:2]},
        {},
        {
            "pixel_values": pixels[2:],
            **dict(zip(("input_features", "feature_lengths"), tiny.pad([c[0] for c in clips]), strict=True)),
        },
    ]
    together = {"pixel_values": pixels, **{k: v for k, v in media[2].items() if k != "pixel_values"}}
    return ids, media, together


def test_media_take_the_places_of_their_tokens(model, rows):
    ids, media, _ = rows
    embedded = model.embed(torch.tensor([ids[0]]), **media[0])[0]
    at = torch.tensor(ids[0]) == tiny.IMAGE
    torch.testing.assert_close(embedded[at], model.embed_images(media[0]["pixel_values"]))
    torch.testing.assert_close(embedded[~at], model.get_input_embeddings()(torch.tensor(ids[0])[~at]))


@pytest.mark.parametrize("left", [True, False])
def test_rows_of_a_batch_equal_the_rows_alone(model, rows, left):
    ids, media, together = rows
    batch = tiny.batch(ids, left)
    logits = model(**batch, **together).logits
    for row, mask, one, extra in zip(logits, batch["attention_mask"].bool(), ids, media, strict=True):
        torch.testing.assert_close(
            row[mask], model(input_ids=torch.tensor([one]), **extra).logits[0], rtol=1e-4, atol=1e-5
        )


def test_wrong_counts_say_both_numbers(model, rows):
    ids, media, _ = rows
    with pytest.raises(WeftError, match="the text has 6 image tokens and the media given make 3 image"):
        model(input_ids=torch.tensor([ids[0]]), pixel_values=media[0]["pixel_values"][:1])
    with pytest.raises(WeftError, match="6 image tokens and the media given make 0"):
        model(input_ids=torch.tensor([ids[0]]))
    with pytest.raises(WeftError, match="3x20x24.*3x24x24"):
        model(input_ids=torch.tensor([ids[0]]), pixel_values=torch.zeros(2, 3, 20, 24))
    with pytest.raises(WeftError, match="no audio encoder"):
        tiny.model()(input_ids=torch.tensor([tiny.words(3)]), input_features=torch.zeros(1, 10, 8))


def test_steps_with_a_cache_equal_one_forward(model, rows):
    ids, media, _ = rows
    whole = model(input_ids=torch.tensor([ids[2]]), **media[2]).logits[0]
    n = len(ids[2]) - 2
    out = model(input_ids=torch.tensor([ids[2][:n]]), **media[2], use_cache=True)
    steps = [out.logits[0]]
    for token in ids[2][n:]:
        out = model(input_ids=torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
        steps.append(out.logits[0])
    torch.testing.assert_close(torch.cat(steps), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "use_cache": False}, {"use_cache": False}])
def test_generation_in_a_batch_equals_generation_alone(model, rows, options):
    ids, media, together = rows
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, **options}
    batch = tiny.batch(ids, left=True)
    out = model.generate(**batch, **together, **options)
    for row, one, extra in zip(out, ids, media, strict=True):
        alone = model.generate(input_ids=torch.tensor([one]), **extra, **options)
        assert row.tolist()[-5:] == alone[0].tolist()[-5:]
        assert alone[0].tolist()[: len(one)] == one  # the prompt comes back in front, as of any transformers model


def test_with_and_without_a_cache_generation_is_the_same(model, rows):
    ids, media, _ = rows
    options = {
        "max_new_tokens": 6,
        "do_sample": False,
        "pad_token_id": 0,
        "input_ids": torch.tensor([ids[0]]),
        **media[0],
    }
    assert model.generate(**options).tolist() == model.generate(**options, use_cache=False).tolist()


def test_several_answers_to_one_prompt(model, rows):
    ids, media, _ = rows
    torch.manual_seed(0)
    out = model.generate(
        input_ids=torch.tensor([ids[0]]),
        **media[0],
        max_new_tokens=3,
        do_sample=True,
        num_return_sequences=3,
        pad_token_id=0,
    )
    assert out.shape == (3, len(ids[0]) + 3)


def test_beams_find_what_an_exhaustive_search_finds(rows):
    """Two images in one row, two steps, as many beams as there are tokens: the best pair of tokens is found."""
    ids, media, _ = rows
    model = tiny.model(vision=PICTURE)
    inputs = {"input_ids": torch.tensor([ids[0]]), **media[0]}
    with torch.no_grad():
        first = model(**inputs).logits[0, -1].log_softmax(-1)
        rows_ = torch.tensor([ids[0] + [t] for t in range(tiny.VOCABULARY)])
        embeds = torch.cat(
            [model.embed(**inputs).expand(len(rows_), -1, -1), model.get_input_embeddings()(rows_[:, -1:])], 1
        )
        second = model(inputs_embeds=embeds).logits[:, -1].log_softmax(-1)
    best = (first[:, None] + second).flatten().argmax().item()
    out = model.generate(**inputs, max_new_tokens=2, num_beams=tiny.VOCABULARY, do_sample=False, pad_token_id=0)
    assert out[0, -2:].tolist() == [best // tiny.VOCABULARY, best % tiny.VOCABULARY]


def test_text_only_batches_leave_encoders_without_gradients(model, rows):
    model.zero_grad()
    text = torch.tensor([tiny.words(6)])
    model(input_ids=text, labels=text).loss.backward()
    assert all(p.grad is None for name in ("vision", "audio") for m in model.part(name) for p in m.parameters())
    assert all(p.grad is not None for m in model.part("language") for p in m.parameters())
    model.zero_grad()


def test_parts_asked_for_get_zero_gradients_where_a_batch_lacks_them(rows):
    for section in (
        SOUND,
        tiny.audio("qwen_audio", boundaries=True),
        tiny.audio("wav2vec2"),
        tiny.audio("whisper_decoder"),
    ):
        model = tiny.model(vision=PICTURE, audio=section)
        text = torch.tensor([tiny.words(6)])
        plain = model(input_ids=text, labels=text).loss
        model.always_encode = ("vision", "audio")
        loss = model(input_ids=text, labels=text).loss
        loss.backward()
        assert loss == plain
        for name in PART_NAMES[:4]:
            for module in model.part(name):
                for parameter_name, p in module.named_parameters():
                    if p.requires_grad:
                        assert p.grad is not None and not p.grad.any(), f"{name}.{parameter_name}"


def test_a_mixed_batch_has_the_gradients_of_its_rows(model, rows):
    ids, media, together = rows
    batch = tiny.batch(ids)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    model.zero_grad()
    model(**batch, **together, labels=labels).loss_sum.backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for one, extra in zip(ids, media, strict=True):
        model(input_ids=torch.tensor([one]), labels=torch.tensor([one]), **extra).loss_sum.backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(wanted[name], p.grad, rtol=1e-4, atol=2e-5)
    model.zero_grad()


@pytest.mark.parametrize("kind", ["qwen_audio", "whisper"])
def test_learned_boundaries_stand_at_start_and_end_and_their_tokens_get_no_gradient(kind):
    section = tiny.audio(kind, boundaries=True)
    model = tiny.model(audio=section)
    features, length, span = tiny.clip(section, 8000)
    ids = tiny.words(2) + span + tiny.words(3)
    embedded = model.embed(torch.tensor([ids]), input_features=features[None])[0]
    torch.testing.assert_close(embedded[2], model.audio.boundaries.weight[0])
    torch.testing.assert_close(embedded[1 + len(span)], model.audio.boundaries.weight[1])
    labels = torch.tensor([[-100] * 8 + ids[8:]])
    model(input_ids=torch.tensor([ids]), input_features=features[None], labels=labels).loss.backward()
    assert not model.get_input_embeddings().weight.grad[[tiny.START, tiny.END, tiny.AUDIO]].any()
    assert model.audio.boundaries.weight.grad.any()
    with pytest.raises(WeftError, match=f"{len(span) - 1} audio tokens and the media given make {len(span)} audio"):
        model(input_ids=torch.tensor([ids[: ids.index(tiny.END)]]), input_features=features[None])


def test_a_folder_comes_back_as_it_was(model, rows, tmp_path):
    ids, media, _ = rows
    model.save_pretrained(tmp_path)
    inputs = {"input_ids": torch.tensor([ids[2]]), **media[2]}
    wanted = model(**inputs).logits
    for auto in (AutoModelForMultimodalLM, AutoModelForImageTextToText, AutoModelForCausalLM):
        again = auto.from_pretrained(tmp_path)
        assert type(again) is WeftForConditionalGeneration
        assert torch.equal(again(**inputs).logits, wanted)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.vision_section == PICTURE and config.audio_section == SOUND
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"language_model", "vision", "vision_connector", "audio", "audio_connector"}


@pytest.mark.parametrize("family", ["gemma2", "weft_qwen", "qwen3"])
def test_every_family_comes_back_with_its_attention(family, tmp_path):
    model = tiny.model(family, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    assert packing_problem(again.language_model) is None  # weft's attention
    assert again.get_input_embeddings().weight is again.get_output_embeddings().weight
    ids = torch.tensor([tiny.words(12)])
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    eager = AutoModelForMultimodalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert "attn_implementation='eager'" in packing_problem(eager.language_model)
    torch.testing.assert_close(eager(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_embeddings_can_be_resized_and_stay_tied(tmp_path):
    model = tiny.model(tie_word_embeddings=True)
    ids = torch.tensor([tiny.words(5)])
    before = model(input_ids=ids).logits
    model.resize_token_embeddings(400)
    assert model.config.text_config.vocab_size == 400
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    torch.testing.assert_close(model(input_ids=ids).logits[..., : tiny.VOCABULARY], before)
    model.save_pretrained(tmp_path)
    assert AutoModelForMultimodalLM.from_pretrained(tmp_path)(input_ids=ids).logits.shape[-1] == 400


def test_a_model_in_bfloat16_takes_float32_media(model, rows):
    ids, media, _ = rows
    half = tiny.model(vision=PICTURE, audio=SOUND).to(torch.bfloat16)
    logits = half(input_ids=torch.tensor([ids[2]]), **media[2]).logits
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


def test_parts_are_found_by_name(model):
    assert {name: len(model.part(name)) for name in PART_NAMES} == dict.fromkeys(PART_NAMES, 1)
    assert tiny.model().part("vision") == []


def test_the_trainers_count_divides_the_loss(model):
    ids = torch.tensor([tiny.words(6)])
    out = model(input_ids=ids, labels=ids, num_items_in_batch=10)
    torch.testing.assert_close(out.loss, out.loss_sum / 10)
