"""What a kind says of an item is what its encoder and the connector give."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from marks import slow
from weft.conversation import WeftError
from weft.media import load_image
from weft.models.config import AudioSection, Connector, VisionSection
from weft.models.encoders import image_kind, sound_kind
from weft.models.encoders.tiles import largest
from weft.models.places import ImagePlaces, token_grid
from weft.models.usual import of_images, of_sound

CONNECTORS = [
    {"kind": "linear", "merge": 1},
    {"kind": "linear", "merge": 2},
    {"kind": "linear", "merge": 4, "grid": True},
    {"kind": "mlp", "merge": 2, "hidden": 20},
    {"kind": "pool", "merge": 2},
    {"kind": "pool", "merge": 4, "grid": True},
    {"kind": "queries", "queries": 5, "heads": 4, "attention_layers": 1},
    {"kind": "transformer", "merge": 4, "grid": True, "heads": 2, "attention_layers": 1},
]


@pytest.mark.parametrize("kind", list(tiny.VISION))
@pytest.mark.parametrize(
    "connector",
    [slow(c) if "grid" in c or c["kind"] == "pool" else c for c in CONNECTORS],
    ids=lambda c: f"{c['kind']}{c.get('merge', '')}{c.get('grid', '')}",
)
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


TILED = {"merge": 4, "grid": True}


@pytest.mark.parametrize(
    ("most", "size", "grid"),
    [
        (12, (448, 448), (1, 1)),
        (12, (896, 896), (2, 2)),  # 3 x 3 is as near, and too large
        (12, (2000, 2000), (3, 3)),
        (12, (800, 200), (1, 4)),
        (12, (200, 800), (4, 1)),
        (12, (5000, 7), (1, 12)),
        (12, (1200, 800), (2, 3)),
        (4, (1200, 800), (2, 2)),  # 1.5 is as far from 1 as from 2: the most that it has room for
        (1, (5000, 7), (1, 1)),
    ],
)
def test_a_picture_is_cut_into_tiles_of_its_own_shape(most, size, grid):
    section = VisionSection(kind="clip", config={"patch_size": 14}, size=(448, 448), tiles=most, connector=TILED)
    kind = image_kind(section)
    assert kind.tiles(*size) == grid
    tiles = grid[0] * grid[1]
    assert kind.tokens(*size) == 256 * (tiles if tiles == 1 else tiles + 1)
    assert kind.tokens(*largest(section)) == 256 * (most if most == 1 else most + 1)
    assert kind.by_size == (most > 1)


def test_tiles_are_views_in_raster_order_before_the_whole_picture():
    section = tiny.vision("conv", size=(8, 8), tiles=6, mean=(0, 0, 0), std=(1, 1, 1), resample="bilinear")
    colours = [(i * 40, 255 - i * 40, i) for i in range(6)]
    picture = Image.new("RGB", (24, 16))
    for i, colour in enumerate(colours):
        picture.paste(colour, (i % 3 * 8, i // 3 * 8, i % 3 * 8 + 8, i // 3 * 8 + 8))
    views = image_kind(section).pixels(picture)
    assert views.shape == (7, 3, 8, 8)
    for view, colour in zip(views, colours, strict=False):
        np.testing.assert_allclose(view, np.broadcast_to(np.array(colour)[:, None, None] / 255, (3, 8, 8)), atol=1e-6)
    np.testing.assert_allclose(views[6].mean((1, 2)), np.mean(colours, 0) / 255, atol=0.01)
    model = tiny.model(vision=section)
    assert len(model.embed_images(torch.from_numpy(views))) == image_kind(section).tokens(24, 16)


def test_a_picture_that_is_read_smaller_has_the_tiles_of_its_own_size():
    kind = image_kind(tiny.vision("conv", size=(8, 8), tiles=6))
    smaller = load_image(Image.new("RGB", (16, 16)), 500)
    assert smaller.size < (16, 16) and kind.tiles(16, 16) != kind.tiles(*smaller.size)
    assert len(kind.pixels(smaller)) * kind.view_tokens == kind.tokens(16, 16)


@pytest.mark.parametrize("kind", ["whisper", "qwen_audio", "qwen2_audio", "whisper_decoder", "wav2vec2"])
@pytest.mark.parametrize(
    "connector",
    [slow(c) if c["kind"] == "pool" else c for c in CONNECTORS if "grid" not in c],
    ids=lambda c: f"{c['kind']}{c.get('merge', '')}",
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


@pytest.mark.parametrize(
    ("section", "merge", "grid", "tokens"),
    [
        (VisionSection(kind="clip", config={"patch_size": 14}), 4, True, 64),
        (VisionSection(kind="clip", config={"patch_size": 14}, drop_cls=False), 2, False, 129),
        (VisionSection(kind="clip", config={"patch_size": 32}), 1, False, 49),
        (VisionSection(kind="siglip", config={"patch_size": 16}), 2, False, 98),
        (VisionSection(kind="siglip", config={"patch_size": 16}, connector=Connector(grid=True)), 4, True, 49),
        (VisionSection(kind="siglip", config={"patch_size": 14}, size=(378, 378)), 9, True, 81),
        (VisionSection(kind="siglip", config={"patch_size": 16}, size=(384, 384)), 4, True, 144),
        (VisionSection(kind="dinov2", config={"patch_size": 14}, size=(518, 518)), 16, True, 100),
    ],
)
def test_a_new_connector_gives_64_to_144_tokens_a_picture(section, merge, grid, tokens):
    assert of_images(image_kind(section)) == {"merge": merge, "grid": grid}
    chosen = section.connector.model_copy(update=of_images(image_kind(section)))
    assert image_kind(section.model_copy(update={"connector": chosen})).view_tokens == tokens


@pytest.mark.parametrize(
    ("kind", "merge"),
    [("whisper", 4), ("wav2vec2", 4), ("qwen_audio", 2), ("conv", 2), ("whisper_decoder", 1)],
)
def test_a_new_connector_gives_10_to_13_tokens_a_second(kind, merge):
    found = sound_kind(AudioSection(kind=kind, config={}))
    assert of_sound(found) == {"merge": merge}
    assert found.seconds is None or 10 <= 1 / (found.seconds * merge) <= 13


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
    with pytest.raises(WeftError, match="fit 'stretch' with 6 tiles shifts them"):
        ImagePlaces().ids(SimpleNamespace(vision=tiny.vision("clip", {"places": True}, tiles=6)))
    with pytest.raises(WeftError, match="tiles 1"):
        _ = token_grid(image_kind(tiny.vision("clip", tiles=6)))
    with pytest.raises(WeftError, match="at most 1 seconds"):
        tiny.model(audio=tiny.audio().model_copy(update={"window_seconds": 2.0}))
    with pytest.raises(WeftError, match="batch_leak is a quirk of qwen_audio"):
        sound_kind(tiny.audio("whisper", batch_leak=True))
    with pytest.raises(WeftError, match="last layer only"):
        tiny.model(vision=tiny.vision("conv", layer=-2))
    with pytest.raises(WeftError, match="the encoder has 2 layers"):
        tiny.model(vision=tiny.vision("clip", layer=-4))
