"""Encoders equal transformers' own, and an item in a batch equals the item alone."""

import pytest
import tiny
import torch
from transformers import Wav2Vec2Model, WhisperModel

from marks import slow
from weft.models.config import AudioSection
from weft.models.encoders import IMAGES, image_kind, sound_kind


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "eva", "internvit"])
def test_image_towers_equal_transformers(kind):
    torch.manual_seed(0)
    encoder = image_kind(tiny.vision(kind, drop_cls=False)).build().eval()
    config_class, model_class = IMAGES[kind].config_class, IMAGES[kind].source_class
    reference = model_class(config_class(**tiny.VISION[kind])).eval()
    own = encoder.tower.state_dict()
    found = reference.state_dict()
    assert own.keys() <= found.keys()
    encoder.tower.load_state_dict({k: found[k] for k in own})
    pixels = torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(encoder(pixels), reference(pixels).last_hidden_state)


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "eva", "internvit"])
def test_a_chosen_layer_without_the_last_norm_is_that_hidden_state(kind):
    torch.manual_seed(0)
    encoder = image_kind(tiny.vision(kind, layer=-2, final_norm=False)).build().eval()
    config_class, model_class = IMAGES[kind].config_class, IMAGES[kind].source_class
    reference = model_class(config_class(**tiny.VISION[kind])).eval()
    found = reference.state_dict()
    encoder.tower.load_state_dict({k: found[k] for k in encoder.tower.state_dict()})
    pixels = torch.randn(2, 3, 24, 24)
    hidden = reference(pixels, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(encoder(pixels), hidden if kind == "siglip" else hidden[:, 1:])


def test_the_extra_norm_has_its_own_eps():
    encoder = image_kind(tiny.vision("eva", final_norm=False, extra_norm=1e-5)).build().eval()
    plain = image_kind(tiny.vision("eva", final_norm=False)).build().eval()
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if "extra_norm" not in k})
    pixels = torch.randn(1, 3, 24, 24)
    wanted = torch.nn.functional.layer_norm(plain(pixels), (16,), eps=1e-5)
    torch.testing.assert_close(encoder(pixels), wanted)


def test_the_last_norm_can_be_left_out():
    torch.manual_seed(0)
    without = image_kind(tiny.vision("eva", final_norm=False)).build()
    assert not any("post_layernorm" in name for name in without.state_dict())


def test_whisper_equals_transformers_over_a_whole_window():
    section = tiny.audio("whisper")
    torch.manual_seed(0)
    encoder = sound_kind(section).build().eval()
    reference = WhisperModel(sound_kind(section).config).eval().encoder
    encoder.tower.load_state_dict(reference.state_dict())
    mel = torch.randn(2, 100, 8)
    features, lengths = encoder(mel, torch.tensor([100, 100]))
    assert lengths.tolist() == [50, 50]
    torch.testing.assert_close(features, reference(mel.transpose(1, 2)).last_hidden_state)


def test_whisper_decoder_gives_the_states_of_its_start_tokens():
    section = tiny.audio("whisper_decoder")
    torch.manual_seed(0)
    encoder = sound_kind(section).build().eval()
    mel = torch.randn(1, 100, 8)
    features, lengths = encoder(mel, torch.tensor([100]))
    ids = torch.full((1, 6), 3)
    wanted = encoder.tower(input_features=mel.transpose(1, 2), decoder_input_ids=ids).last_hidden_state
    assert lengths.tolist() == [6]
    torch.testing.assert_close(features, wanted)


