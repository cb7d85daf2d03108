"""``weft show``: every token of a sample, and the sizes of a model or recipe."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from weft.cli.asking import MediaRoot
from weft.cli.terminal import facts, number, out, plural, size
from weft.conversation import Conversation, WeftError, iter_samples
from weft.conversation.roots import within

if TYPE_CHECKING:
    from weft.dialects import Piece
    from weft.models.config import WeftConfig
    from weft.models.processing import WeftProcessor
    from weft.training.outline import ModelSize, Outline, StageSize
    from weft.training.recipe import Recipe

ROLE_STYLES = {"system": "yellow", "user": "cyan", "assistant": "green", "": "dim"}


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|MODEL", help="A recipe's name or .py file, a model's folder, 'bundled' or 'scratch'."
        ),
    ],
    sample: Annotated[
        str | None,
        typer.Option(metavar="FILE[:N[-M]]", help="Every token of sample N; of several, as one packed row."),
    ] = None,
    prompt: Annotated[bool, typer.Option("--prompt", help="The sample as it is asked, not as it is learned.")] = False,
    media_root: MediaRoot = None,
    size_name: Annotated[
        str | None, typer.Option("--size", metavar="SIZE", help="The size of a built-in recipe, such as tiny.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change one value of a recipe. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Look inside: every token of a sample, or the parameters, tokens and memory of a model or recipe.

    No weights are read or made: a 7B recipe takes seconds, little memory and no network. docs/training.md says how
    memory is counted.

    [dim]weft show minigpt_v2        weft show omni --size 8b        weft show MODEL --sample train.jsonl:3[/dim]
    """
    if sample is not None:
        _, _, processor = _open(name, size_name, changes or [], sizes_only=False)
        if processor is None:
            raise WeftError(f"{name} has no tokenizer, so its samples cannot be rendered; show it without --sample")
        _show_samples(processor, _chosen(sample, media_root), prompt, as_json)
        return
    from weft.training.outline import model_size, stage_size

    recipe, outline = _outline(name, size_name, changes or [])
    model = model_size(outline)
    stages = [stage_size(outline, stage, recipe) for stage in recipe.stages] if recipe else []
    if as_json:
        from dataclasses import asdict

        found = [
            {
                **asdict(stage),
                "memory": {**asdict(stage.memory), "total": stage.memory.total, "each_of_8": stage.memory.each(8)},
            }
            for stage in stages
        ]
        print(json.dumps({**model.as_dict(), "stages": found}, ensure_ascii=False))
        return
    _print_model(recipe.name if recipe else name, model)
    if recipe is not None:
        _print_stages(recipe, stages)
    else:
        held = 2 * model.parameters
        out.print(f"\n{size(held)} in bfloat16, and {size(model.cache_per_token)} of cache a token", style="quiet")


def _outline(name: str, size_name: str | None, changes: list[str]) -> tuple[Recipe | None, Outline]:
    """What sizes are counted from, and the recipe it is of."""
    from weft.recipes import is_recipe
    from weft.training.outline import kept

    recipe = _recipe(name, size_name, changes) if is_recipe(name) else None
    if recipe is not None and (known := kept(recipe.model)) is not None:
        return recipe, known
    from weft.training.sizes import outlined  # with torch and transformers' models: most of what this command takes

    recipe, config, processor = _open(name, size_name, changes, sizes_only=True)
    return recipe, outlined(config, processor)


def _recipe(name: str, size_name: str | None, changes: list[str]) -> Recipe:
    from weft.recipes import load_recipe
    from weft.training.overrides import override

    return override(load_recipe(name, size_name), changes)


def _open(
    name: str, size_name: str | None, changes: list[str], *, sizes_only: bool
) -> tuple[Recipe | None, WeftConfig, WeftProcessor | None]:
    from weft.generation.configuration import load_config
    from weft.recipes import RECIPES, is_recipe, model_spec
    from weft.training.sizes import planned

    if is_recipe(name):
        recipe = _recipe(name, size_name, changes)
        return recipe, *planned(recipe.model, outline=sizes_only)
    if size_name is not None:
        raise WeftError(f"--size chooses among a recipe's sizes, and {name} is a model; leave it out")
    if changes:
        raise WeftError(f"--set changes a recipe, and {name} is a model; leave it out")
    try:
        spec = model_spec(name)
    except WeftError as error:
        raise WeftError(f"{error}; recipes are {', '.join(RECIPES)}, or a .py file") from None
    if spec.base is not None and Path(name).is_dir() and not (Path(name) / "processor_config.json").is_file():
        return None, load_config(name), None  # a model that takes token ids alone
    return None, *planned(spec)


