"""weft's own model as it is shipped: on real parts, where they are on this machine."""

import numpy as np
import pytest

import weft
from weft.generation import Options
from weft.models.own import SHIPPED, bundled_folder


def test_what_is_shipped_is_small_and_says_what_it_is():
    assert sum(file.stat().st_size for file in SHIPPED.glob("*.safetensors")) <= 25_000_000
    assert {"LICENSE", "README.md", "adapter_model.safetensors"} <= {file.name for file in SHIPPED.iterdir()}


@pytest.mark.slow
def test_it_answers_text_as_its_language_model_does_and_takes_sound_and_pictures():
    folder = bundled_folder()
    if folder is None or not folder.is_dir():
        pytest.skip("its pretrained parts are not on this machine: weft parts")
    model = weft.load("bundled")
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    assert "Paris" in model.chat(asked, max_new_tokens=12).text
    wave = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    picture = np.full((40, 60, 3), 200, np.uint8)
    for part in ({"type": "audio", "audio": (wave, 16000)}, {"type": "image", "image": picture}):
        asked = [{"role": "user", "content": [part, {"type": "text", "text": "What is this?"}]}]
        assert 1 <= model.chat(asked, Options(max_new_tokens=4)).tokens <= 4
