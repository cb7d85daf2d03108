"""Media embeddings that carry the tokens naming where they are, and the small sound tower they were made for."""

import numpy as np
import pytest
import torch

from weft.conversation import WeftError
from weft.models.compose import compose
from weft.models.config import AudioSection, Connector, VisionSection
from weft.models.encoders import image_kind, sound_kind
from weft.models.places import token_grid, token_seconds

LANGUAGE = {
    "config": {
        "model_type": "llama",
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
}
SOUND = {"kind": "conv", "config": {"width": 48, "channels": [4, 8], "conv_layers": 1, "heads": 2}}
PICTURE = {
    "kind": "conv",
    "config": {"channels": [8, 16, 48], "layers": 1, "heads": 2},
    "options": {"size": [64, 32]},
}


def with_places(places: bool, dialect: dict | str = "chatml"):
    return compose(
        audio={**SOUND, "connector": {"merge": 2, "places": places}},
        vision={**PICTURE, "connector": {"merge": 4, "grid": True, "places": places}},
        language=LANGUAGE,
        dialect=dialect,
    )


def test_each_moment_and_patch_carries_the_tokens_of_its_place() -> None:
    (plain, _), (placed, processor) = with_places(False), with_places(True)
    placed.load_state_dict(plain.state_dict())
    table, ids = placed.get_input_embeddings().weight, processor.tokenizer.convert_tokens_to_ids
    mel, pixels = torch.randn(1, 100, 80), torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        heard = placed.embed_audio(mel) - plain.embed_audio(mel)
        seen = placed.embed_images(pixels) - plain.embed_images(pixels)
    # 13 embeddings of 80 ms: the middle of the fifth is 0.36 s.
    torch.testing.assert_close(heard[4], table[ids("<|t0.3|>")] + table[ids("<|f6|>")], atol=1e-5, rtol=0)
    # 4 rows x 2 columns over 1000 bins: the last patch's middle is 750 across and 875 down.
    torch.testing.assert_close(seen[-1], table[ids("<|p750|>")] + table[ids("<|p875|>")].roll(24), atol=1e-5, rtol=0)


def test_places_survive_saving_and_loading(tmp_path) -> None:
    from transformers import AutoModelForMultimodalLM

    model, processor = with_places(True)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path).eval()
    mel = torch.randn(1, 33, 80)
    with torch.no_grad():
        torch.testing.assert_close(again.embed_audio(mel), model.embed_audio(mel))


def test_places_need_tokens_that_name_them() -> None:
    with pytest.raises(WeftError, match="places"):
        with_places(True, {"name": "chatml", "switches": {"coordinates": "text"}})


def test_places_need_embeddings_that_lie_on_a_grid() -> None:
    with pytest.raises(WeftError, match="do not follow the sound"):
        _ = token_seconds(sound_kind(AudioSection(kind="conv", config={}, connector=Connector(kind="queries"))))
    with pytest.raises(WeftError, match="places need whole rows"):
        _ = token_grid(image_kind(VisionSection(kind="clip", config={"patch_size": 32}, connector=Connector(merge=4))))
    with pytest.raises(WeftError, match="lies on no grid"):
        _ = token_grid(image_kind(VisionSection(kind="conv", config={}, connector=Connector(kind="queries"))))
    with pytest.raises(WeftError, match="set drop_cls"):
        _ = token_grid(image_kind(VisionSection(kind="eva", config={}, drop_cls=False)))


def test_a_short_clip_in_a_batch_is_heard_as_it_is_alone() -> None:
    section = AudioSection(kind="conv", config=SOUND["config"], connector=Connector(merge=2))
    tower = sound_kind(section).build().eval()
    mel, lengths = torch.randn(3, 101, 80), torch.tensor([101, 37, 4])
    with torch.no_grad():
        together, counts = tower(mel, lengths)
        for row, frames in enumerate(lengths.tolist()):
            alone, count = tower(mel[row : row + 1, :frames], lengths[row : row + 1])
            assert int(count[0]) == int(counts[row])
            torch.testing.assert_close(together[row, : int(count[0])], alone[0], atol=1e-5, rtol=1e-4)
            assert not together[row, int(count[0]) :].any()


def test_the_sound_tower_gives_as_many_embeddings_as_the_layout_says() -> None:
    section = AudioSection(kind="conv", config=SOUND["config"], connector=Connector(merge=2))
    tower = sound_kind(section).build().eval()
    for samples in np.random.default_rng(0).integers(160, 480_000, 12):
        window = sound_kind(section).windows(int(samples))[0]
        _, count = tower(torch.zeros(1, window.frames, 80), torch.tensor([window.frames]))
        assert -(-int(count[0]) // 2) == window.tokens


def test_moments_have_one_name_in_questions_and_in_sound() -> None:
    dialect = {"name": "chatml", "switches": {"window_seconds": 10.0}}
    with pytest.raises(WeftError, match="windows of 30 s and the dialect counts times in windows of 10 s"):
        with_places(True, dialect)
    with_places(False, dialect)
