"""LLaSM's released code against an import of its kit: states, template ids, logits, greedy ids, gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMultimodalLM, AutoProcessor

import weft  # noqa: F401  registers with transformers
from weft.conversation import WeftError, parse_messages
from weft.formats.llasm import import_llasm
from weft.media import load_audio, log_mel
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor


class Kit:
    def __init__(self, folder: Path, out: Path) -> None:
        self.folder = folder
        self.tensors = load_file(folder / "expected.safetensors")
        self.cases = json.loads((folder / "expected.json").read_text())["cases"]
        self.done = import_llasm(folder / "checkpoint", folder / "whisper", out, "float32")
        self.model = AutoModelForMultimodalLM.from_pretrained(out).eval()
        self.processor = AutoProcessor.from_pretrained(out)

    def clip(self, index: int = 0) -> dict:
        return {"type": "audio", "audio": str(self.folder / f"clip_{index}.mp3")}

    def mel(self, index: int) -> torch.Tensor:
        return torch.from_numpy(log_mel(load_audio(str(self.folder / f"clip_{index}.mp3")), pad_to=480000))[None]

    def speaking(self, **switches) -> WeftProcessor:
        data = self.processor.to_dict()["config"]
        return WeftProcessor(self.processor.tokenizer, {**data, "dialect": {"name": "llasm", "switches": switches}})


@pytest.fixture(scope="module")
def kit(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(shared / "parity" / "llasm", tmp_path_factory.mktemp("llasm") / "model")


def close(got: torch.Tensor, want: torch.Tensor, limit: float = 2e-3) -> None:
    assert got.shape == want.shape
    difference = (got.detach().float() - want).abs()
    assert difference.max() <= limit
    assert difference.mean() <= 1e-3 * want.std()


def test_mel_and_decoder_states(kit: Kit) -> None:
    assert [(s.used, s.surplus) for s in kit.done.sources] == [(23, ()), (89, ())]
    close(kit.mel(0)[:, :400].transpose(1, 2), kit.tensors["frontend/feat0"], 1e-4)
    for index in (0, 1):
        with torch.no_grad():
            states, lengths = kit.model.audio(kit.mel(index), torch.tensor([3000]))
        close(states, kit.tensors[f"tower/out{index}"], 1e-4)
        assert lengths.tolist() == [64]


def turns(kit: Kit, case: str) -> list[dict]:
    question = {"role": "user", "content": "hello" if "text" in case else [kit.clip()]}
    if "2turn" in case:
        return [question, {"role": "assistant", "content": "hello world"}, {"role": "user", "content": "how are you"}]
    return [question, {"role": "assistant", "content": "hello world"}] if "train" in case else [question]


CASES = ["cllama2_audio_1turn", "cllama2_text_1turn", "cllama2_2turn", "cllama2_train_1turn"]
CASES += ["baichuan_audio_1turn", "baichuan_2turn"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
def test_template_ids(kit: Kit, case: str, slow: bool) -> None:
    family = "baichuan" if "baichuan" in case else "chinese_llama2"
    processor = kit.speaking(family=family, strip_around_clips=slow)
    encoded = processor.encode(parse_messages(turns(kit, case)), generate="train" not in case)
    want = kit.tensors[f"template_{case}/ids" + ("" if slow else "_fast")].flatten().tolist()
    assert encoded.input_ids.tolist() == want
    if "train" in case and slow:
        assert encoded.labels.tolist() == kit.tensors["train/labels"][0].tolist()


def test_plain_template_has_one_system_block(kit: Kit) -> None:
    processor = kit.speaking(template="plain")
    asked = [{"role": "user", "content": [kit.clip(), {"type": "task", "task": "transcribe"}]}]
    text = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<s>[INST]<<SYS>>\nYou are a helpful") and text.count("<<SYS>>") == 1
    end = "<</SYS>>\n\n<au_start><au_patch><au_end>\nTranscribe the following speech into text.\n[/INST]\n"
    assert text.endswith(end)


@pytest.mark.parametrize("case", ["one_audio", "one_audio_fast", "text_only", "mixed_batch"])
def test_logits(kit: Kit, case: str) -> None:
    inputs = {"input_ids": kit.tensors[f"{case}/input_ids"]}
    if case != "text_only":
        inputs["input_features"] = kit.mel(0)
    mask = torch.ones_like(inputs["input_ids"]).bool()
    if f"{case}/attention_mask" in kit.tensors:
        inputs["attention_mask"] = kit.tensors[f"{case}/attention_mask"]
        mask = inputs["attention_mask"].bool()
    with torch.no_grad():
        close(kit.model(**inputs).logits[mask], kit.tensors[f"{case}/logits"][mask])


def test_two_clips_are_both_heard(kit: Kit) -> None:
    """The released code drops all but the last clip of a row; here each span holds its own clip's projection."""
    ids = kit.tensors["two_audios_as_repo/input_ids"]
    mels = torch.cat([kit.mel(0), kit.mel(1)])
    with torch.no_grad():
        embedded = kit.model.embed(ids, input_features=mels)
        want = kit.model.audio_connector.proj(torch.cat([kit.tensors[f"tower/out{i}"] for i in (0, 1)]))
    clip = ids == kit.model.config.audio_token_id
    close(embedded[clip].reshape(2, 64, -1), want, 1e-4)
    # <au_start> and <au_end> keep their text embeddings, as everything else does.
    assert torch.equal(embedded[~clip], kit.model.get_input_embeddings()(ids[~clip]))


