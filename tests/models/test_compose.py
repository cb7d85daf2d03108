"""Models composed from sources keep their weights; small ones repeat by their seed; both are whole folders."""

import json

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoProcessor,
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    SiglipConfig,
    SiglipModel,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from weft.conversation import WeftError
from weft.models.attention import packing_problem
from weft.models.bytes_tokenizer import bytes_tokenizer
from weft.models.compose import compose, scale_waves
from weft.models.config import Connector
from weft.models.plan import plan
from weft.models.rendering import Renderer

LANGUAGE = {"config": {k: v for k, v in tiny.text().items() if not k.endswith("token_id") and k != "vocab_size"}}
VISION = {"kind": "conv", "config": tiny.VISION["conv"], "options": {"size": (24, 24)}, "connector": {"merge": 4}}
AUDIO = {"config": {**tiny.WHISPER, "num_mel_bins": 80}, "connector": {"merge": 2}}


def messages():
    return [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": Image.new("RGB", (30, 20), "red")},
                {"type": "audio", "audio": np.random.default_rng(0).normal(size=20000).astype("float32")},
                {"type": "text", "text": "what is this?"},
            ],
        }
    ]


def inputs(processor):
    return processor.apply_chat_template(
        messages(), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )


def test_a_small_model_is_decided_by_its_seed():
    one, two, other = (compose(VISION, AUDIO, LANGUAGE, seed=s)[0].state_dict() for s in (3, 3, 4))
    assert all(torch.equal(one[k], two[k]) for k in one)
    for part in ("language_model", "vision", "vision_connector", "audio", "audio_connector"):
        assert any(not torch.equal(one[k], other[k]) for k in one if k.startswith(part + "."))


def test_composing_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    compose(None, None, LANGUAGE)
    assert torch.equal(torch.rand(3), wanted)


def test_a_composed_model_answers_and_its_folder_does_too(tmp_path):
    model, processor = compose(VISION, AUDIO, LANGUAGE)
    given = inputs(processor)
    out = model.generate(**given, max_new_tokens=3, do_sample=False)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, processor = AutoModelForMultimodalLM.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert again.generate(**inputs(processor), max_new_tokens=3, do_sample=False).tolist() == out.tolist()
    assert again.generation_config.eos_token_id == processor.stop_ids


@pytest.fixture(scope="module")
def language_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    torch.manual_seed(0)
    fields = {k: v for k, v in tiny.TEXT.items() if k != "vocab_size"}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**fields, vocab_size=1025, tie_word_embeddings=False))
    model.save_pretrained(folder)
    bytes_tokenizer().save_pretrained(folder)
    return folder, model


def test_a_new_placeholder_starts_as_an_ellipsis_where_that_is_one_token(language_folder, monkeypatch):
    """A mean of all rows is the likeliest of none, whatever is heard."""
    folder, _ = language_folder
    encode = Renderer.encode_text
    monkeypatch.setattr(Renderer, "encode_text", lambda self, text: [46] if text == " ..." else encode(self, text))
    model, processor = compose(VISION, AUDIO, str(folder))
    rows = model.get_input_embeddings().weight
    for name in ("image_token_id", "audio_token_id"):
        torch.testing.assert_close(rows[processor.token_ids[name]], rows[46])


def test_places_are_added_as_many_times_as_the_connector_says():
    given = []
    for places in (0.0, 0.5, 1.0):
        audio = {**AUDIO, "connector": {"merge": 2, "places": places}}
        dialect = {"name": "chatml", "switches": {"window_seconds": 1.0}}
        model, _ = compose(None, audio, LANGUAGE, dialect=dialect)
        given.append(model.embed_audio(torch.zeros(1, 40, model.sound_kind.bands)))
    assert (given[2] - given[0]).abs().max() > 0.01
    torch.testing.assert_close(given[1], (given[0] + given[2]) / 2)


def test_a_language_model_keeps_its_weights_and_new_tokens_start_at_the_mean(language_folder):
    folder, source = language_folder
    model, processor = compose(VISION, None, str(folder))
    known = len(bytes_tokenizer())
    own = model.language_model.state_dict()
    for name, wanted in source.state_dict().items():
        torch.testing.assert_close(
            own[name][:known] if "embed" in name or "head" in name else own[name], wanted[:known]
        )
    rows = model.get_input_embeddings().weight
    assert len(rows) >= len(processor.tokenizer) > known
    new = processor.tokenizer.convert_tokens_to_ids("<|im_start|>")
    torch.testing.assert_close(rows[new], rows[:known].mean(0))
    ids = torch.tensor([tiny.words(9)])
    source.set_attn_implementation("sdpa")
    logits = model(input_ids=ids).logits
    torch.testing.assert_close(logits[..., :known], source(input_ids=ids).logits[..., :known])
    nobodys = logits[..., len(processor.tokenizer) :]  # rows that only fill the table up: no answer holds one
    assert nobodys.numel() and (nobodys < logits[..., :known].amax(-1, keepdim=True)).all()
    torch.testing.assert_close(nobodys, logits[..., :known].mean(-1, keepdim=True).expand_as(nobodys))
    assert packing_problem(model.language_model) is None  # weft's attention


