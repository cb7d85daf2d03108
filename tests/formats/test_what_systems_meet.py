"""Nothing that the three systems need is hidden behind a table: what they meet, who follows their imports meets too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from published_kits import MiniGPT, Qwen
from test_import_llasm import LLaSM

import weft
from test_house_plan import followed
from weft.formats.llasm import import_llasm
from weft.formats.minigpt_v2 import import_minigpt_v2
from weft.formats.qwen_audio import import_qwen_audio
from weft.named import Named
from weft.training.recipe import Recipe
from weft.training.run import train

pytestmark = pytest.mark.slow
FULL, LORA = {"train": "full"}, {"train": "lora", "lora": {"r": 2, "targets": ["q_proj", "v_proj"]}}
# How each is published to train: what learns, and what changes its clips.
STAGES: dict[str, dict[str, Any]] = {
    "minigpt_v2": {"parts": {"vision_connector": FULL, "language": {**LORA, "dialect_tokens": False}}},
    "llasm": {"parts": {"audio_connector": FULL, "language": FULL}},
    "qwen_audio": {
        "parts": {"audio": FULL, "audio_connector": FULL},
        "augment": {"time_masks": 1, "time_mask_frames": 10, "freq_masks": 1, "freq_mask_bands": 5},
    },
}
ASKED = {"minigpt_v2": {"task": "refer"}, "llasm": None, "qwen_audio": {"task": "transcribe", "language": "en"}}


def imported(system: str, folder: Path) -> None:
    if system == "minigpt_v2":
        import_minigpt_v2(**MiniGPT(folder / "kit").arguments(), out=folder / "model", dtype="float32")
    elif system == "llasm":
        kit = LLaSM(folder / "kit")
        import_llasm(kit.checkpoint, kit.whisper, folder / "model", "float32")
    else:
        Qwen(folder / "kit", ids_only=False)
        import_qwen_audio(folder / "kit", folder / "model", "float32")


@pytest.mark.parametrize("system", STAGES)
def test_what_a_system_meets_of_tables_is_seen_by_who_follows_imports(system, tmp_path, monkeypatch):
    met: set[str] = set()
    found = Named.__getitem__
    monkeypatch.setattr(Named, "__getitem__", lambda table, name: (met.add(table.places[name]), found(table, name))[1])
    imported(system, tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype="uint8")).save(tmp_path / "0.png")
    soundfile.write(tmp_path / "0.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    name, kind = ("0.png", "image") if system == "minigpt_v2" else ("0.wav", "audio")
    task = ASKED[system]
    rest = [{"type": "text", "text": "what is it?"}] if system != "qwen_audio" else []
    question = [{"type": kind, kind: name}, *([{"type": "task", **task}] if task else []), *rest]
    asked = [{**question[0], kind: str(tmp_path / name)}, *question[1:]]
    weft.load(tmp_path / "model").chat([{"role": "user", "content": asked}], max_new_tokens=2)
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "yes"}]
    file = tmp_path / "samples.jsonl"
    file.write_text((json.dumps({"messages": messages}) + "\n") * 4)
    stage = {**STAGES[system], "steps": 1, "mixture": [{"path": str(file)}], "evaluation": {"data": str(file)}}
    recipe = {"name": system, "model": {"base": str(tmp_path / "model")}, "stages": [stage], "precision": "float32"}
    train(Recipe.model_validate(recipe), tmp_path / "run")
    seen = followed("weft.training.run") | followed("weft.generation.engine") | followed(f"weft.formats.{system}")
    assert met and {place.partition(":")[0] for place in met} <= seen
