"""Key maps are data: what a rule says holds in both directions, and every system's table gives back what it read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from published_kits import MiniGPT, Qwen
from test_import_llasm import LLaSM
from torch import Tensor

from weft.formats import eva, llama, llasm, minigpt_v2, qwen_audio
from weft.formats.checkpoints import CheckpointError, Output, Tensors, read_file, read_folder
from weft.formats.layouts import by_theirs, write
from weft.formats.mapping import How, Input, Rule, Stacked, by_ours, read, wanted_by
from weft.models.config import WeftConfig

RULES = (
    Rule("old.*", "mine.*"),
    Rule("new.*", "mine.*"),
    Rule("block#.qkv.*", tuple(f"layer#.{letter}.*" for letter in "qkv"), Stacked()),
    Rule("block#.odd.weight", "layer#.plain.weight"),
    Rule("left.*", None),
)


def tensors(**held: Tensor) -> Tensors:
    names = {name.replace("__", "."): value for name, value in held.items()}
    shapes = {name: tuple(value.shape) for name, value in names.items()}
    return Tensors("it", shapes, {name: value.dtype for name, value in names.items()}, names.__getitem__)


def values(outputs: list[Output]) -> dict[str, Tensor]:
    return {o.name: o.make() for o in outputs}


def test_numbers_and_rests_are_carried_over() -> None:
    (place,) = by_ours(RULES, "layer12.k.bias")
    assert (place.theirs, place.ours, place.at) == (
        ["block12.qkv.bias"],
        ["layer12.q.bias", "layer12.k.bias", "layer12.v.bias"],
        1,
    )
    found = by_theirs(RULES, "block3.odd.weight")
    assert found is not None and found.ours == ["layer3.plain.weight"]
    assert by_theirs(RULES, "block.odd.weight") is None and by_ours(RULES, "layerX.q.bias") == []
    narrow = (Rule("model.*", "a.*"), Rule("model.inner.*", "b.*"))
    found = by_theirs(narrow, "model.inner.x")
    assert found is not None and found.ours == ["b.x"]


@pytest.mark.parametrize("age", ["old", "new"])
def test_what_is_read_is_written_as_it_was(age: str) -> None:
    qkv, plain = torch.randn(7, 2), torch.randn(3, 3)
    held = tensors(**{f"{age}__a": torch.ones(4), "block0__qkv__weight": qkv, "block0__odd__weight": plain})
    held = tensors(**{n.replace(".", "__"): held[n] for n in held.shapes}, left__over=torch.ones(1))
    wanted = {"mine.a": (4,), "layer0.q.weight": (3, 2), "layer0.k.weight": (2, 2), "layer0.v.weight": (2, 2)}
    wanted["layer0.plain.weight"] = (3, 3)
    got = values(read(wanted, [Input(held, RULES)]))
    assert held.surplus == {"left.over"} and got.keys() == wanted.keys()
    assert torch.equal(torch.cat([got[f"layer0.{letter}.weight"] for letter in "qkv"]), qkv)
    mine = tensors(**{name.replace(".", "__"): value for name, value in got.items()})
    outputs, problems = write({n: s for n, s in held.shapes.items() if n != "left.over"}, RULES, mine)
    assert not problems
    back = values(outputs)
    assert torch.equal(back["block0.qkv.weight"], qkv) and torch.equal(back["block0.odd.weight"], plain)
    assert torch.equal(back["old.a"], torch.ones(4))  # the first name is the one that is written


def test_all_that_is_off_is_said_at_once() -> None:
    held = tensors(
        old__a=torch.ones(5), block0__qkv__weight=torch.ones(6, 2), strange=torch.ones(2), left__b=torch.ones(1)
    )
    wanted = {"mine.a": (4,), "layer0.q.weight": (2, 3), "layer0.k.weight": (2, 3), "layer0.v.weight": (2, 3)}
    with pytest.raises(CheckpointError) as error:
        read(wanted | {"layer1.plain.weight": (7,)}, [Input(held, RULES)])
    said = str(error.value)
    assert said.startswith("it: the tensors do not fit the published layout; ")
    assert "1 missing: block1.odd.weight (7)" in said
    assert "of another shape: old.a (5) for (4), block0.qkv.weight (6, 2) for (6, 3)" in said
    assert "1 unexpected: strange (2)" in said
    with pytest.raises(CheckpointError, match="no rule says where mine2 comes from"):
        read({"mine2": (1,)}, [Input(held, RULES)])


def test_the_layout_that_is_there_is_the_one_that_lacks_a_tensor() -> None:
    held = tensors(new__a=torch.ones(4), new__b=torch.ones(4))
    with pytest.raises(CheckpointError, match=r"1 missing: new\.c \(4\)"):
        read({f"mine.{letter}": (4,) for letter in "abc"}, [Input(held, RULES)])


def test_what_no_file_holds_is_made_and_what_cannot_be_written_is_said() -> None:
    held = tensors(old__a=torch.ones(4))
    got = values(read({"mine.a": (4,), "start": (2,)}, [Input(held, RULES)], {"start": torch.zeros(2)}))
    assert got["start"].tolist() == [0, 0]
    outputs, problems = write({"old.a": (3,), "else": (1,)}, RULES, tensors(mine__a=torch.ones(4), other=torch.ones(1)))
    assert not outputs
    assert problems == ["mine.a (4,) for (3,)", "else has no counterpart", "no place for other"]


# Every system.


def same(rules: tuple[Rule, ...], theirs: Tensors, model: dict[str, Tensor]) -> None:
    """What the table makes of weft's tensors is what they were read from, to the bit."""
    wanted = {name: shape for name, shape in theirs.shapes.items() if name not in theirs.surplus}
    mine = tensors(**{name.replace(".", "__"): value for name, value in model.items()})
    outputs, problems = write(wanted, rules, mine)
    assert [p for p in problems if not p.startswith("no place for")] == []
    for output in outputs:
        assert torch.equal(output.make(), theirs[output.name]), output.name
    assert {o.name for o in outputs} == set(wanted)


