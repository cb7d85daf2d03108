"""No code that comes with a folder runs, through whatever file of it and whichever door; weights stay in it."""

import ast
import builtins
import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from jinja2.exceptions import SecurityError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM, AutoProcessor, CLIPModel, LlamaConfig, LlamaForCausalLM, WhisperModel

import weft
from marks import slow
from tiny_model import tiny as tiny_model
from weft.cli import run
from weft.conversation import WeftError
from weft.formats import checkpoints
from weft.formats.adapters import merge
from weft.formats.checkpoints import read_folder
from weft.formats.layouts import open_model
from weft.models import doors
from weft.models.bytes_tokenizer import bytes_tokenizer
from weft.models.compose import compose

LANGUAGE = {"config": {k: v for k, v in tiny.text().items() if not k.endswith("token_id") and k != "vocab_size"}}
REFUSED = "wants to run code of its own .*weft runs no code that comes with a checkpoint"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A weft folder as weft writes it."""
    folder, model = tmp_path_factory.mktemp("whole"), tiny_model()
    model.model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """What a folder's code would write; somebody at the terminal would answer yes, and is not asked."""
    asked: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda prompt="": asked.append(prompt) or "y")
    yield tmp_path / "mark"
    assert not asked and not (tmp_path / "mark").exists()


@pytest.fixture
def folder(whole, tmp_path, mark):
    """A copy of it, with a module beside it that would write the mark."""
    shutil.copytree(whole, tmp_path / "model")
    return armed(tmp_path / "model", mark)


def armed(folder: Path, mark: Path) -> Path:
    """With a module that has the classes which the files below name."""
    classes = "Tokenizer(PreTrainedTokenizerFast)", "Config(LlamaConfig)", "Model(LlamaForCausalLM)"
    lines = [f"open({str(mark)!r}, 'w').close()", "from transformers import *"]
    (folder / "evil.py").write_text("\n".join([*lines, *(f"class {c}: pass" for c in classes)]))
    return folder


def edit(file: Path, inside: str | None = None, **changes) -> None:
    value = json.loads(file.read_text()) if file.exists() else {}
    (value[inside] if inside else value).update(changes)
    file.write_text(json.dumps(value))


MAP = {f"Auto{kind}": "evil.Model" for kind in ("Model", "ModelForCausalLM", "ModelForMultimodalLM")}
MAP |= {
    "AutoConfig": "evil.Config",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
    "AutoProcessor": "evil.Model",
}
MAP |= {"AutoImageProcessor": "evil.Model", "AutoFeatureExtractor": "evil.Model"}


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "processor_config.json",
        *(slow(f) for f in ("tokenizer_config.json", "text_config")),
    ],
)
def test_of_known_classes_the_own_ones_are_taken(folder, file):
    edit(
        folder / ("config.json" if file == "text_config" else file),
        file if file == "text_config" else None,
        auto_map=MAP,
    )
    found = weft.load(folder, device="cpu")
    assert type(found.model) is weft.WeftForConditionalGeneration and type(found.processor) is weft.WeftProcessor
    assert type(AutoModelForMultimodalLM.from_pretrained(folder)) is weft.WeftForConditionalGeneration
    assert type(AutoProcessor.from_pretrained(folder)) is weft.WeftProcessor


def test_a_tokenizer_of_its_own_is_refused_at_every_door(folder, capsys):
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
    (folder / "1.jsonl").write_text(json.dumps({"messages": turns}))
    edit(folder / "tokenizer_config.json", auto_map=MAP, tokenizer_class="Tokenizer")
    for load in (weft.load, AutoProcessor.from_pretrained, weft.WeftProcessor.from_pretrained, open_model):
        with pytest.raises(WeftError, match=REFUSED):
            load(str(folder))
    with pytest.raises(WeftError, match=REFUSED):
        compose(language={**LANGUAGE, "tokenizer": str(folder)})
    with pytest.raises(WeftError, match=REFUSED):
        weft.WeftProcessor.from_pretrained(folder, trust_remote_code=True)
    commands = "show {}", "chat {} hello", "export {} --format llava -o out", "finetune {0} --data {0}/1.jsonl -o out"
    for command in commands:
        assert run(command.format(folder).split()) == 2
        assert "runs no code that comes with a checkpoint" in " ".join(capsys.readouterr().err.split())


def test_a_language_model_of_its_own_is_refused(folder, capsys):
    edit(folder / "config.json", "text_config", model_type="evil", auto_map=MAP)
    for load in (weft.load, AutoModelForMultimodalLM.from_pretrained):
        with pytest.raises(ValueError, match="evil"):
            load(folder)


