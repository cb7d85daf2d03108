"""Ranks that compute each layer together learn what one process does."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny

from marks import nightly
from rank_processes import QUIET, nearly, processes_of, stage_of, steps, together, told_alike
from training_world import picture, speech, text, tiny_recipe, tiny_spec, write
from weft.conversation import WeftError
from weft.models.attention import TESTED_FAMILIES
from weft.training.ranks import Ranks
from weft.training.recipe import LanguageSource, Lora, ModelSpec, Optim, Parallel, PartTraining, Recipe
from weft.training.run import train
from weft.training.tensor_parallel import Neighbours, spread

CALM = {"lr": 1e-3, "warmup_steps": 1, "eps": 1e-5, "schedule": "constant"}  # as in test_sharding
PARTS = {
    "lora": {
        "language": PartTraining(train="lora", lora=Lora(r=2, alpha=4, dropout=0.2)),
        "vision_connector": PartTraining(train="full"),
    },
    "frozen": {name: PartTraining(train="full") for name in ("vision_connector", "audio_connector")},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Rows of one sample each: a rank's row is a picture, a clip or text alone."""
    return write(tmp_path_factory.mktemp("samples"), 20, (speech, picture, speech, text))


def spec(tied: bool = False) -> ModelSpec:
    """Two layers of four heads, two of keys; encoders and LoRA with dropout."""
    made = tiny_spec(dropout=0.1)
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "tie_word_embeddings": tied}
    return made.model_copy(update={"language": LanguageSource(config={**made.language.config, **shape})})


