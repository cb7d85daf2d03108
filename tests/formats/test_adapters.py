"""Adapters: beside a base, folded into it, alone in PEFT's format; the same logits everywhere."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from published_kits import MiniGPT
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM, AutoProcessor

import weft  # noqa: F401  registers with transformers
from marks import slow
from training_world import tiny_spec
from weft.cli import run
from weft.conversation import WeftError
from weft.formats.adapters import export_peft, merge
from weft.formats.minigpt_v2 import import_minigpt_v2
from weft.generation.loading import load_parts
from weft.models.adapters import AdapterError
from weft.models.processing import WeftProcessor
from weft.training.build import build_model
from weft.training.export import save_model
from weft.training.export_adapter import adapter_saver
from weft.training.parts import apply_parts, dialect_tokens
from weft.training.recipe import Lora, ModelSpec, PartTraining, Stage

LORA = PartTraining(train="lora", lora=Lora(r=4, alpha=6))
PARTS = {
    "all": {
        "language": LORA,
        "vision": PartTraining(train="lora", lora=Lora(r=2, alpha=8)),
        "audio_connector": PartTraining(train="full"),
    },
    "language": {"language": LORA.model_copy(update={"dialect_tokens": False})},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "model"
    save_model(*build_model(tiny_spec()), path)
    return path


def adapted(base: Path, out: Path, parts: str, spec: ModelSpec | None = None) -> Path:
    """An adapter as a run leaves it, with random values in place of trained ones."""
    model, processor = build_model(spec or ModelSpec(base=str(base)))
    stage = Stage(parts=PARTS[parts])
    apply_parts(model, stage, tokens=dialect_tokens(processor))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape, generator=draw))
    adapter_saver(model, processor, out, spec or ModelSpec(base=str(base)), stage)()
    return out


def inputs() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.arange(1, 200, 7)[None]}


def answers(model: torch.nn.Module, processor: object) -> torch.Tensor:
    """Logits of words with a picture and a clip."""
    draw = torch.Generator().manual_seed(2)
    pixels = torch.rand(32, 32, 3, generator=draw).numpy()
    wave = torch.randn(8000, generator=draw).numpy()
    content = [
        {"type": "image", "image": pixels},
        {"type": "audio", "audio": (wave, 16000)},
        {"type": "text", "text": "?"},
    ]
    batch = processor.apply_chat_template(  # type: ignore[attr-defined]
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    with torch.no_grad():
        return model.eval()(**batch).logits


INSIDE = [slow(False, id="base named"), pytest.param(True, id="base inside")]


@pytest.mark.parametrize("inside", INSIDE)
def test_merging_gives_the_logits_of_the_adapter_and_its_base(base: Path, tmp_path: Path, inside: bool) -> None:
    adapter = adapted(base, tmp_path / "adapter", "all", tiny_spec() if inside else None)
    if inside:
        adapter = Path(shutil.move(adapter, tmp_path / "moved"))
    assert run(["merge", str(adapter), "-o", str(tmp_path / "whole")]) == 0
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    want = answers(*load_parts(adapter))
    got = answers(*load_parts(tmp_path / "whole"))
    assert (want - answers(*load_parts(base))).abs().max() > 0.1
    assert (got - want).abs().max() < 1e-5


@pytest.mark.parametrize("inside", INSIDE)
def test_transformers_loads_an_adapter_folder_with_the_adapter_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    adapter = adapted(base, tmp_path / "adapter", "all", tiny_spec() if inside else None)
    merge(str(adapter), tmp_path / "whole")
    monkeypatch.chdir(tmp_path)
    for name in (adapter, "adapter"):
        model, processor = AutoModelForMultimodalLM.from_pretrained(name), AutoProcessor.from_pretrained(name)
        want = answers(*load_parts(tmp_path / "whole"))
        assert (answers(model, processor) - want).abs().max() < 1e-5
    assert (want - answers(*load_parts(base))).abs().max() > 0.1


def test_an_adapter_is_never_skipped_silently(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its base, without peft, or with tensors that have no place: an error by either door."""
    adapter = adapted(base, tmp_path / "adapter", "all")
    config, weights = adapter / "adapter_config.json", load_file(adapter / "adapter_model.safetensors")
    written = config.read_text()

    def refused(said: str) -> None:
        for load in (load_parts, AutoModelForMultimodalLM.from_pretrained):
            with pytest.raises(AdapterError, match=said):
                load(adapter)

    for left_out in ("audio_connector", ".lora_B."):  # neither loads with a mere warning
        kept = {n: t for n, t in weights.items() if left_out not in n}
        more = {n.replace(left_out, "elsewhere"): t for n, t in weights.items() if left_out in n}
        save_file(kept | more, adapter / "adapter_model.safetensors")
        refused("it belongs to another model")
    save_file(weights, adapter / "adapter_model.safetensors")
    for lost in ("gone", "/gone/model", "../model", "adapter/model"):  # the last: there is a folder adapter beside it
        config.write_text(json.dumps(json.loads(written) | {"base_model_name_or_path": lost}))
        refused(f"is an adapter for {lost}, which is not there; write where the base is now into .*adapter_config.json")
    config.write_text(written)
    monkeypatch.setitem(sys.modules, "peft", None)
    refused("needs peft; install it with: pip install peft")