@pytest.mark.parametrize("file", ["processor_config.json", "audio_tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["AutoModel", "AutoTokenizer", "LlamaForCausalLM"])
def test_a_processor_may_not_name_models_to_load(folder, mark, tmp_path, file, kind):
    other = armed(tmp_path, mark)
    edit(other / "config.json", model_type="evil", auto_map=MAP)
    named = {"audio_tokenizer_class": kind, "audio_tokenizer_name_or_path": str(other)}
    edit(folder / file, **(named if file.startswith("audio") else {"audio_tokenizer": named}))
    for load in (weft.load, weft.WeftProcessor.from_pretrained, lambda f: open_model(str(f))):
        with pytest.raises(WeftError, match=f"its {file} names an audio tokenizer"):
            load(folder)


@pytest.mark.parametrize("text", ["[]", "null", '"weft"', "3", "{"])
def test_a_file_that_holds_no_object_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    for read in (
        lambda: doors.read_json(tmp_path, "config.json"),
        lambda: checkpoints.read_json(tmp_path / "config.json"),
    ):
        with pytest.raises(WeftError, match=r"config\.json"):
            read()


@pytest.mark.parametrize("text", ["", "[]", "null", '"weft"', "3"])
@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_of_a_model_that_holds_no_object_is_named(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(WeftError, match=name.replace(".", r"\.") + ": holds no JSON object; copy it again"):
        weft.load(folder)


@pytest.mark.slow
def test_a_way_to_generate_of_its_own_is_not_taken(folder):
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "evil.py", folder / "custom_generate" / "generate.py")
    assert weft.load(folder, device="cpu").chat("hello").text is not None


def test_a_template_cannot_reach_python(folder, mark):
    reach = "{{ cycler.__init__.__globals__.os.system('touch MARK') }}".replace("MARK", str(mark))
    (folder / "chat_template.jinja").write_text(reach)
    processor = AutoProcessor.from_pretrained(folder)
    assert "touch" not in processor.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    with pytest.raises(SecurityError):
        processor.tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)


def test_attention_from_the_hub_is_refused(folder):
    for asked in ("evil/kernel", "evil/kernel@main:go", {"": "evil/kernel"}):
        edit(folder / "config.json", "text_config", attn_implementation=asked)
        for load in (weft.load, AutoModelForMultimodalLM.from_pretrained):
            with pytest.raises(WeftError, match="wants to run code from the hub"):
                load(folder)


# Parts of a recipe.


@pytest.fixture
def language(tmp_path, mark):
    made = LlamaForCausalLM(LlamaConfig(**{**tiny.TEXT, "vocab_size": 1025}))
    made.save_pretrained(tmp_path / "language")
    bytes_tokenizer().save_pretrained(tmp_path / "language")
    return armed(tmp_path / "language", mark)


def test_a_language_part_of_a_known_type_loads_and_another_is_refused(language):
    edit(language / "config.json", auto_map=MAP)
    edit(language / "tokenizer_config.json", auto_map=MAP)
    assert type(compose(language=str(language))[0].language_model) is LlamaForCausalLM
    edit(language / "config.json", model_type="evil")
    with pytest.raises(WeftError, match=REFUSED):
        compose(language={"source": str(language), "tokenizer": str(language)})
    edit(language / "tokenizer_config.json", tokenizer_class="Tokenizer")
    with pytest.raises(WeftError, match=REFUSED):
        compose(language=str(language))


def test_an_encoder_part_brings_weights_and_no_code(tmp_path, mark):
    from transformers import CLIPConfig, WhisperConfig

    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPModel(CLIPConfig(vision_config=tiny.VISION["clip"], text_config=text)).save_pretrained(tmp_path / "clip")
    WhisperModel(WhisperConfig(**tiny.WHISPER)).save_pretrained(tmp_path / "whisper")
    for part in ("clip", "whisper"):
        edit(armed(tmp_path / part, mark) / "config.json", auto_map=MAP)
        edit(tmp_path / part / "preprocessor_config.json", auto_map=MAP)
    edit(tmp_path / "clip" / "preprocessor_config.json", do_normalize=False, resample=3)
    model, _ = compose(str(tmp_path / "clip"), str(tmp_path / "whisper"), LANGUAGE)
    assert model.vision is not None and model.audio is not None


# Adapters.


def adapter(whole: Path, out: Path, **changes) -> Path:
    out.mkdir()
    for file in whole.glob("*.json"):
        shutil.copyfile(file, out / file.name)
    fields = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": r"language_model.*q_proj",
        "inference_mode": True,
    }
    (out / "adapter_config.json").write_text(json.dumps({**fields, "base_model_name_or_path": str(whole), **changes}))
    at, tensors = "base_model.model.language_model.model.layers.{}.self_attn.q_proj.lora_{}.weight", {}
    for layer in range(2):
        tensors[at.format(layer, "A")] = torch.randn(2, 32)
        tensors[at.format(layer, "B")] = torch.randn(32, 2)
    save_file(tensors, out / "adapter_model.safetensors")
    return out