def recipe(files: Path, apart: int, parallel: Parallel | None = None, tied: bool = False, **more) -> Recipe:
    """Of two rows an update, which ``apart`` groups of ranks read."""
    stage = {"row_tokens": 96, "steps": 2, "optim": Optim(**CALM), "accumulate": 2 // apart, **more}
    return tiny_recipe(files, spec(tied), recipe={"parallel": parallel or Parallel()}, **stage)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "world", "parallel"),
    [
        nightly("full", 2, {"tensor": 2}),
        nightly("lora", 2, {"tensor": 2}),
        nightly("frozen", 2, {"tensor": 2}),
        nightly("full", 4, {"tensor": 2}),
        ("lora", 4, {"tensor": 2, "replicate": 2}),
    ],
)
def test_ranks_that_compute_layers_together_learn_what_one_does(files, tmp_path, kind, world, parallel):
    """Two of them; and two by two, where the pairs share the model out, or hold it once each."""
    stage = {"parts": PARTS[kind]} if kind in PARTS else {"checkpoint_activations": True}
    tied = kind == "frozen"
    one = train(recipe(files, 1, tied=tied, **stage), tmp_path / "one", console=QUIET)
    asked = recipe(files, world // 2, Parallel(**parallel), tied, **stage)
    ended = together(world, asked, tmp_path / "many")
    assert [status for status, _ in ended] == [0] * world, ended
    nearly(one, tmp_path / "many" / "final", 1e-6)
    told_alike(tmp_path / "one", tmp_path / "many")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, Parallel(tensor=2)), (1, Parallel())),
        nightly((2, Parallel(shard=True)), (2, Parallel(tensor=2))),
        nightly((2, Parallel(tensor=2)), (4, Parallel(tensor=2))),
    ],
    ids=["alone", "from-slices", "two-by-two"],
)
def test_a_run_goes_on_with_other_ranks_and_other_neighbours(files, tmp_path, before, after):
    """It ends as it would have ended without a change."""
    whole = train(recipe(files, 1, steps=3), tmp_path / "whole", console=QUIET)
    for (world, parallel), number in ((before, 2), (after, 3)):
        asked = recipe(files, world // parallel.tensor, parallel, steps=number)
        if number == 3:
            shutil.rmtree(tmp_path / "run" / "final")
            (tmp_path / "run" / "recipe.json").write_text(asked.model_dump_json())
        ended = together(world, None if number == 3 else asked, tmp_path / "run")
        assert [status for status, _ in ended] == [0] * world, ended
    assert [record["step"] for record in steps(tmp_path / "run")] == [1, 2, 3]
    nearly(whole, tmp_path / "run" / "final", 1e-6)


GRADIENTS = """
import sys, torch
sys.path.insert(0, sys.argv[2])
import tiny
from pathlib import Path
from weft.data.loader import Batch
from weft.training.build import build_model
from weft.training.parallel import entire
from weft.training.parts import apply_parts, spare_activations
from weft.training.ranks import Ranks, leave
from weft.training.recipe import FULL, Recipe, Stage
from weft.training.tensor_parallel import Together
from weft.training.update import backward
ranks = Ranks.start()
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
rows = [tiny.words(n, n) for n in (9, 1, 14, 3)]
ids = torch.tensor([[i for row in rows for i in row]])
lengths = torch.tensor([len(row) for row in rows])
inputs = {"input_ids": ids, "labels": ids, "segment_lengths": lengths}
batch = Batch(inputs, tokens=27, places=27, labels=23, samples=[])
holding = Together(Path(sys.argv[1]).parent, ranks, recipe)
for family in sys.argv[3].split(","):
    for precision, near in (("float32", 1e-5), ("bfloat16", 0.1)):
        if precision == "bfloat16" and family not in ("llama", "gemma2"):
            continue
        found = []
        for alone in (True, False):
            model = tiny.model(family, tie_word_embeddings=family == "gemma2")
            parts = apply_parts(model, Stage(parts={"language": FULL}))
            if not alone:
                parts = holding.begin(model, parts, precision == "bfloat16")
                spare_activations(model, precision == "bfloat16")
            told = backward(model, [batch], precision=precision, sharded=not alone)
            if not alone:
                holding.add(parts[-1].parameters)
            found.append({n: entire(p.grad) for n, p in parts[-1].parameters.items()} | {"loss": told["loss"]})
        one, many = found
        assert one.keys() == many.keys()
        off = {n: float((one[n] - many[n]).norm() / (one[n].norm() + 1e-3)) for n in one}
        assert max(off.values()) < near, (family, precision, {n: x for n, x in off.items() if x >= near})
        print(family, precision, max(off.values()))
leave()
"""


@pytest.mark.slow
def test_gradients_of_the_tested_families_are_those_of_one_process(tmp_path):
    """Biases, norms of heads, windows, a tied head; of two in half precision, and with activations made anew."""
    source = tmp_path / "recipe.json"
    source.write_text(tiny_recipe(tmp_path / "none", recipe={"parallel": Parallel(tensor=2)}).model_dump_json())
    models = Path(tiny.__file__).parent
    ended = processes_of(2, GRADIENTS, source, models, ",".join(TESTED_FAMILIES))
    assert [status for status, _ in ended] == [0, 0], ended


@pytest.mark.parametrize(
    ("width", "named"),
    [({"num_key_value_heads": 2}, "2 heads"), ({"num_key_value_heads": 4, "intermediate_size": 50}, "a width of 50")],
)
def test_heads_that_do_not_divide_are_refused(width, named):
    model = tiny.model(**width)
    with pytest.raises(WeftError, match=f"{named}, which do not come in 4 equal parts"):
        spread(model, SimpleNamespace(size=lambda: 4))


def test_what_has_no_plan_or_draws_for_all_heads_is_refused():
    model, mesh = tiny.model(attention_dropout=0.1), SimpleNamespace(size=lambda: 2)
    model.train()
    with pytest.raises(WeftError, match="attention_dropout"):
        spread(model, mesh)
    model.language_model.config.base_model_tp_plan = {"layers.*.mlp": "moe_tp_experts"}
    with pytest.raises(WeftError, match="moe_tp_experts, which is not done here"):
        spread(model, mesh)
    model.language_model.config.base_model_tp_plan = None
    with pytest.raises(WeftError, match="carries no plan"):
        spread(model, mesh)


def test_ranks_that_do_not_come_in_groups_and_lessons_are_refused(tmp_path):
    asked = tiny_recipe(tmp_path / "none", recipe={"parallel": Parallel(tensor=2)})
    with pytest.raises(WeftError, match="3 ranks do not come in groups of so many"):
        Neighbours.of(Ranks(world=3), asked)
    taught = tiny_recipe(tmp_path / "none", recipe={"parallel": Parallel(tensor=2)}, **stage_of("listen"))
    with pytest.raises(WeftError, match="leave out the lessons, or parallel.tensor"):
        Neighbours.of(Ranks(world=4), taught)


def test_neighbours_read_one_row_and_count_it_once(tmp_path):
    asked = tiny_recipe(tmp_path / "none", recipe={"parallel": Parallel(tensor=2)})
    four = [Neighbours.of(Ranks(rank, 4), asked) for rank in range(4)]
    assert [each.share() for each in four] == [{"rank": rank, "world": 2} for rank in (0, 0, 1, 1)]
    assert [each.place(3) for each in four] == [6, 6, 7, 7]
    assert [each.reads for each in four] == [True, False, True, False]