# Samples.


def _chosen(sample: str, media_root: Path | None) -> list[Conversation]:
    from weft.media import image_size

    path, first, last = _place(sample)
    exists = within(media_root)
    chosen = list(islice(iter_samples(path, probe=image_size, exists=exists), first - 1, last))
    if len(chosen) < last - first + 1:
        there = sum(1 for _ in iter_samples(path, probe=image_size, exists=exists))
        raise WeftError(f"{path} has {plural(there, 'sample')}, so there is no sample {last}")
    return chosen


def _show_samples(processor: WeftProcessor, chosen: list[Conversation], prompt: bool, as_json: bool) -> None:
    from weft.data.counts import Learnable

    rows, learnable = [], Learnable()
    for segment, conversation in enumerate(chosen):
        asked = conversation.prompt() if prompt else conversation
        rows += sample_tokens(processor, asked, segment, generate=prompt)
        learnable.add(conversation)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    _print_tokens(rows)
    if not prompt and (said := learnable.rows()):
        out.print(facts([(name, number(count), remark) for name, count, remark in said]))


def _place(sample: str) -> tuple[str, int, int]:
    """The file and the first and last sample, counted from 1, of ``FILE``, ``FILE:3`` or ``FILE:3-5``."""
    match = re.fullmatch(r"(.+):(\d+)(?:-(\d+))?", sample)
    if match is None or Path(sample).exists():
        return sample, 1, 1
    first, last = int(match[2]), int(match[3] or match[2])
    if not 1 <= first <= last:
        raise WeftError(f"--sample {sample}: samples count from 1, and the first comes first")
    return match[1], first, last


def sample_tokens(
    processor: WeftProcessor, conversation: Conversation, segment: int = 0, *, generate: bool = False
) -> list[dict[str, Any]]:
    """One entry a token: position, id, text, role, loss, segment, and the medium where it stands for one."""
    rendered = processor.render(conversation, generate=generate)
    media: dict[int, str] = {}
    sizes: dict[tuple[Any, int], list[int]] = {}
    for span in rendered.spans:
        sizes.setdefault((span.modality, span.item), []).append(span.length)
        label = f"{span.modality} {span.item}" + (f" window {span.window}" if span.window else "")
        media |= dict.fromkeys(range(span.start, span.start + span.length), label)
    roles: list[str] = []
    written: list[Piece] = []
    whose = [*(message.role for message in conversation.messages), "assistant"]  # who is asked for an answer comes last
    for role, pieces in zip(whose, processor.dialect.write(conversation, generate), strict=False):
        written += pieces
        roles += [role] * (len(processor.renderer.render(written, sizes).ids) - len(roles))
    return [
        {
            "segment": segment,
            "position": i,
            "id": index,
            "text": token_text(processor.tokenizer, index),
            "role": roles[i],
            "loss": rendered.loss[i],
            **({} if getattr(rendered.pieces[rendered.source[i]], "learn", True) else {"learn": False}),
            **({"media": media[i]} if i in media else {}),
        }
        for i, index in enumerate(rendered.ids)
    ]


