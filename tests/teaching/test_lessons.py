"""What a stage can ask for, how it is read, and that a run is taught it."""

import json
from io import StringIO

import pytest
from rich.console import Console

from processes import Python
from training_world import picture, speech, tiny_recipe, write
from weft.conversation import WeftError
from weft.data.augment import Augment
from weft.teaching import teach
from weft.training.overrides import override
from weft.training.recipe import Optim, Source, Stage
from weft.training.run import train


def go(recipe, run, **options):
    return train(recipe, run, **{"teach": teach, "console": Console(file=StringIO()), **options})


def records(run):
    return [r for r in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if r["event"] == "step"]


def test_listening_first_teaches_the_encoder_alone_and_then_both(tmp_path):
    path = write(tmp_path / "clips", 12, (speech,))
    recipe = tiny_recipe(
        path, steps=8, lessons={"listen": {"weight": 1.0, "first": 3}}, optim=Optim(lr=3e-2, warmup_steps=1)
    )
    go(recipe, tmp_path / "run")
    steps = records(tmp_path / "run")
    alone = [r["loss"] == 0 for r in steps[:3] if "listen" in r]  # rows without word times learn answers all the same
    assert alone and all(alone) and all(r["loss"] > 0 for r in steps[3:])
    heard = [r["listen"] for r in steps if "listen" in r]
    assert heard[-1] < 0.8 * heard[0]


def test_a_stage_that_would_only_listen_says_so(tmp_path):
    path = write(tmp_path / "pictures", 4, (picture,))
    console = Console(file=StringIO(), width=300)
    go(tiny_recipe(path, steps=2, lessons={"listen": {"weight": 1.0, "first": 4}}), tmp_path / "run", console=console)
    assert "2 updates only listen and look, and learn no answers" in console.file.getvalue()
    assert "stages.0.lessons.listen.first=N, 4 now" in console.file.getvalue()


@pytest.mark.slow
def test_looking_first_teaches_the_encoder_alone_and_then_both(tmp_path):
    path = write(tmp_path / "pictures", 12, (picture,))
    recipe = tiny_recipe(
        path, steps=8, lessons={"listen": {"weight": 1.0, "first": 4}}, optim=Optim(lr=1e-2, warmup_steps=1)
    )
    go(recipe, tmp_path / "run")
    steps = records(tmp_path / "run")
    assert [r["loss"] > 0 for r in steps] == [False] * 4 + [True] * 4
    assert steps[-1]["look"] < 0.8 * steps[0]["look"]


def test_a_stage_with_lessons_that_nobody_teaches_is_an_error_and_leaves_nothing(tmp_path):
    path = write(tmp_path / "pictures", 4, (picture,))
    stage_own = tiny_recipe(path, lessons={"near": 2.0, "balance": 0.5})
    source_own = tiny_recipe(path, mixture=(Source(path=str(path), lessons={"converse": 0.5}),))
    for recipe, named in ((stage_own, r"near, balance"), (source_own, "converse")):
        with pytest.raises(WeftError, match=rf'stage "train" has lessons \({named}\).*weft.teaching.teach'):
            go(recipe, tmp_path / "run", teach=None)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("lessons", "said"),
    [
        (
            {"lisen": {}},
            "stages.0.lessons.lisen: no such lesson; there are ease, converse, listen, keep, balance, near",
        ),
        ({"listen": {"frist": 3}}, "stages.0.lessons.listen.frist: no such lesson"),
        ({"listen": {"first": -1}}, "stages.0.lessons.listen.first: input should be greater than or equal to 0"),
        ({"balance": 2}, "stages.0.lessons.balance: input should be less than or equal to 1"),
        ({"near": "wide"}, "stages.0.lessons.near: input should be a valid number"),
    ],
)
def test_a_lesson_that_does_not_exist_is_an_error_that_says_where(lessons, said):
    with pytest.raises(WeftError, match=said):
        teach(Stage(lessons=lessons), "stages.0")


def test_what_is_of_the_whole_stage_is_no_lesson_of_a_source():
    with pytest.raises(WeftError, match=r"stages.1.mixture.0.lessons.near: no such lesson; there are ease, converse"):
        teach(Stage(mixture=(Source(path="a.jsonl", lessons={"near": 1}),)), "stages.1")


