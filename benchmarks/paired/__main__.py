"""Trains weft and `transformers`' Trainer in strict alternation on the same files, and compares CPU seconds a token.

    python -m benchmarks.paired FOLDER [--kinds text image speech whisper mixed] [--rounds 3] [--updates 4]
    python -m benchmarks.paired --draw docs/paired.svg results/paired-*.json
    python -m benchmarks.paired --decoder [--rounds 3]       what share of the rate of products a decoder has
    python -m benchmarks.paired --decoder --compile          the first with its layers through torch.compile (inductor)

FOLDER gets tokenizer, clips, pictures and samples once (`world`). Three processes, one thread each, work in turn: weft
(packed rows, loss at labels), the Trainer with padded batches, and with batches of similar length. Each trains every
weight of 35 to 57 M. `whisper`: a published Whisper's shape (tiny), its clips unpadded in weft and 30 s long in the
Trainer. The machine's class, versions and the revision go to ``results/paired-KIND-PRECISION.json``, anew after
each round. It holds up to 10 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.paired import world

# Decoders that train all their weights on a packed row, and the lengths of its samples.
DECODERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "6 layers of 384": ({"model_type": "qwen2", **world.TEXT}, (60, 350, 200, 90, 324, 540, 130, 354)),
    "30 layers of 576": (
        {"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536}
        | {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
        (60, 350, 200, 90, 324),
    ),
}
SIDES = ("weft", "padded", "grouped")
NAMES = {"text": "text", "image": "pictures", "speech": "speech", "whisper": "speech, Whisper", "mixed": "mixed"}
ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Side:
    def __init__(self, name: str, folder: Path, kind: str, precision: str) -> None:
        command = [sys.executable, "-m", "benchmarks.paired.side", name, str(folder), kind, precision]
        self.log = (folder / f"{name}-{kind}.err").open("w")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log, "text": True}
        self.name, self.process = name, subprocess.Popen(command, env=os.environ | ALONE, **pipes)
        self._until("ready")

    def train(self, updates: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{updates}\n")
        self.process.stdin.flush()
        return json.loads(self._until("{"))  # type: ignore[no-any-return]

    def _until(self, start: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise SystemExit(f"{self.name} died: {self.log.name}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def machine() -> dict[str, Any]:
    """What a figure depends on; not which machine it was."""
    import torch

    from weft.training.meters import product_rate

    torch.set_num_threads(1)
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    rates = {name: round(product_rate("cpu", getattr(torch, name)) / 1e9) for name in ("float32", "bfloat16")}
    return {
        "processor": platform.machine(),
        "instructions": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags.split()],
        "gflops_a_thread": rates,
        "threads": 1,
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate", "weftlm")},
        "python": platform.python_version(),
        "revision": revision.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def measure(folder: Path, kind: str, precision: str, rounds: int, updates: int) -> Iterator[dict[str, Any]]:
    """What was found, after each round."""
    facts = machine()
    sides = [Side(name, folder, kind, precision) for name in SIDES]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    try:
        for number in range(rounds):
            for side in sides:
                found[side.name].append(side.train(updates))
            each = {name: rows[-1]["cpu"] / rows[-1]["tokens"] for name, rows in found.items()}
            told = ", ".join(f"{name} {1e3 * value:.2f}" for name, value in each.items())
            print(f"{kind} {precision} round {number}: CPU ms a token {told}", flush=True)
            yield {"kind": kind, "precision": precision, "summary": summary(found), "machine": facts, "rounds": found}
    finally:
        for side in sides:
            side.close()


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """CPU a token and a sample of each peer over weft's, all rounds together, lowest and highest round; memory."""
    told: dict[str, Any] = {}
    for name, rows in found.items():
        total = {key: sum(row[key] for row in rows) for key in rows[0]}
        told[name] = {
            "cpu_ms_a_token": round(1e3 * total["cpu"] / total["tokens"], 3),
            "cpu_s_a_sample": round(total["cpu"] / total["samples"], 3),
            "full": round(total["tokens"] / total["places"], 3),
            "memory_gb": round(rows[-1]["memory_gb"], 2),
        }
        if "decoder_tflop" in total:
            told[name]["gflops"] = round(1e3 * (total["decoder_tflop"] + total["encoder_tflop"]) / total["cpu"], 1)
        else:
            ratios = [
                row["cpu"] / row["tokens"] / (own["cpu"] / own["tokens"])
                for row, own in zip(rows, found["weft"], strict=True)
            ]
            whole = told[name]["cpu_ms_a_token"] / told["weft"]["cpu_ms_a_token"]
            told[name]["times_weft"] = [round(value, 2) for value in (whole, min(ratios), max(ratios))]
            told[name]["times_weft_a_sample"] = round(told[name]["cpu_s_a_sample"] / told["weft"]["cpu_s_a_sample"], 2)
    return told


