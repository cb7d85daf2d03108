"""What a kind says of an item is what its encoder and the connector give."""

import pytest
import tiny
import torch

from weft.conversation import WeftError
from weft.models.config import AudioSection
from weft.models.encoders import image_kind, sound_kind

CONNECTORS = [
    {"kind": "linear", "merge": 1},
    {"kind": "linear", "merge": 2},
    {"kind": "linear", "merge": 4, "grid": True},
    {"kind": "mlp", "merge": 2, "hidden": 20},
    {"kind": "pool", "merge": 2},
    {"kind": "pool", "merge": 4, "grid": True},
    {"kind": "queries", "queries": 5, "heads": 4, "attention_layers": 1},
]


@pytest.mark.parametrize("kind", list(tiny.VISION))
@pytest.mark.parametrize("connector", CONNECTORS, ids=lambda c: f"{c['kind']}{c.get('merge', '')}{c.get('grid', '')}")
def test_images_give_the_tokens_that_their_kind_says(kind, connector):
    section = tiny.vision(kind, connector)
    model = tiny.model(vision=section)
    embedded = model.embed_images(torch.randn(2, 3, 24, 24))
    assert embedded.shape == (2 * image_kind(section).view_tokens, 32)


def test_a_kept_class_token_is_counted():
    section = tiny.vision("clip", drop_cls=False)
    assert image_kind(section).view_tokens == 10
    assert tiny.model(vision=section).embed_images(torch.randn(1, 3, 24, 24)).shape == (10, 32)


def test_images_need_not_be_square():
    for kind in ("siglip", "dinov2", "conv"):
        section = tiny.vision(kind, {"merge": 4, "grid": True}, size=(24, 40))
        assert image_kind(section).view_tokens == 6  # 3 x 5 patches in blocks of 2 x 2
        assert tiny.model(vision=section).embed_images(torch.randn(1, 3, 24, 40)).shape == (6, 32)


@pytest.mark.parametrize("kind", ["whisper", "qwen_audio", "whisper_decoder", "wav2vec2"])
@pytest.mark.parametrize(
    "connector", [c for c in CONNECTORS if "grid" not in c], ids=lambda c: f"{c['kind']}{c.get('merge', '')}"
)
def test_clips_give_the_tokens_that_their_kind_says(kind, connector):
    section = tiny.audio(kind, connector)
    model = tiny.model(audio=section)
    for n_samples in (480, 1000, 3210, 12345, 16000):
        features, length, ids = tiny.clip(section, n_samples)
        assert len(model.embed_audio(features[None], torch.tensor(length))) == len(ids), n_samples


def test_windows_cover_the_whole_clip_without_overlap():
    for section in (
        tiny.audio("whisper"),
        tiny.audio("wav2vec2"),
        tiny.audio("qwen_audio"),
        tiny.audio(pad_to_window=True),
    ):
        for n_samples in (480, 15999, 16000, 16001, 40000):
            windows = sound_kind(section).windows(n_samples)
            assert [w.start for w in windows] == [0, *(w.end for w in windows[:-1])]
            assert windows[-1].end == n_samples
            assert all(w.tokens >= 1 and w.padded >= w.end - w.start for w in windows)


def test_qwen_audio_counts_as_published():
    # specs: mel = n // 160, c = ceil(mel / 2), tokens = c // 2; 1 s gives 25, 30 s and each whole window 750
    section = AudioSection(kind="qwen_audio", config={"max_source_positions": 1500}, boundaries=True)
    assert [sound_kind(section).windows(n)[0].tokens for n in (480, 640, 16000, 93680, 30 * 16000)] == [
        1,
        1,
        25,
        146,
        750,
    ]
    assert [w.tokens for w in sound_kind(section).windows(31 * 16000)] == [750, 25]
    assert sound_kind(section).windows(93680)[0].frames == 586


def test_whisper_padded_to_the_window_hears_whole_windows():
    section = AudioSection(kind="whisper", config={"max_source_positions": 1500}, pad_to_window=True)
    windows = sound_kind(section).windows(40 * 16000)
    assert [(w.frames, w.tokens, w.padded) for w in windows] == [(3000, 1500, 480000)] * 2
    assert sound_kind(section).bands == 80 and sound_kind(section).window_samples == 480000


def test_clips_too_short_are_refused_and_short_rests_are_not():
    with pytest.raises(WeftError, match="empty"):
        sound_kind(tiny.audio("whisper")).windows(0)
    with pytest.raises(WeftError, match="3 ms.*at least 30 ms"):
        sound_kind(tiny.audio("qwen_audio")).windows(48)
    assert sound_kind(tiny.audio("whisper")).windows(48)[0].tokens == 1
    assert sound_kind(tiny.audio("qwen_audio")).windows(16010)[1].tokens == 1


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(WeftError, match="square number, and 3 is not"):
        tiny.image_ids(tiny.vision("clip", {"merge": 3, "grid": True}))
    with pytest.raises(WeftError, match="multiple of the encoder's patch size 8"):
        tiny.image_ids(tiny.vision("clip", size=(25, 24)))
    with pytest.raises(WeftError, match="at most 1 seconds"):
        tiny.model(audio=tiny.audio().model_copy(update={"window_seconds": 2.0}))
    with pytest.raises(WeftError, match="batch_leak is a quirk of qwen_audio"):
        sound_kind(tiny.audio("whisper", batch_leak=True))
    with pytest.raises(WeftError, match="last layer only"):
        tiny.model(vision=tiny.vision("conv", layer=-2))
    with pytest.raises(WeftError, match="the encoder has 2 layers"):
        tiny.model(vision=tiny.vision("clip", layer=-4))