def test_a_base_that_the_hub_does_not_have_is_said_of_the_adapter(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path of two names may be a hub name; where it is none, the sentence is about the adapter."""
    adapter = adapted(base, tmp_path / "adapter", "language")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "runs/model"}))

    def unknown(*_: object, **__: object) -> None:
        raise OSError("runs/model is not a repository")

    monkeypatch.setattr(WeftProcessor, "from_pretrained", unknown)
    with pytest.raises(WeftError, match=r"is an adapter for runs/model, which cannot be loaded \(runs/model is not a"):
        load_parts(adapter)


def test_an_adapter_is_merged_before_a_run_starts_from_it(base: Path, tmp_path: Path) -> None:
    adapter = adapted(base, tmp_path / "adapter", "language")
    with pytest.raises(WeftError, match="is an adapter; fold it in first"):
        build_model(ModelSpec(base=str(adapter)))


@pytest.mark.slow
def test_the_adapter_alone_loads_with_peft(base: Path, tmp_path: Path) -> None:
    adapter = adapted(base, tmp_path / "adapter", "all")
    assert run(["export", str(adapter), "--format", "peft", "-o", str(tmp_path / "peft")]) == 0
    assert sorted(p.name for p in (tmp_path / "peft").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    model, processor = load_parts(base)
    want = answers(*load_parts(adapter))
    assert (answers(PeftModel.from_pretrained(model, tmp_path / "peft"), processor) - want).abs().max() < 1e-5


@pytest.mark.slow
def test_a_language_models_adapter_loads_on_it_alone(base: Path, tmp_path: Path) -> None:
    adapter = adapted(base, tmp_path / "adapter", "language")
    export_peft(str(adapter), tmp_path / "peft", on="language", base="owner/name")
    assert (
        json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["base_model_name_or_path"] == "owner/name"
    )
    language = load_parts(base)[0].language_model
    with torch.no_grad():
        want = load_parts(adapter)[0].language_model(**inputs()).logits
        got = PeftModel.from_pretrained(language, tmp_path / "peft").eval()(**inputs()).logits
    assert (got - want).abs().max() < 1e-5


def test_what_cannot_be_is_said(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    adapter = adapted(base, tmp_path / "adapter", "all")
    with pytest.raises(AdapterError, match=r"also changes audio_connector.* and \d+ more, which no language model has"):
        export_peft(str(adapter), tmp_path / "out", on="language")
    with pytest.raises(AdapterError, match="has no adapter in it"):
        merge(str(base), tmp_path / "out")
    assert run(["export", str(adapter), "--format", "llava", "-o", str(tmp_path / "out")]) == 2
    assert f"is an adapter, and this layout holds whole models: weft merge {adapter}" in capsys.readouterr().err
    config = json.loads((adapter / "adapter_config.json").read_text())
    for changes, said in (
        ({"use_dora": True}, "of a kind that weft does not fold in"),
        ({"base_model_name_or_path": "gone"}, "is an adapter for gone, which is not there"),
        ({"base_model_name_or_path": "owner/name"}, "is on the hub"),
    ):
        (adapter / "adapter_config.json").write_text(json.dumps(config | changes))
        with pytest.raises(AdapterError, match=said):
            merge(str(adapter), tmp_path / "out")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    other = tmp_path / "other"
    save_model(*build_model(tiny_spec().model_copy(update={"audio": None})), other)
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(other)}))
    with pytest.raises(AdapterError, match="it belongs to another model"):
        merge(str(adapter), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_imports_adapter_can_be_kept(tmp_path: Path) -> None:
    """MiniGPT-v2's: beside its base in one folder that can be moved, for the same logits as folded in."""
    kit = MiniGPT(tmp_path / "kit")
    import_minigpt_v2(**kit.arguments(), out=tmp_path / "merged", dtype="float32")
    command = ["import", "minigpt-v2", *(x for n, p in kit.arguments().items() for x in (f"--{n}", str(p)))]
    kept = tmp_path / "kept"
    assert run([*command, "-o", str(kept), "--dtype", "float32", "--keep-adapter"]) == 0
    assert run([*command, "-o", str(kept), "--dtype", "float32", "--keep-adapter", "--force"]) == 0
    kept = Path(shutil.move(kept, tmp_path / "moved"))
    assert (kept / "base" / "config.json").exists() and not (kept / "model.safetensors").exists()
    (model, processor), (whole, _) = load_parts(kept), load_parts(tmp_path / "merged")
    text = {"input_ids": torch.arange(3, 60, 5)[None]}
    with torch.no_grad():
        want = whole(**text).logits
        assert (model(**text).logits - want).abs().max() < 1e-5
        assert (AutoModelForMultimodalLM.from_pretrained(kept).eval()(**text).logits - want).abs().max() < 1e-5
        plain = AutoModelForMultimodalLM.from_pretrained(kept / "base").eval()
        assert (plain(**text).logits - want).abs().max() > 1e-2
        # the published LoRA on the Llama it was trained on, for any program that knows PEFT
        export_peft(str(kept), tmp_path / "peft", on="language")
        llama = PeftModel.from_pretrained(plain.language_model, tmp_path / "peft")
        assert (llama(**text).logits - want).abs().max() < 1e-5
    merge(str(kept), tmp_path / "again")
    again, _ = load_parts(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), whole.state_dict().values(), strict=True))
    assert processor.dialect.name == "minigpt_v2"