def test_llasms_tower_gives_the_released_states(shared):
    """The kit's Whisper fed the released code's way; its features are given for the first 400 frames of clip 0."""
    import json

    from safetensors.torch import load_file

    kit = shared / "parity" / "llasm"
    expected = load_file(kit / "expected.safetensors")
    config = json.loads((kit / "whisper" / "config.json").read_text())
    section = AudioSection(kind="whisper_decoder", config=config, decoder_tokens=64, pad_to_window=True)
    encoder = sound_kind(section).build().eval()
    weights = torch.load(kit / "whisper" / "pytorch_model.bin", weights_only=True)
    own = encoder.tower.state_dict()
    encoder.tower.load_state_dict(
        {k.removeprefix("model."): v for k, v in weights.items() if k.removeprefix("model.") in own}
    )
    heard = expected["frontend/feat0"][0].T
    mel = heard.min().expand(3000, 80).clone()  # silence is the floor of the log-mel
    mel[: len(heard)] = heard
    with torch.no_grad():
        states, lengths = encoder(mel[None], torch.tensor([3000]))
    assert lengths.tolist() == [64]
    torch.testing.assert_close(states, expected["tower/out0"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_wav2vec2_equals_transformers(norm):
    section = tiny.audio("wav2vec2", config={"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"})
    torch.manual_seed(0)
    encoder = sound_kind(section).build().eval()
    assert isinstance(encoder.tower, Wav2Vec2Model)
    wave = torch.randn(1, 900)
    features, lengths = encoder(wave, torch.tensor([900]))
    torch.testing.assert_close(features, encoder.tower(wave).last_hidden_state)
    assert lengths.item() == features.shape[1]


BATCHES = [
    ("whisper", {}),
    ("qwen_audio", {}),
    ("qwen2_audio", {}),
    ("wav2vec2", {"config": {"feat_extract_norm": "group"}}),
    ("wav2vec2", {"config": {"feat_extract_norm": "layer", "do_stable_layer_norm": True}, "normalize": True}),
    ("wav2vec2", {"config": {"add_adapter": True, "output_hidden_size": 16, "num_adapter_layers": 1}}),
]


@pytest.mark.parametrize(("kind", "fields"), BATCHES)
@pytest.mark.parametrize(
    "connector",
    [
        {"merge": 3},
        slow({"kind": "pool", "merge": 3}),
        {"kind": "queries", "queries": 3},
    ],
)
def test_a_clip_in_a_batch_equals_the_clip_alone(kind, fields, connector):
    section = tiny.audio(kind, connector, **fields)
    model = tiny.model(audio=section)
    clips = [tiny.clip(section, n, seed=n)[0] for n in (16000, 3333, 9999, 3333)]
    alone = [model.embed_audio(c[None], torch.tensor([len(c)])) for c in clips]
    # whatever fills up the batch must not matter, not even what is not a number
    for fill in (0.0, 7.0, torch.nan):
        features, lengths = tiny.pad(clips, fill)
        torch.testing.assert_close(model.embed_audio(features, lengths), torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_gradients_of_a_batch_are_those_of_its_clips():
    section = tiny.audio("whisper", {"merge": 2})
    model = tiny.model(audio=section).train()
    clips = [tiny.clip(section, n, seed=n)[0] for n in (8000, 3333)]
    features, lengths = tiny.pad(clips)
    model.embed_audio(features, lengths).square().sum().backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for c in clips:
        model.embed_audio(c[None], torch.tensor([len(c)])).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(together[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_qwen_audio_pools_before_its_last_norm():
    section = tiny.audio("qwen_audio")
    encoder = sound_kind(section).build().eval()
    mel, lengths = torch.randn(1, 20, 8), torch.tensor([20])
    hidden, _ = encoder.encode(mel, lengths, lengths)
    pooled = hidden.unflatten(1, (5, 2)).mean(2)
    torch.testing.assert_close(encoder(mel, lengths)[0], encoder.tower.layer_norm(pooled))


def test_leaking_changes_only_short_clips_of_a_batch():
    section = tiny.audio("qwen_audio", batch_leak=True)
    encoder = sound_kind(section).build().eval()
    clips = [tiny.clip(section, n, seed=n)[0] for n in (12000, 3333)]
    features, lengths = tiny.pad(clips)
    together, _ = encoder(features, lengths)
    alone = [encoder(c[None], torch.tensor([len(c)]))[0][0] for c in clips]
    torch.testing.assert_close(together[0, : len(alone[0])], alone[0])
    assert (together[1, : len(alone[1])] - alone[1]).abs().max() > 1e-3