def decoders(rounds: int, compiled: bool) -> Iterator[str]:
    """Forward and backward through the layers, without head, loss and optimizer: GFLOP/s as training counts them.

    ``compiled``: the first decoder alone; each of its layers is compiled for the one shape.
    """
    import torch

    from weft.models.config import WeftConfig
    from weft.models.modeling import WeftForConditionalGeneration
    from weft.training.kept import Kept
    from weft.training.memory import Blocks
    from weft.training.meters import Flops, product_rate

    torch.set_num_threads(1)
    blocks = Blocks()
    for name, (config, lengths) in list(DECODERS.items())[: 1 if compiled else None]:
        model = WeftForConditionalGeneration(WeftConfig(text_config=config)).train()
        flops, kept = Flops(model), Kept(model)
        inputs = {"input_ids": torch.randint(0, 32_000, (1, sum(lengths))), "segment_lengths": torch.tensor(lengths)}
        counted = 0
        if compiled:  # what is compiled is not to be interrupted for counting
            with flops:
                model.last_hidden(**inputs)
            counted = sum(flops.taken())
            flops.close()
            for layer in model.get_decoder().layers:
                layer.compile(mode="default", dynamic=False)
        for dtype in (torch.bfloat16, torch.float32):
            half, best, rate = dtype == torch.bfloat16, float("inf"), product_rate("cpu", dtype)
            for number in range(rounds + 1):
                model.zero_grad()
                began = time.process_time()
                with kept if half else nullcontext():
                    with flops, torch.autocast("cpu", torch.bfloat16, enabled=half):
                        hidden = model.last_hidden(**inputs)
                    hidden.float().square().mean().backward()
                taken, counted = time.process_time() - began, sum(flops.taken()) or counted
                if compiled and number == 0:
                    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
                    yield f"{name}, {dtype}: the first, with compilation, {taken:.1f} CPU s; {breaks} graph breaks"
                best = min(best, taken)
                blocks.updated()
            type_name = str(dtype).removeprefix("torch.")
            yield (
                f"{name}, {sum(lengths):,} tokens, {type_name}: {best:.2f} CPU s, {counted / best / 1e9:.0f} GFLOP/s "
                f"of {rate / 1e9:.0f}, {counted / best / rate:.0%}"
            )


def draw(file: Path, results: list[dict[str, Any]]) -> None:
    """Bars: what each peer's token costs, weft's being 1; readable on a light page and on a dark one."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    ink, colors = "#7d8590", {"padded": "#c2703d", "grouped": "#c9a227"}
    mpl.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "weft", "font.size": 10})
    results = sorted(results, key=lambda result: world.KINDS.index(result["kind"]))
    figure, axes = plt.subplots(figsize=(7.2, 0.62 * len(results) + 1.2))
    for row, result in enumerate(results):
        for place, (name, color) in enumerate(colors.items()):
            value, low, high = result["summary"][name]["times_weft"]
            at = row + (place - 0.5) * 0.34
            axes.barh(at, value, 0.3, color=color, label=f"Trainer, {name}" if row == 0 else None)
            axes.plot([low, high], [at, at], color=ink, linewidth=1)
            axes.text(max(value, high) + 0.06, at, f"{value:.1f} x", va="center", color=ink)
    axes.axvline(1, color="#3b82c4", linewidth=2)
    axes.text(1, -0.56, "weft", color="#3b82c4", ha="center", va="bottom")
    axes.set_yticks(range(len(results)), [NAMES[result["kind"]] for result in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xlim(0, 1.15 * max(result["summary"][name]["times_weft"][2] for result in results for name in colors))
    axes.set_xlabel("processor time for a token of training")
    axes.legend(frameon=False, labelcolor=ink, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes.tick_params(colors=ink)
    axes.xaxis.label.set_color(ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)
    figure.tight_layout()
    figure.savefig(file, transparent=True, metadata={"Date": None})


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("folder", type=Path, nargs="?")
    ask.add_argument("--kinds", nargs="+", default=world.KINDS, choices=world.KINDS)
    ask.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--updates", type=int, default=4)
    ask.add_argument("--results", type=Path, default=Path("results"))
    ask.add_argument("--draw", nargs="+", type=Path, metavar="FILE")
    ask.add_argument("--decoder", action="store_true")
    ask.add_argument("--compile", action="store_true")
    given = ask.parse_args()
    if given.decoder:
        for line in decoders(given.rounds, given.compile):
            print(line, flush=True)
        return
    if given.draw:
        picture, *files = given.draw
        draw(picture, [json.loads(file.read_text()) for file in files])
        return
    if given.folder is None:
        ask.error("name a folder")
    folder = given.folder.resolve()
    world.make(folder)
    given.results.mkdir(exist_ok=True)
    for kind in given.kinds:
        for result in measure(folder, kind, given.precision, given.rounds, given.updates):
            file = given.results / f"paired-{kind}-{given.precision}.json"
            file.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result["summary"]), flush=True)


if __name__ == "__main__":
    main()