# What version 0.1.0 wrote into recipe.json of such stages.
LISTEN = {"weight": 1.0, "first": 300, "guide": 1.0}
NOTHING = {"weight": 0.0, "first": 0, "guide": 0.0}
EVERY = {**Augment().model_dump(mode="json", exclude={"cut_words"}), "ease": 0, "converse": 0.0}


def old_stage(augment=EVERY, source=None, **values):
    stage = Stage(mixture=(Source(path="a.jsonl"),)).model_dump(mode="json", exclude={"lessons"})
    del stage["mixture"][0]["lessons"]
    stage["mixture"][0]["augment"] = source
    return {**stage, "listen": NOTHING, "balance": 0.0, "near": 0.0, "augment": augment, **values}


@pytest.mark.parametrize(
    ("old", "lessons", "of_source"),
    [
        (old_stage(), {}, None),
        (old_stage(listen=LISTEN, near=2.0), {"listen": LISTEN, "near": 2.0}, None),
        (old_stage({**EVERY, "converse": 0.75}, balance=0.5), {"balance": 0.5, "converse": 0.75}, None),
        (
            old_stage({**EVERY, "ease": 9}, {**EVERY, "join": 0.5}),
            {"ease": 9},
            {},
        ),  # the source had none of its stage's
        (old_stage(source={**EVERY, "ease": 9}), {}, {"ease": 9}),
        ({"near": 1, "mixture": [{"path": "a.jsonl", "augment": {"join": 0.5}}]}, {"near": 1}, {}),
        ({"augment": {"converse": 1.0}, "mixture": [{"path": "a.jsonl"}]}, {"converse": 1.0}, None),
    ],
)
def test_a_stage_of_0_1_0_means_what_it_meant(old, lessons, of_source):
    stage = Stage.model_validate(old)
    assert stage.lessons == lessons and stage.mixture[0].lessons == of_source
    assert Stage.model_validate_json(stage.model_dump_json()) == stage  # as it is written now
    taught = teach(stage)
    (own,) = taught.of_sources
    meant = {**{"ease": 0, "converse": 0.0}, **(lessons if of_source is None else of_source)}
    assert (own.ease, own.converse) == (meant["ease"], meant["converse"])


@pytest.mark.parametrize(
    ("said", "lessons"),
    [
        ("stages.0.listen.first=5", {"listen": {"first": 5}}),
        ("stages.0.lessons.listen.first=5", {"listen": {"first": 5}}),
        ("stages.0.near=1.5", {"near": 1.5}),
        ("stages.0.augment.converse=0.5", {"converse": 0.5}),
        ('stages.0.listen={"weight": 2}', {"listen": {"weight": 2}}),
    ],
)
def test_a_value_can_be_set_where_0_1_0_had_it(said, lessons):
    recipe = tiny_recipe("a.jsonl", lessons={"balance": 0.25})
    assert override(recipe, [said]).stages[0].lessons == {"balance": 0.25, **lessons}
    own = override(recipe, ["stages.0.mixture.0.augment.ease=7"])
    assert own.stages[0].mixture[0].lessons == {"ease": 7} and own.stages[0].lessons == {"balance": 0.25}


WITHOUT = """
import sys
from io import StringIO
from rich.console import Console
sys.modules |= {name: None for name in ["weft.teaching", *sys.modules] if name.startswith("weft.teaching")}
from weft.runs import teacher
from weft.conversation import WeftError
from weft.training.recipe import Recipe
from weft.training.run import train
recipe = Recipe.model_validate_json(open(sys.argv[1]).read())
train(recipe, sys.argv[2], teach=teacher(recipe), console=Console(file=StringIO()))
lessons = recipe.model_copy(update={"stages": (recipe.stages[0].model_copy(update={"lessons": {"near": 1.0}}),)})
try:
    train(lessons, sys.argv[2] + "-taught", teach=teacher(lessons))
except WeftError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_framework_without_the_package_trains(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(tiny_recipe(write(tmp_path / "samples", 6), steps=2).model_dump_json())
    ended = Python(WITHOUT, file, tmp_path / "run")
    said = ended.communicate()
    assert ended.returncode == 0, said
    assert len(records(tmp_path / "run")) == 2 and (tmp_path / "run" / "final").is_dir()
    assert "has lessons (near)" in said