@pytest.mark.parametrize(("seconds", "spans"), [(3, 1), (30, 1), (40, 2)])
def test_a_clip_is_64_tokens_and_a_longer_one_is_heard_in_windows(kit: Kit, seconds: int, spans: int) -> None:
    """The released code cuts at 30 s and says nothing; here nothing is cut, and the windows are counted."""
    wave = torch.zeros(seconds * 16000).numpy()
    asked = parse_messages([{"role": "user", "content": [{"type": "audio", "audio": wave}]}])
    encoded = kit.processor.encode(asked, generate=True)
    assert len(encoded.features) == spans
    assert (encoded.input_ids == kit.model.config.audio_token_id).sum() == 64 * spans


def test_spans_that_do_not_fit_the_clips_are_an_error(kit: Kit) -> None:
    ids, mel = kit.tensors["one_audio/input_ids"], kit.mel(0)
    with pytest.raises(WeftError, match="64 audio tokens and the media given make 128"):
        kit.model(input_ids=ids, input_features=torch.cat([mel, mel]))
    with pytest.raises(WeftError, match="64 audio tokens and the media given make 0"):
        kit.model(input_ids=ids)
    with pytest.raises(WeftError, match="<au_start> stands alone"):
        kit.processor(text="<s>[INST] <au_start><au_patch> [/INST] ", audio=[kit.clip()["audio"]])


def test_only_the_last_clip_is_heard_as_released(kit: Kit) -> None:
    config = type(kit.model.config).from_dict(kit.model.config.to_dict())
    config.audio = {**config.audio, "last_clip_only": True}
    compat = WeftForConditionalGeneration(config).eval()
    compat.load_state_dict(kit.model.state_dict())
    ids = kit.tensors["two_audios_as_repo/input_ids"]
    with torch.no_grad():
        got = compat(input_ids=ids, input_features=torch.cat([kit.mel(0), kit.mel(1)])).logits
    close(got, kit.tensors["two_audios_as_repo/logits"])


def test_greedy_ids(kit: Kit) -> None:
    ids, want = kit.tensors["generate/input_ids"], kit.cases["generate"]["new_ids"]
    out = kit.model.generate(input_ids=ids, input_features=kit.mel(0), max_new_tokens=len(want), do_sample=False)
    assert out[0].tolist() == [*ids[0].tolist(), *want]
    want = kit.cases["beam2"]["new_ids"]
    out = kit.model.generate(
        input_ids=ids, input_features=kit.mel(0), max_new_tokens=len(want), num_beams=2, do_sample=False
    )
    assert out[0, ids.shape[1] :].tolist() == want


def test_loss_and_gradients(kit: Kit) -> None:
    model = kit.model
    try:
        inputs = {"input_ids": kit.tensors["train/input_ids"], "labels": kit.tensors["train/labels"]}
        loss = model(**inputs, input_features=kit.mel(0)).loss
        loss.backward()
        table = model.get_input_embeddings().weight.grad.clone()
        projector = model.audio_connector.proj.weight.grad.clone()
    finally:
        model.zero_grad(set_to_none=True)
    assert loss.item() == pytest.approx(kit.cases["train"]["loss"], abs=1e-4)
    close(projector, kit.tensors["train/grad_mm_projector"], 1e-4)
    close(table, kit.tensors["train/grad_embed"], 1e-4)
    assert table[400].abs().max() == 0  # the placeholder's own row is never used
    # The first stage trains only the rows of the two clip tokens: theirs are the same.
    close(projector, kit.tensors["train_stage1/grad_mm_projector"], 1e-4)
    close(table[401:403], kit.tensors["train_stage1/grad_embed"][401:403], 1e-4)
