"""The papers' claims once more, on pretrained parts: the recipes' size `real`, every arm for the same CPU time.

    python -m benchmarks.ablations.real [NAME ...] [--hours 1] [--seeds 3] [--digits real/digits] -o FOLDER

An arm is timed for three updates, and takes as many as its CPU hours hold. Runs are kept in ``FOLDER/NAME.json``: one
that is there is not repeated. ``FOLDER/NAME.md`` is the table, mean and standard error over seeds; ``NAME.svg`` a plot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib as mpl

mpl.use("agg")
from benchmarks.ablations.__main__ import told
from matplotlib import pyplot as plt
from rich.console import Console

import weft
from weft.conversation import Conversation, Task, Text, Words, read_samples, write_samples
from weft.data.loader import SourceSpec, TrainingData
from weft.evaluation.run import evaluate
from weft.files import whole_file
from weft.generation import Options
from weft.playground import world
from weft.recipes import load_recipe
from weft.teaching import teach
from weft.training.build import build_model
from weft.training.optim import build_optimizer, embedding_ids
from weft.training.parts import apply_parts, dialect_tokens
from weft.training.recipe import Recipe, Source, Stage
from weft.training.run import train
from weft.training.update import backward

Change = Callable[[Conversation], Conversation | None]
TURNS = 3  # updates that are timed
TESTED_SEED = 5


def as_words(sample: Conversation) -> Conversation:
    """Asked without the task's identifier: what words there are stand alone."""
    messages = []
    for message in sample.messages:
        parts = tuple(part for part in message.parts if not isinstance(part, Task))
        bare = message.role == "user" and not any(isinstance(part, Text) for part in parts)
        messages.append(replace(message, parts=(*parts, Text("Describe the picture.")) if bare else parts))
    return replace(sample, messages=tuple(messages))


def untimed(sample: Conversation) -> Conversation:
    """The same transcript without times; when a word is said, where that is what is asked, stays."""
    task = sample.messages[0].task
    if task is None or task.name != "transcribe":
        return sample

    def plain(part: Any) -> Any:
        if isinstance(part, Words):
            return Text(" ".join(word.text for word in part.words))
        if isinstance(part, Task) and part.get("timestamps"):
            return Task(part.name, {key: value for key, value in part.fields.items() if key != "timestamps"})
        return part

    return sample.changed(plain)


def alike(sample: Conversation) -> Conversation:
    return sample


@dataclass(frozen=True)
class Arm:
    """``stages``: each one's share of the time and its tasks; ``merge``: features to a token; ``change``: of samples
    (of those it is measured on too where ``asked``)."""

    recipe: str
    stages: tuple[tuple[float, tuple[str, ...]], ...]
    merge: int | None = None
    change: Change = alike
    asked: bool = False


@dataclass(frozen=True)
class Figure:
    name: str
    task: str  # of the world; "digits": the recordings
    metric: str


SEEN = ("refer", "identify", "vqa", "caption")
MORE = (*SEEN, "grounded_caption", "detection")
HEARD = ("digits", "word_times", "transcribe", "locate_word")
PICTURES = (
    Figure("refer, IoU 0.5", "refer", "box_accuracy_50"),
    Figure("identify, exact", "identify", "exact"),
    Figure("questions, exact", "vqa", "exact"),
)
SOUNDS = (
    Figure("WER, digits", "digits", "wer"),
    Figure("WER, unseen sentences", "transcribe", "wer"),
    Figure("words found, ms", "locate_word", "word_time_ms"),
)
CLAIMS: dict[str, tuple[str, dict[str, Arm], tuple[Figure, ...]]] = {
    "merge": (
        "MiniGPT-v2 joins four neighbouring features into one token: a quarter of the tokens, for what quality?",
        {
            "each a token": Arm("minigpt_v2", ((1, SEEN),), merge=1),
            "four in one": Arm("minigpt_v2", ((1, SEEN),)),
        },
        PICTURES,
    ),
    "stages": (
        "MiniGPT-v2 trains in three stages, captions most at first; is one stage on all tasks as good?",
        {
            "one stage": Arm("minigpt_v2", ((1, ("caption", *SEEN, *MORE)),)),
            "three stages": Arm("minigpt_v2", ((0.5, ("caption", *SEEN)), (0.25, SEEN), (0.25, MORE))),
        },
        PICTURES,
    ),
    "identifiers": (
        "MiniGPT-v2 writes [task] before a request, so that tasks are not taken for one another.",
        {
            "words": Arm("minigpt_v2", ((1, SEEN),), change=as_words, asked=True),
            "identifiers": Arm("minigpt_v2", ((1, SEEN),)),
        },
        PICTURES,
    ),
    "srwt": (
        "Qwen-Audio trains on word times too (SRWT), and says that transcripts and grounding gain from it.",
        {
            "no times": Arm("qwen_audio", ((1, HEARD),), change=untimed),
            "word times": Arm("qwen_audio", ((1, HEARD),)),
        },
        SOUNDS,
    ),
    "srwt_digits": (
        "The same on spoken digits alone, of which half have word times: a quarter of an hour teaches those.",
        {
            "no times": Arm("qwen_audio", ((1, ("digits",)),), change=untimed),
            "word times": Arm("qwen_audio", ((1, ("digits",)),)),
        },
        (Figure("WER, digits", "digits", "wer"),),
    ),
}


