"""Answers 32 mixed requests with weft and with `transformers`, and compares CPU seconds.

    python -m benchmarks.paired.answers FOLDER [--dtype float32] [--together 16] [--rounds 3]

A third ask about a clip, a third about one to three pictures, a third in words; no medium is asked about twice, and
answers have 20 to 60 tokens. The sizes are those of `world`. Four ways in turns, one thread: weft's running batch; weft
one request at a time; the same weights through transformers' `generate`, in batches as they come, padded on the left,
each until its longest answer is through; and transformers' own classes of these sizes in the same way, which take one
kind a batch (random weights of their own). Reading media, reading prompts (encoders among it) and making tokens are
told apart, and the answers of the first three compared.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.paired import world
from benchmarks.paired.__main__ import machine
from benchmarks.paired.peer import Rows
from benchmarks.paired.peer import build as build_peer

from weft.conversation import parse_messages
from weft.generation import Model, Options
from weft.generation.batch import Row
from weft.training.build import build_model

KINDS = ("speech", "image", "text")
REQUESTS = 32
PARTS = ("media", "prompts", "tokens")
Answers = list[list[int]]


class Clock:
    """CPU seconds: of what is timed by hand as media, of calls that read prompts; the rest makes tokens."""

    def __init__(self) -> None:
        self.media = self.prompts = self.begun = 0.0
        self.depth = 0

    def watch(self, model: Any, *encoders: Any) -> None:
        """Has the calls of ``model`` that take more than one column counted, and those of ``encoders``."""

        def before(module: Any, _: Any, given: dict[str, Any]) -> None:
            inputs = given.get("inputs_embeds") if given.get("input_ids") is None else given["input_ids"]
            module.reads = module is not model or inputs.shape[1] > 1
            if module.reads:
                self.begun = self.begun if self.depth else time.process_time()
                self.depth += 1

        def after(module: Any, *_: Any) -> None:
            if module.reads:
                self.depth -= 1
                self.prompts += 0.0 if self.depth else time.process_time() - self.begun

        for module in (model, *encoders):
            module.register_forward_pre_hook(before, with_kwargs=True)
            module.register_forward_hook(after)

    def time(self, way: Any) -> tuple[dict[str, float], Answers]:
        self.media = self.prompts = 0.0
        begun = time.process_time()
        answers = way()
        tokens = time.process_time() - begun - self.media - self.prompts
        return dict(zip(PARTS, (self.media, self.prompts, tokens), strict=True)), answers


class Ways:
    """Each answers all requests; ``kinds`` and ``samples`` of these, and how many tokens they get."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.clock, draw, used = Clock(), np.random.default_rng(5), set[str]()
        self.kinds = [KINDS[i % 3] for i in range(REQUESTS)]
        rows = {kind: [json.loads(line) for line in (folder / f"{kind}.jsonl").open()] for kind in KINDS}
        self.samples: list[Any] = []
        for kind in self.kinds:
            named: set[str] = used
            while named & used or not named:
                sample = rows[kind][int(draw.integers(len(rows[kind])))]
                named = {part[part["type"]] for part in sample["messages"][0]["content"]}
            used |= named
            self.samples.append(sample)
        self.wanted = [int(n) for n in draw.integers(20, 61, REQUESTS)]
        self.messages = [
            [{"role": "user", "content": [_there(part, folder) for part in sample["messages"][0]["content"]]}]
            for sample in self.samples
        ]
        model, processor = build_model(world.recipe(folder, "mixed", "float32").model)
        with torch.no_grad():  # random heads are nearly flat: spread, so that greedy choices are no ties
            head = model.get_output_embeddings().weight  # type: ignore[union-attr]
            head.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
        self.model = Model(model.to(dtype), processor)
        self.model.stop = frozenset()  # how long answers are is given
        self.model.model.generation_config.eos_token_id = None
        self.clock.watch(self.model.model, model.vision, model.vision_connector, model.audio, model.audio_connector)
        self.peers = {kind: build_peer(kind).to(dtype).eval() for kind in KINDS}
        self.rows = {kind: Rows(folder, kind) for kind in KINDS}
        for peer in self.peers.values():
            peer.generation_config.eos_token_id = None
            self.clock.watch(peer)

    def weft(self, together: int) -> Answers:
        begun = time.process_time()
        prompts = [self.model.prepare(parse_messages(messages)) for messages in self.messages]
        self.clock.media += time.process_time() - begun
        rows = [Row(prompt, Options(), limit) for prompt, limit in zip(prompts, self.wanted, strict=True)]
        order = sorted(rows, key=lambda row: -row.length)  # as `Model.replies` asks
        size = REQUESTS if together > 1 else 1
        for at in range(0, REQUESTS, size):
            batch = self.model.batch(together)
            for row in order[at : at + size]:
                batch.add(row)
            while len(batch):
                batch.step()
        return [row.ids for row in rows]

    def padded(self, together: int) -> Answers:
        answers: Answers = []
        for at in range(0, REQUESTS, together):
            begun = time.process_time()
            asked: dict[str, Any] = self.model.processor.apply_chat_template(
                self.messages[at : at + together],
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=True,
            )
            asked = {k: v.to(self.model.dtype) if k == "pixel_values" else v for k, v in asked.items()}
            self.clock.media += time.process_time() - begun
            answers += self._generated(self.model.model, asked, range(at, at + together))
        return answers

    def classes(self) -> Answers:
        answers: Answers = [[] for _ in range(REQUESTS)]
        for kind, peer in self.peers.items():
            mine = [i for i in range(REQUESTS) if self.kinds[i] == kind]
            begun = time.process_time()
            asked = self._collated(self.rows[kind], [self.samples[i] for i in mine], peer.dtype)
            self.clock.media += time.process_time() - begun
            for i, ids in zip(mine, self._generated(peer, asked, mine), strict=True):
                answers[i] = ids
        return answers

    def _generated(self, model: Any, asked: dict[str, Any], which: Any) -> Answers:
        longest = max(self.wanted[i] for i in which)
        with torch.inference_mode():
            made = model.generate(**asked, max_new_tokens=longest, do_sample=False, pad_token_id=0)
        made = made[:, asked["input_ids"].shape[1] :].tolist()
        return [ids[: self.wanted[i]] for i, ids in zip(which, made, strict=True)]

    @staticmethod
    def _collated(rows: Rows, samples: list[Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Prompts padded on the left, for a class of transformers."""
        batch = rows.collate([rows.row(sample) for sample in samples])
        labels, mask = batch.pop("labels"), batch["attention_mask"]
        prompts = [
            ids[(own > 0) & (label < 0)] for ids, own, label in zip(batch["input_ids"], mask, labels, strict=True)
        ]
        sides = {"batch_first": True, "padding_side": "left"}
        pad: Any = torch.nn.utils.rnn.pad_sequence
        batch["attention_mask"] = pad([torch.ones_like(ids) for ids in prompts], **sides)
        batch["input_ids"] = pad(prompts, **sides)
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}


def _there(part: dict[str, Any], folder: Path) -> dict[str, Any]:
    kind = part["type"]
    return part if kind == "text" else {**part, kind: str(folder / part[kind])}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("folder", type=Path)
    ask.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    ask.add_argument("--together", type=int, default=16)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--results", type=Path, default=Path("results"))
    ask.add_argument("--ways", nargs="+")
    given = ask.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = given.folder.resolve()
    world.make(folder)
    ways = Ways(folder, getattr(torch, given.dtype))
    calls = {
        "weft": lambda: ways.weft(given.together),
        "weft, one at a time": lambda: ways.weft(1),
        "generate, padded": lambda: ways.padded(given.together),
        "transformers' classes, padded": ways.classes,
    }
    calls = {name: call for name, call in calls.items() if not given.ways or name in given.ways}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    answers: dict[str, Answers] = {}
    for number in range(given.rounds):
        for name, call in calls.items():
            seconds, answers[name] = ways.clock.time(call)
            found[name].append({part: round(value, 3) for part, value in seconds.items()})
            print(f"round {number}, {name}: {found[name][-1]}", flush=True)
    own = min(sum(seconds.values()) for seconds in found["weft"])
    print(f"| CPU seconds, {sum(ways.wanted)} new tokens | {' | '.join(PARTS)} | in all | times weft | same answers |")
    summary = {}
    for name, rounds in found.items():
        best = min(rounds, key=lambda seconds: sum(seconds.values()))
        whole = sum(best.values())
        same = sum(a == b for a, b in zip(answers[name], answers["weft"], strict=True))
        summary[name] = {**best, "times_weft": round(whole / own, 2), "same": same}
        print(f"| {name} | {' | '.join(f'{best[p]:.2f}' for p in PARTS)} | {whole:.2f} | {whole / own:.2f} | {same} |")
    given.results.mkdir(exist_ok=True)
    result = {
        "summary": summary,
        "dtype": given.dtype,
        "together": given.together,
        "machine": machine(),
        "rounds": found,
    }
    (given.results / f"answers-{given.together}-{given.dtype}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
