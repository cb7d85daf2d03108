"""Qwen-7B alone: a language model that recipes compose with an encoder of their choice."""

import json

import pytest
import torch
from published_kits import Qwen
from safetensors.torch import load_file, save_file

from weft.cli import run
from weft.formats.checkpoints import CheckpointError
from weft.formats.qwen import import_qwen
from weft.formats.tokenizers import qwen_specials
from weft.recipes import load_recipe
from weft.training.build import build_model
from weft.training.recipe import LanguageSource


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A Qwen-Audio kit of which only the language model is left, with rows for Qwen's own tokens."""
    folder = tmp_path_factory.mktemp("qwen") / "kit"
    kit = Qwen(folder, ids_only=False)
    raw = json.loads((folder / "config.json").read_text())
    rows = raw["vocab_size"] - 13 - len(qwen_specials()) + len(qwen_specials(())) + 5  # with some that are unused
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if ".audio." not in k}
    for table in ("transformer.wte.weight", "lm_head.weight"):
        weights[table] = weights[table][:rows].clone()
    save_file(weights, folder / "model.safetensors")
    raw["vocab_size"] = rows
    del raw["audio"]
    (folder / "config.json").write_text(json.dumps(raw))
    kit.known = rows - 5
    return kit


def test_a_recipe_starts_from_the_imported_folder(kit, tmp_path, capsys):
    assert (
        run(["import", "qwen", "--checkpoint", str(kit.folder), "-o", str(tmp_path / "qwen"), "--dtype", "float32"])
        == 0
    )
    spec = load_recipe("qwen_audio", "tiny").model
    spec = spec.model_copy(update={"language": LanguageSource(source=str(tmp_path / "qwen"))})
    model, processor = build_model(spec)
    ids = list(range(5, 60))
    with torch.no_grad():
        got = model.eval()(input_ids=torch.tensor([ids])).logits[0]
    assert (got[:, : kit.known] - kit.logits([ids])[:, : kit.known]).abs().max() < 1e-4
    # Qwen-Audio's tokens have the ids of the released tokenizer and start at the mean of the known ones.
    table = model.get_input_embeddings().weight
    assert processor.renderer.token_id("<audio>") == kit.known + len(qwen_specials()) - len(qwen_specials(())) - 2
    assert torch.allclose(table[kit.known :], table[: kit.known].mean(0).expand(len(table) - kit.known, -1), atol=1e-6)


def test_what_is_not_qwen_alone_is_refused(tmp_path):
    Qwen(tmp_path / "audio", ids_only=False)
    with pytest.raises(CheckpointError, match="Qwen-Audio's"):
        import_qwen(tmp_path / "audio", tmp_path / "out")
    raw = json.loads((tmp_path / "audio" / "config.json").read_text())
    del raw["audio"]
    (tmp_path / "audio" / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="transformer.audio"):
        import_qwen(tmp_path / "audio", tmp_path / "out")
    (tmp_path / "audio" / "qwen.tiktoken").unlink()
    with pytest.raises(CheckpointError, match="no qwen.tiktoken"):
        import_qwen(tmp_path / "audio", tmp_path / "out")
    assert not (tmp_path / "out").exists()