def test_the_base_of_an_adapter_brings_no_code(folder, tmp_path):
    edit(folder / "config.json", auto_map=MAP)
    edit(folder / "tokenizer_config.json", auto_map=MAP, tokenizer_class="Tokenizer")
    made = adapter(folder, tmp_path / "adapter")
    with pytest.raises(WeftError, match=REFUSED):
        weft.load(made)
    assert AutoModelForMultimodalLM.from_pretrained(made) is not None


def test_adapters_that_load_other_models_are_refused(folder, tmp_path):
    edit(folder / "tokenizer_config.json", auto_map=MAP, tokenizer_class="Tokenizer")
    kinds = {"PROMPT_TUNING": {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "a", "num_virtual_tokens": 1}}
    kinds |= {"XLORA": {"adapters": {"0": str(folder)}}, "CPT": {}}
    for kind, fields in kinds.items():
        more = {"peft_type": kind, "tokenizer_name_or_path": str(folder), "inference_mode": False, **fields}
        made = adapter(folder, tmp_path / kind, **more)
        for load in (weft.load, AutoModelForMultimodalLM.from_pretrained, lambda f: merge(str(f), tmp_path / "out")):
            with pytest.raises(WeftError, match=f"an adapter of the kind {kind}, and weft takes LoRA"):
                load(made)


# Pickles.


class Dangerous:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("harmless", [True, False])
@pytest.mark.parametrize("name", [slow("pytorch_model.bin"), "pytorch_model-00001-of-00001.bin"])
def test_pickled_weights_of_a_weft_folder_are_to_be_converted(folder, mark, name, harmless):
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors if harmless else {"a": Dangerous(mark)}, folder / name)
    torch.save({"a": Dangerous(mark)}, folder / "training_args.bin")
    weft.load(folder, device="cpu")  # safetensors are there, and nothing else is looked at
    (folder / "model.safetensors").unlink()
    if "-" in name:
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    for load in (weft.load, AutoModelForMultimodalLM.from_pretrained, lambda f: open_model(str(f))):
        with pytest.raises(WeftError, match="a pickle, .* convert it to safetensors") as error:
            load(folder)
        assert "weights_only" not in str(error.value)


def test_a_pickled_adapter_is_to_be_converted(whole, tmp_path, mark):
    made = adapter(whole, tmp_path / "adapter")
    torch.save({"a": Dangerous(mark)}, made / "adapter_model.bin")
    weft.load(made, device="cpu")
    (made / "adapter_model.safetensors").unlink()
    for load in (weft.load, AutoModelForMultimodalLM.from_pretrained, lambda f: merge(str(f), tmp_path / "out")):
        with pytest.raises(WeftError, match=r"adapter_model.bin: a pickle, .* convert it to safetensors"):
            load(made)


def test_a_part_that_is_published_as_a_pickle_brings_tensors_only(language, mark):
    """As older releases are."""
    tensors = load_file(language / "model.safetensors")
    (language / "model.safetensors").unlink()
    torch.save(tensors, language / "pytorch_model.bin")
    torch.save({"a": Dangerous(mark)}, language / "training_args.bin")
    own = compose(language=str(language))[0].language_model.state_dict()
    torch.testing.assert_close(own["model.norm.weight"], tensors["model.norm.weight"])
    torch.save({**tensors, "a": Dangerous(mark)}, language / "pytorch_model.bin")
    with pytest.raises(WeftError, match="its weights are a pickle that holds more than tensors.*safetensors") as error:
        compose(language=str(language))
    assert "weights_only" not in str(error.value)


def test_shards_without_an_index_are_not_any_pickle(language, mark):
    tensors = load_file(language / "model.safetensors")
    (language / "model.safetensors").unlink()
    torch.save(tensors, language / "pytorch_model-00001-of-00001.bin")
    torch.save({"a": Dangerous(mark)}, language / "training_args.bin")
    assert set(read_folder(language).shapes) == set(tensors)


# Indexes of weights.