def test_a_saved_folder_does_not_carry_where_its_parts_lay(language_folder, tmp_path):
    folder, _ = language_folder
    model, processor = compose(language=str(folder))
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    texts = [file.read_text() for file in (tmp_path / "saved").iterdir() if file.suffix in (".json", ".md", ".jinja")]
    assert texts and not any(str(folder) in text for text in texts)


def vision_source(kind, folder):
    fields = tiny.VISION[kind]
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 32,
    }
    torch.manual_seed(0)
    if kind == "clip":
        model = CLIPModel(CLIPConfig(vision_config=fields, text_config=text))
        tower = model.vision_model
    elif kind == "siglip":
        model = SiglipModel(SiglipConfig(vision_config=fields, text_config=text))
        tower = model.vision_model
    elif kind == "eva":
        qformer = {**text, "encoder_hidden_size": 16}
        config = Blip2Config(vision_config=fields, qformer_config=qformer, text_config={"model_type": "llama", **text})
        model = Blip2ForConditionalGeneration(config)
        tower = model.vision_model if hasattr(model, "vision_model") else model.model.vision_model
    else:
        model = tower = Dinov2Model(Dinov2Config(**fields))
    model.save_pretrained(folder)
    prepared = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5], "resample": 2}
    sizes = {"do_center_crop": True, "crop_size": {"height": 24, "width": 24}, "size": {"shortest_edge": 30}}
    prepared |= sizes if kind == "clip" else {"size": 24}
    if kind == "siglip":  # where transformers 5 writes it
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": prepared}))
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    return tower.eval()


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "eva"])
def test_an_image_encoder_keeps_its_weights_and_preprocessing(kind, tmp_path):
    tower = vision_source(kind, tmp_path)
    model, _ = compose({"source": str(tmp_path), "connector": {"kind": "mlp", "merge": 3}}, None, LANGUAGE)
    section = model.config.vision_section
    assert (section.kind, section.size, section.mean, section.resample) == (kind, (24, 24), (0.1, 0.2, 0.3), "bilinear")
    pixels = torch.randn(1, 3, 24, 24)
    wanted = tower(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(model.vision(pixels), wanted if kind == "siglip" else wanted[:, 1:])


def test_llavas_choice_of_layer_is_an_option(tmp_path):
    tower = vision_source("clip", tmp_path)
    model, _ = compose({"source": str(tmp_path), "options": {"layer": -2}}, None, LANGUAGE)
    pixels = torch.randn(1, 3, 24, 24)
    wanted = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    torch.testing.assert_close(model.vision(pixels), wanted)


def test_whisper_keeps_its_weights_and_hears_clips_as_they_are(tmp_path):
    torch.manual_seed(0)
    source = WhisperForConditionalGeneration(WhisperConfig(**tiny.WHISPER)).eval()
    source.save_pretrained(tmp_path)
    mel = torch.randn(1, 100, 8)
    model, _ = compose(None, str(tmp_path), LANGUAGE)
    section = model.config.audio_section
    assert not section.pad_to_window and section.window_seconds == 1.0
    wanted = source.model.encoder(mel.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(model.audio(mel, torch.tensor([100]))[0], wanted)
    model, _ = compose(
        None, {"source": str(tmp_path), "kind": "whisper_decoder", "options": {"decoder_tokens": 5}}, LANGUAGE
    )
    wanted = source.model(mel.transpose(1, 2), decoder_input_ids=torch.full((1, 5), 3)).last_hidden_state
    torch.testing.assert_close(model.audio(mel, torch.tensor([100]))[0], wanted)


def test_how_much_is_merged_is_chosen_unless_it_is_said(tmp_path):
    """And stands in the folder, whatever a later version would choose."""
    heard = {"config": {**tiny.WHISPER, "num_mel_bins": 80}}
    for asked, merge in ((Connector().model_dump(), 4), ({"merge": 1}, 1), (Connector(kind="mlp"), 4)):
        config, processor = plan(None, {**heard, "connector": asked}, LANGUAGE)
        assert config.audio_section.connector.merge == processor.audio.connector.merge == merge
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["audio"]["connector"]["merge"] == 4


def test_a_waveform_model_keeps_its_weights(tmp_path):
    torch.manual_seed(0)
    source = Wav2Vec2ForCTC(Wav2Vec2Config(**tiny.WAV2VEC2, vocab_size=20)).eval()
    source.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "sampling_rate": 16000}))
    model, _ = compose(None, {"source": str(tmp_path), "connector": {"merge": 4}}, LANGUAGE)
    assert not model.config.audio_section.normalize
    wave = torch.randn(1, 800)
    wanted = source.wav2vec2(wave).last_hidden_state
    torch.testing.assert_close(model.audio(wave, torch.tensor([800]))[0], wanted)