def test_qwen_audio_comes_back_to_the_bit(tmp_path: Path) -> None:
    kit = Qwen(tmp_path, ids_only=False)
    raw = json.loads((kit.folder / "config.json").read_text())
    weights = read_folder(kit.folder)
    outputs = read(wanted_by(qwen_audio.qwen_audio_config(raw)), [Input(weights, qwen_audio.RULES)])
    same(qwen_audio.RULES, weights, values(outputs))


def test_llasm_comes_back_to_the_bit(tmp_path: Path) -> None:
    kit = LLaSM(tmp_path)
    weights, tower = read_folder(kit.checkpoint), read_folder(kit.whisper)
    text = llama.llama_config(kit.checkpoint, ("llaaa", "llama"), weights)
    config = WeftConfig(text_config=text, audio=llasm.whisper_section(kit.whisper, 64))
    model = values(llasm.plan(config, weights, tower))
    same((*llasm.PROJECTOR, *llama.RULES), weights, model)
    same(llasm.WHISPER, tower, model)


def test_minigpt_v2_comes_back_to_the_bit_where_positions_keep_their_grid(tmp_path: Path) -> None:
    kit = MiniGPT(tmp_path)
    files = kit.arguments()
    tower, language = read_file(files["vision"]), read_folder(files["llm"])
    trained = read_file(files["checkpoint"], inside="model")
    side = round((tower.shapes["pos_embed"][1] - 1) ** 0.5) * tower.shapes["patch_embed.proj.weight"][-1]
    section, left = eva.eva_section(tower, side, None)
    config = WeftConfig(text_config=llama.llama_config(files["llm"], weights=language), vision=section)
    outputs, lora = minigpt_v2.plan(config, tower, left, language, trained, 16)
    model = values(outputs)
    same(llama.RULES, language, model)
    same(eva.TOWER, tower, model)
    trained.surplus |= {name for update in lora.values() for name in (update.a, update.b)}
    same(minigpt_v2.RULES, trained, model)


def test_a_way_of_a_system_s_own_is_a_class_with_both_directions() -> None:
    bias = eva.NoKeyBias()
    q, v = torch.randn(4), torch.randn(4)
    (whole,) = bias.read([q, v], [(12,)])
    assert torch.equal(whole, torch.cat([q, torch.zeros(4), v]))
    assert [torch.equal(a, b) for a, b in zip(bias.write([whole]), (q, v), strict=True)] == [True, True]
    assert isinstance(bias, How)