def token_text(tokenizer: Any, index: int) -> str:
    """A token as it reads, its leading space included; bytes of a character that other tokens go on with, by value."""
    piece = tokenizer.convert_ids_to_tokens(index)
    if piece is None:
        return f"<{index}>"
    if "\u2581" in piece:  # SentencePiece's space
        return piece.replace("\u2581", " ")
    text = tokenizer.decode([index], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if text and "\ufffd" not in text:
        return text
    values = [_byte(c) for c in piece]
    return piece if None in values else "".join(f"<0x{value:02X}>" for value in values)


def _byte(letter: str) -> int | None:
    """The byte that a letter of byte-level BPE stands for: itself, or one that cannot be printed from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    code = ord(letter)
    if code < 0x100:
        return code if code in plain else None
    others = [value for value in range(0x100) if value not in plain]
    return others[code - 0x100] if code - 0x100 < len(others) else None


def _print_tokens(tokens: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="quiet")
    packed = tokens[-1]["segment"] > 0
    for column in (["segment"] if packed else []) + ["position", "id"]:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("role", no_wrap=True)
    table.add_column("loss", no_wrap=True)
    table.add_column("token", overflow="fold")
    last: tuple[Any, ...] = ()
    for start, end in _folded(tokens):
        token, count = tokens[start], end - start
        here = (token["segment"], token["role"])
        style = ROLE_STYLES[token["role"]]
        position = str(token["position"]) if count == 1 else f"{token['position']}-{tokens[end - 1]['position']}"
        text = Text(f"<{token['media']} ×{count}>", "magenta") if "media" in token else _quoted(token["text"], style)
        cells: list[Any] = [str(token["segment"])] if packed else []
        cells += [position, str(token["id"]), Text(token["role"] if here != last else "", style)]
        loss = Text("learn", "bold") if token["loss"] else Text("unlearned" if "learn" in token else "", "quiet")
        table.add_row(*cells, loss, text)
        last = here
    out.print(table)
    learned = sum(token["loss"] for token in tokens)
    media = sum("media" in token for token in tokens)
    out.print(f"\n{plural(len(tokens), 'token')}: {learned:,} learned, {media:,} of pictures and sound", style="quiet")


def _folded(tokens: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Runs to print in one line: single tokens, and the whole span of a medium."""
    runs: list[tuple[int, int]] = []
    for i, token in enumerate(tokens):
        before = tokens[i - 1] if i else {}
        same = "media" in token and all(token[k] == before.get(k) for k in ("media", "segment"))
        if same:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
    return runs


def _quoted(text: str, style: str) -> Text:
    """A token's text, with what cannot be seen made visible."""
    shown = text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    edges = shown.replace(" ", "·") if shown != shown.strip() else shown
    return Text(edges, style)


# Sizes.


def _print_model(name: str, model: ModelSize) -> None:
    out.print(Text.assemble((name, "head"), (f"  {_count(model.parameters)} parameters, dialect {model.dialect}", "")))
    table = _table("part", "parameters", "")
    for part in model.parts:
        table.add_row(part.name.replace("_", " "), _count(part.parameters), Text(part.what, "quiet"))
    table.add_row(Text("vocabulary", "quiet"), f"{model.vocabulary:,}", Text("tokens", "quiet"))
    if model.image:
        height, width = model.image["size"]
        table.add_row(
            Text("a picture", "quiet"), f"{model.image['tokens']:,}", Text(f"tokens, {width}×{height} px", "quiet")
        )
    if model.sound:
        s = model.sound
        window = f"tokens; {s['tokens_window']:,} for a window of {number(float(s['window_seconds']))} s"
        table.add_row(Text("a second of sound", "quiet"), f"{s['tokens_second']:,}", Text(window, "quiet"))
    out.print(table)
    if model.lora_for_media:
        out.print("LoRA from the first picture or sound of a conversation on (lora_for_media)", style="quiet")


def _print_stages(recipe: Recipe, stages: list[StageSize]) -> None:
    table = _table("stage", "steps", "tokens a step", "rate", "learns")
    table.columns[-1].no_wrap = True
    memory = _table("memory", "weights", "gradients", "optimizer", "copies", "activations", "1 GPU", "each of 8", gap=1)
    rows: dict[tuple[str, ...], list[str]] = {}  # stages that take the same memory share a line
    for stage, found in zip(recipe.stages, stages, strict=True):
        tokens = stage.row_tokens * stage.rows * stage.accumulate
        steps = f"{stage.minutes:g} min" if stage.minutes else f"{found.steps:,}"
        head = [found.name, steps, f"{tokens:,}", f"{stage.optim.lr:g}"]
        for i, (part, n) in enumerate(found.trained.items()):
            how = "" if found.how[part] == "full" else f"  {found.how[part]}"
            learns = Text.assemble(f"{part.replace('_', ' ')} {_count(n)}", (how, "quiet"))
            table.add_row(*(head if i == 0 else [""] * 4), learns)
        m = found.memory
        each = (m.weights, m.gradients, m.optimizer, m.copies, m.activations, m.each(1), m.each(8))
        rows.setdefault(tuple(map(size, each)), []).append(found.name)
    for row, names in rows.items():
        memory.add_row(", ".join(names) if len(names) < len(stages) else "every stage", *row)
    out.print()
    out.print(table)
    out.print()
    out.print(memory)
    quiet = f"Weights in float32, compute in {recipe.precision}; activations estimated for full rows."
    out.print(quiet, style="quiet")


def _table(*columns: str, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="quiet")
    for i, column in enumerate(columns):
        left = i == 0 or column in ("", "learns")  # words, not numbers
        table.add_column(column, justify="left" if left else "right", no_wrap=i == 0)
    return table


def _count(parameters: int) -> str:
    """``6.74 B``, ``33.6 M``, ``5,120``."""
    for factor, unit in ((1e9, "B"), (1e6, "M"), (1e4, "")):
        if parameters >= factor and unit:
            return f"{parameters / factor:.3g} {unit}"
    return f"{parameters:,}"