def test_towers_of_whole_models_keep_their_weights(tmp_path):
    """Of an InternVL and of a Qwen2-Audio, whose towers transformers does not find by itself."""
    text = {k: v for k, v in tiny.text("qwen2").items() if k != "layer_types"}
    torch.manual_seed(0)
    sees = InternVLForConditionalGeneration(InternVLConfig(vision_config=tiny.VISION["internvit"], text_config=text))
    tower = {k: v for k, v in tiny.WHISPER.items() if k in Qwen2AudioConfig().audio_config.to_dict()}
    hears = Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(audio_config={**tower, "model_type": "qwen2_audio_encoder"}, text_config=text)
    )
    for name, source in (("sees", sees), ("hears", hears)):
        source.eval().save_pretrained(tmp_path / name)
    prepared = {"image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 24, "width": 24}, "max_patches": 4}
    (tmp_path / "sees" / "preprocessor_config.json").write_text(json.dumps({**prepared, "crop_to_patches": True}))
    model, _ = compose(str(tmp_path / "sees"), str(tmp_path / "hears"), LANGUAGE)
    assert (model.config.vision_section.tiles, model.config.audio_section.kind) == (4, "qwen2_audio")
    pixels, mel = torch.randn(1, 3, 24, 24), torch.randn(1, 100, 8)
    torch.testing.assert_close(model.vision(pixels), sees.model.vision_tower(pixels).last_hidden_state[:, 1:])
    wanted = hears.model.audio_tower(mel.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(model.audio(mel, torch.tensor([100]))[0], wanted)


def test_neighbours_on_a_scale_start_alike():
    waves = scale_waves(100, 32)
    likeness = torch.nn.functional.cosine_similarity(waves[:-1], waves[1:])
    far = torch.nn.functional.cosine_similarity(waves[:50], waves[50:])
    assert likeness.min() > far.mean() and likeness.mean() > 0.5
    model, processor = compose(None, None, LANGUAGE)
    scale = processor.dialect.ordered_tokens()[0]
    rows = model.get_input_embeddings().weight[processor.tokenizer.convert_tokens_to_ids(scale)]
    assert torch.nn.functional.cosine_similarity(rows[:-1], rows[1:]).mean() > 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give a language model"),
        ({"language": {"source": "a", "config": {"model_type": "llama"}}}, "either source .* or config"),
        ({"language": {"model": "x"}}, "unknown field 'model'"),
        ({"language": LANGUAGE, "vision": {**VISION, "options": {"sise": 3}}}, "unknown field 'sise'; there are"),
        ({"language": LANGUAGE, "vision": {"kind": "clop", "config": {}}}, "vision: give a source .* or a config"),
        ({"language": LANGUAGE, "vision": {"kind": "clop", "config": {"a": 1}}}, "vision: kind"),
        ({"language": {"config": {"model_type": "llama", "vocab_size": 10}}}, "vocab_size is 10"),
        ({"language": LANGUAGE, "audio": "./no/such/folder"}, "cannot read config.json"),
        ({"language": "./no/such/folder"}, "no tokenizer could be loaded"),
        ({"language": LANGUAGE, "dialect": "klingon"}, "klingon"),
    ],
)
def test_mistakes_are_said_in_one_sentence(arguments, message):
    with pytest.raises(WeftError, match=message):
        compose(**arguments)


def test_a_source_of_another_kind_is_refused(language_folder, tmp_path):
    with pytest.raises(WeftError, match="model_type 'llama' is no image encoder"):
        compose(str(language_folder[0]), None, LANGUAGE)
    with pytest.raises(WeftError, match="model_type 'llama' is no sound encoder"):
        compose(None, str(language_folder[0]), LANGUAGE)
    vision_source("dinov2", tmp_path)
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("encoder.layer.0.norm1.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeftError, match="1 weights of the encoder are missing"):
        compose(str(tmp_path), None, LANGUAGE)