def samples(folder: Path, task: str, split: str, count: int, seed: int, arm: Arm, digits: Path | None) -> Path:
    """The file of an arm's samples of a task, written once."""
    change = arm.change if split == "train" or arm.asked else untimed if task == "digits" else alike
    path = folder / f"{task}-{split}-{seed}-{getattr(change, '__name__', 'changed')}.jsonl"
    if not path.exists():
        drawn: Iterable[Conversation]
        if task == "digits":
            if digits is None:
                raise SystemExit("srwt is measured on spoken digits: say where they are with --digits FOLDER")
            drawn = read_samples(digits / f"{split}.jsonl")[:count]
        else:
            place = folder / f"{task}-{split}-{seed}"
            file = place / f"{split}.jsonl"
            drawn = read_samples(file if file.exists() else world.write(place, split, count, seed=seed, tasks=[task]))
        write_samples(path, filter(None, map(change, drawn)))
    return path


def recipe(arm: Arm, seed: int, data: Callable[[str], Path], updates: int) -> Recipe:
    base = load_recipe(arm.recipe, "real")
    model = base.model.model_copy(update={"seed": seed})
    if arm.merge is not None and model.vision is not None:
        connector = model.vision.connector.model_copy(update={"merge": arm.merge, "grid": False})
        model = model.model_copy(update={"vision": model.vision.model_copy(update={"connector": connector})})
    stages = []
    for number, (share, tasks) in enumerate(arm.stages):
        steps = max(2, round(share * updates))
        like = base.stages[0]
        mixture = tuple(
            Source(path=str(data(task)), name=task, weight=tasks.count(task)) for task in dict.fromkeys(tasks)
        )
        optim = like.optim.model_copy(update={"warmup_steps": min(30, steps // 5)})
        update = {"name": f"stage-{number + 1}", "steps": steps, "mixture": mixture, "optim": optim}
        stages.append(like.model_copy(update=update))
    found = {"name": "claim", "model": model, "stages": tuple(stages), "seed": seed, "checkpoint_every": 10**7}
    return base.model_copy(update=found)


def seconds(made: Recipe) -> float:
    """CPU seconds of an update: the median of a few."""
    stage: Stage = made.stages[-1]
    model, processor = build_model(made.model)
    optimizer = build_optimizer(
        apply_parts(model, stage, tokens=dialect_tokens(processor)), stage.optim, embedding_ids(model)
    )
    specs = [SourceSpec(s.path, s.weight, stage.augment, s.name) for s in stage.mixture]
    data = TrainingData(specs, processor, row_tokens=stage.row_tokens, cache_bytes=0)
    batches, spent = data.batches(), []
    for _ in range(TURNS):
        begin = time.process_time()
        backward(model, [next(batches)], precision=made.precision)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        spent.append(time.process_time() - begin)
    batches.close()  # type: ignore[attr-defined]
    return statistics.median(spent)


def run(arm: Arm, figures: tuple[Figure, ...], seed: int, given: argparse.Namespace) -> dict[str, Any]:
    folder = given.out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = partial(samples, folder, arm=arm, digits=given.digits)
    made = partial(recipe, arm, seed, lambda task: drawn(task, "train", given.samples, seed))
    cost = seconds(made(10))
    updates = max(2, int(3600 * given.hours / cost))
    place = given.out / "run"
    shutil.rmtree(place, ignore_errors=True)
    model = weft.load(train(made(updates), place, teach=teach, console=Console(quiet=True)))
    found: dict[str, float | None] = {}
    constant: dict[str, float | None] = {}
    for figure in figures:
        data = drawn(figure.task, "test", given.tested, TESTED_SEED)
        report = evaluate(model, data, options=Options(max_new_tokens=80), limit=given.tested)
        for target, table in ((found, report["metrics"]), (constant, report["baseline"])):
            values = [each[figure.metric] for each in table.values() if figure.metric in each]
            target[figure.name] = values[0] if values else None
    shutil.rmtree(place)
    return {"seed": seed, "updates": updates, "seconds": round(cost, 2), "figures": found, "constant": constant}


def table(name: str, runs: list[dict[str, Any]], hours: float) -> str:
    claim, arms, figures = CLAIMS[name]
    rows = [["", *arms, "best constant"], ["---", *["---:"] * (len(arms) + 1)]]
    for figure in figures:
        each = [told([r["figures"][figure.name] for r in runs if r["arm"] == arm]) for arm in arms]
        rows.append([figure.name, *each, told([runs[0]["constant"][figure.name]])])
    rows.append(["updates", *(told([float(r["updates"]) for r in runs if r["arm"] == arm]) for arm in arms), ""])
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    seeds = len({r["seed"] for r in runs})
    said = f"{60 * hours:g} CPU minutes an arm, {seeds} seed{'s' * (seeds != 1)}; mean ± standard error."
    return f"**{name}**: {claim}\n\n{said}\n\n{body}\n"


def draw(name: str, runs: list[dict[str, Any]], path: Path) -> None:
    """A panel a figure: each arm's mean, its standard error and its seeds."""
    _, arms, figures = CLAIMS[name]
    picture, panels = plt.subplots(1, len(figures), figsize=(3 * len(figures), 3), squeeze=False)
    for panel, figure in zip(panels[0], figures, strict=True):
        for place, arm in enumerate(arms):
            values = [r["figures"][figure.name] for r in runs if r["arm"] == arm]
            known = [value for value in values if value is not None]
            if known:
                error = statistics.stdev(known) / len(known) ** 0.5 if len(known) > 1 else 0
                panel.errorbar(place, statistics.fmean(known), error, fmt="s", capsize=4)
                panel.plot([place] * len(known), known, ".", color="grey")
        panel.set_title(figure.name, fontsize=9)
        panel.set_xticks(range(len(arms)), list(arms), fontsize=8)
        panel.set_xlim(-0.5, len(arms) - 0.5)
    picture.tight_layout()
    picture.savefig(path)
    plt.close(picture)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations.real", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CLAIMS)}; default: all")
    parser.add_argument("--hours", type=float, default=1.0, help="of a CPU for each arm (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2000, help="of each task to learn from (default: %(default)s)")
    parser.add_argument("--tested", type=int, default=100, help="of each task to measure on (default: %(default)s)")
    parser.add_argument("--digits", type=Path, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    sizes = {key: getattr(given, key) for key in ("hours", "samples", "tested")}
    for name in given.names:
        if name not in CLAIMS:
            parser.error(f"no claim {name}; there are {', '.join(CLAIMS)}")
    for seed in range(given.seeds):  # all claims once, then all again: an early end leaves all of them
        for name in given.names or CLAIMS:
            path = given.out / f"{name}.json"
            kept = json.loads(path.read_text()) if path.exists() else {**sizes, "runs": []}
            if {key: kept[key] for key in sizes} != sizes:
                there = ", ".join(f"--{key} {kept[key]}" for key in sizes)
                parser.error(f"{path} has runs of {there}; give the same, or another folder")
            for label, arm in CLAIMS[name][1].items():
                if any(r["arm"] == label and r["seed"] == seed for r in kept["runs"]):
                    continue
                print(f"{name}: {label}, seed {seed}", flush=True)
                kept["runs"].append({"arm": label, **run(arm, CLAIMS[name][2], seed, given)})
                with whole_file(path) as file:
                    json.dump(kept, file, indent=1)
            path.with_suffix(".md").write_text(table(name, kept["runs"], given.hours))
            draw(name, kept["runs"], path.with_suffix(".svg"))
    for name in given.names or CLAIMS:
        print(f"\n{(given.out / f'{name}.md').read_text()}")


if __name__ == "__main__":
    main()