def shards(folder: Path, file: str) -> Path:
    names = dict.fromkeys(load_file(folder / "model.safetensors"), file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def refused(folder: Path) -> None:
    for load in (weft.load, AutoModelForMultimodalLM.from_pretrained, lambda f: read_folder(Path(f))):
        with pytest.raises(WeftError, match="which is outside of its folder"):
            load(folder)


def test_an_index_names_files_of_its_folder(folder, tmp_path):
    index = shards(folder, "part.safetensors")
    weights = (folder / "model.safetensors").rename(tmp_path / "other.safetensors")
    (folder / "deeper").mkdir()
    for inside in ("part.safetensors", "deeper/part.safetensors"):
        shutil.copyfile(weights, folder / inside)
        index.write_text(index.read_text().replace("part.safetensors", inside) if "/" in inside else index.read_text())
        weft.load(folder, device="cpu")
    names = json.loads(index.read_text())["weight_map"]
    os.symlink(weights, folder / "link.safetensors")
    os.symlink(tmp_path, folder / "up")
    outside = [str(weights), "../other.safetensors", "deeper/../../other.safetensors", "link.safetensors"]
    outside += ["up/other.safetensors", str(folder / "part.safetensors"), "C:\\other.safetensors"]
    for name in outside:
        index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, name)}))
        refused(folder)
    for broken in ("{", "{}", '{"weight_map": []}'):
        index.write_text(broken)
        with pytest.raises(WeftError, match="not an index of weights"):
            weft.load(folder)


def test_a_snapshot_of_the_hub_s_cache_is_links_to_its_own_blobs(folder, tmp_path):
    shards(folder, "part.safetensors")
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    repository, other = tmp_path / "models--a--b", tmp_path / "models--a--c" / "blobs"
    snapshot = repository / "snapshots" / ("0" * 40)
    for made in (snapshot, repository / "blobs", other):
        made.mkdir(parents=True)
    for file in folder.glob("*.*"):
        shutil.copyfile(file, repository / "blobs" / f"hash-{file.name}")
        os.symlink(f"../../blobs/hash-{file.name}", snapshot / file.name)
    weft.load(snapshot, device="cpu")
    read_folder(snapshot)
    shutil.copyfile(folder / "part.safetensors", other / "hash")
    (snapshot / "part.safetensors").unlink()
    os.symlink(other / "hash", snapshot / "part.safetensors")
    refused(snapshot)


# Names.


def test_one_rule_says_what_a_name_stands_for_and_every_command_has_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs", "model", "scratch"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").write_text("")
    assert [weft.resolve(name) for name in ("scratch", "./scratch", "model", tmp_path, "owner/name")] == [
        *("built-in", "folder", "folder", "folder", "hub"),
    ]
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
    (tmp_path / "1.jsonl").write_text(json.dumps({"messages": turns}))
    commands = (
        "chat {} hello",
        "show {}",
        "generate {} 1.jsonl -o a.jsonl",
        "evaluate {} --data 1.jsonl",
        "merge {} -o o",
    )
    commands += "finetune {} --data 1.jsonl -o o", "export {} --format llava -o o", "data stats 1.jsonl --model {}"
    for name in ("nowhere", "runs/model", "./owner/name", "/owner/name", "~/name", "a/b/c", "file"):
        with pytest.raises(WeftError, match="there is no model folder .* a hub name"):
            weft.resolve(name)
        for command in commands if name in ("nowhere", "~/name", "file") else ():
            assert run(command.format(name).split()) == 2
            assert f"there is no {'folder' if command[0] == 'm' else 'model folder'}" in capsys.readouterr().err


# The rule.


def test_nothing_else_in_weft_opens_a_folder_through_transformers_or_peft():
    source = Path(weft.__file__).parent
    doors = {"from_pretrained", "from_config", "get_class_from_dynamic_module", "hf_hub_download"}
    options = ("trust_remote_code", "weights_only")
    for file in source.rglob("*.py"):
        if file == source / "models" / "doors.py":
            continue
        text = file.read_text()
        if not any(name in text for name in (*doors, *options)):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in doors:
                own = ast.unparse(node.func.value) in ("super()", "processing.WeftProcessor")  # they guard themselves
                assert own, f"{file}:{node.lineno}: {ast.unparse(node.func)} outside of models/doors.py"
            words = {k.arg: k.value for k in node.keywords} if isinstance(node, ast.Call) else {}
            for option in options:
                value = words.get(option)
                if value is not None:
                    wanted = option == "weights_only"
                    assert isinstance(value, ast.Constant) and value.value is wanted, f"{file}:{node.lineno}"
