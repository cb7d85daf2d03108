"""How a source prepares its media is read exactly, or refused by the setting's name; nothing of it is guessed."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, WhisperConfig, WhisperFeatureExtractor, WhisperModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from weft.conversation import WeftError
from weft.media import resize_normalize
from weft.models.compose import compose
from weft.models.preparation import check_sound, pictures

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 36, 3), dtype=np.uint8))
LANGUAGE = {"config": {k: v for k, v in tiny.text().items() if not k.endswith("token_id") and k != "vocab_size"}}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 61.0, 62.0]},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": 1.0},
        {"rescale_factor": 2.0, "do_normalize": False},
        {"image_mean": 0.25, "image_std": 0.125},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"resample": 1},
        {"resample": 2},
        {"size": [20, 28]},
        {"size": {"height": 20, "width": 28}},
        {"do_convert_rgb": False},
    ],
)
def test_what_can_be_said_is_as_in_transformers(settings: dict) -> None:
    raw = {"image_processor_type": "SiglipImageProcessor", **settings}
    fields = pictures(raw, "a/b")
    size, mean, std, resample = (fields[k] for k in ("size", "mean", "std", "resample"))
    want = SiglipImageProcessorPil(**settings)(PICTURE, return_tensors="np")["pixel_values"][0]
    got = resize_normalize(PICTURE, size, mean, std, resample)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", ["CLIPImageProcessor", "CLIPFeatureExtractor", "CLIPImageProcessorFast"])
def test_a_crop_s_size_is_taken_and_a_class_s_own_defaults(name: str) -> None:
    usual = CLIPImageProcessorPil()
    fields = pictures({"image_processor_type": name}, "a/b")
    assert fields == {
        "size": (224, 224),
        "mean": tuple(usual.image_mean),
        "std": tuple(usual.image_std),
        "resample": "bicubic",
    }
    assert pictures({"feature_extractor_type": name, "size": 28, "crop_size": 24}, "a/b")["size"] == (24, 24)
    crop = {"size": {"shortest_edge": 30}, "crop_size": {"height": 20, "width": 24}}
    assert pictures({"image_processor_type": name, **crop}, "a/b")["size"] == (20, 24)
    for size in (20, [20, 20], {"height": 20, "width": 20, "shortest_edge": None}):
        assert pictures({"image_processor_type": "ViTFeatureExtractor", "size": size}, "a/b")["size"] == (20, 20)
    raw = {"do_center_crop": True, "size": {"height": 30, "width": 40}, "crop_size": [20, 24]}
    assert pictures({**raw, "do_normalize": False, "resample": 3}, "a/b")["size"] == (20, 24)


@pytest.mark.parametrize("size", [224, {"shortest_edge": 224}, {"shortest_edge": 384}])
def test_what_convnext_crops_or_squeezes_reaches_the_encoder_whole(size) -> None:
    """ResNet's and ConvNeXt's: below 384 the middle of a larger picture, from there on a square of all of it."""
    raw = {"feature_extractor_type": "ConvNextFeatureExtractor", "size": size, "crop_pct": 0.875}
    edge = size if isinstance(size, int) else size["shortest_edge"]
    assert pictures(raw, "a/b") == {"size": (edge, edge), "mean": (0.5,) * 3, "std": (0.5,) * 3, "resample": "bicubic"}
    with pytest.raises(WeftError, match="crop_pct"):
        pictures(raw, "a/b", cropped=True)


@pytest.mark.parametrize(
    ("settings", "named", "instead"),
    [
        ({"do_resize": False}, "do_resize of its preprocessor is False", {"size": (24, 24)}),
        ({"size": {"longest_edge": 32}}, "size", {"size": (24, 24)}),
        ({"size": {"shortest_edge": 24}}, "size", {"size": (24, 24)}),
        ({"size": {"shortest_edge": 24, "longest_edge": 32}}, "size", {"size": (24, 24)}),
        ({"size": {"max_height": 24, "max_width": 32}}, "size", {"size": (24, 24)}),
        ({"size": {"height": 24}}, "size", {"size": (24, 24)}),
        ({"image_processor_type": "SiglipImageProcessor", "size": 24}, "size", {"size": (24, 24)}),
        ({"size": "large"}, "size", {"size": (24, 24)}),
        ({"do_center_crop": True, "size": {"shortest_edge": 24}}, "crop_size .* is not given", {"size": (24, 24)}),
        ({"do_center_crop": True, "size": {"shortest_edge": 20}, "crop_size": 24}, "size", {"size": (24, 24)}),
        ({"do_center_crop": True, "size": {"longest_edge": 32}, "crop_size": 24}, "size", {"size": (24, 24)}),
        ({"do_pad": True}, "do_pad", {"size": (24, 24)}),
        ({"do_flip_channel_order": True}, "do_flip_channel_order", {"size": (24, 24)}),
        ({"do_image_splitting": True}, "do_image_splitting", {"size": (24, 24)}),
        ({"crop_pct": 0.9}, "crop_pct", {"size": (24, 24)}),
        ({"rescale_factor": 0}, "rescale_factor", {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
        ({"image_mean": [0.5, 0.5]}, "image_mean", {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
        ({"image_mean": None}, "image_mean of its preprocessor is not given", {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std", {"mean": (0.5,) * 3, "std": (0.5,) * 3}),
        ({"resample": 0}, "resample of its preprocessor is 0", {"resample": "bilinear"}),
        ({"resample": 4}, "resample", {"resample": "bilinear"}),
        ({"resample": None}, "resample", {"resample": "bilinear"}),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_name_unless_an_option_says_it(settings, named, instead) -> None:
    raw = {"size": {"height": 24, "width": 24}, "image_mean": 0.5, "image_std": 0.5, "resample": 2, **settings}
    with pytest.raises(WeftError, match=f"^a/b: {named}.* which weft cannot follow; say what is meant"):
        pictures(raw, "a/b")
    fields = pictures(raw, "a/b", instead)
    assert not set(fields) & set(instead)


def test_settings_of_a_class_that_is_not_known_are_to_be_there() -> None:
    with pytest.raises(WeftError, match="image_mean of its preprocessor is not given"):
        pictures({"image_processor_type": "OddImageProcessor", "size": 24, "resample": 2}, "a/b")
    assert pictures({}, "a/b") == {}


def source(folder: Path, kind: str, **prepared) -> str:
    if kind == "whisper":
        WhisperModel(WhisperConfig(**tiny.WHISPER)).save_pretrained(folder)
    else:
        Wav2Vec2ForCTC(Wav2Vec2Config(**tiny.WAV2VEC2, vocab_size=20)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    return str(folder)


def test_whisper_s_own_extractor_is_what_weft_computes(tmp_path: Path) -> None:
    usual = WhisperFeatureExtractor(feature_size=80).to_dict()
    check_sound(usual, {"num_mel_bins": 80, "max_source_positions": 1500}, "a/b")
    section = compose(None, source(tmp_path, "whisper", chunk_length=1, feature_size=8), LANGUAGE)[1].audio
    assert section is not None and section.window_seconds == 1


@pytest.mark.parametrize(
    ("settings", "instead"),
    [
        ({"hop_length": 320}, None),
        ({"n_fft": 512}, None),
        ({"sampling_rate": 8000}, None),
        ({"feature_size": 80}, None),
        ({"padding_value": 1.0}, None),
        ({"padding_side": "left"}, None),
        ({"dither": 0.5}, None),
        ({"feature_extractor_type": "SeamlessM4TFeatureExtractor"}, None),
        ({"chunk_length": 30}, {"window_seconds": 1.0}),
    ],
)
def test_another_log_mel_is_refused_by_the_setting(settings: dict, instead: dict | None, tmp_path: Path) -> None:
    folder = source(tmp_path, "whisper", feature_extractor_type="WhisperFeatureExtractor", return_attention_mask=True)
    folder = source(tmp_path, "whisper", **{"feature_size": 8, **settings})
    with pytest.raises(WeftError, match=f"{next(iter(settings))} of its preprocessor is"):
        compose(None, folder, LANGUAGE)
    if instead is not None:
        compose(None, {"source": folder, "options": instead}, LANGUAGE)


def test_waveforms_are_read_with_their_rate_and_normalisation(tmp_path: Path) -> None:
    for mask in (True, False):  # weft keeps clips apart either way
        settings = {"do_normalize": False, "sampling_rate": 8000, "return_attention_mask": mask}
        section = compose(None, source(tmp_path, "wav2vec2", **settings), LANGUAGE)[1].audio
        assert section is not None and not section.normalize and section.sample_rate == 8000
    for settings in ({"feature_size": 2}, {"padding_value": -1.0}, {"padding_side": "left"}):
        with pytest.raises(WeftError, match=f"{next(iter(settings))} of its preprocessor is"):
            compose(None, source(tmp_path, "wav2vec2", **settings), LANGUAGE)