def test_an_adapter_goes_on_whatever_names_the_libraries_know(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """peft 0.19 knows models alone whose weights begin with "model.", and leaves everything else out."""
    from peft.utils import transformers_weight_conversion

    adapter = adapted(base, tmp_path / "adapter", "all")
    merge(str(adapter), tmp_path / "whole")
    monkeypatch.setattr(transformers_weight_conversion, "build_peft_weight_mapping", lambda *_, **__: [])
    want = answers(*load_parts(tmp_path / "whole"))
    assert (answers(*load_parts(adapter)) - want).abs().max() < 1e-5
    with_report, report = AutoModelForMultimodalLM.from_pretrained(adapter, output_loading_info=True)
    assert (answers(with_report, AutoProcessor.from_pretrained(adapter)) - want).abs().max() < 1e-5
    assert not report["missing_keys"]


def test_an_adapter_that_cannot_go_on_is_told(base: Path, tmp_path: Path) -> None:
    adapter = adapted(base, tmp_path / "adapter", "language")
    upon = shutil.copytree(adapter, tmp_path / "upon")
    config = json.loads((upon / "adapter_config.json").read_text())
    (upon / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(adapter)}))
    with pytest.raises(AdapterError, match="which is an adapter itself"):
        load_parts(upon)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match="adapter_model.safetensors is missing; copy the adapter again"):
        load_parts(adapter)
