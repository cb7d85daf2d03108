"""How evenly 8 to 1,024 ranks work, on rows as training packs them. No rank runs here: what is simulated is waiting.

    python benchmarks/simulate_scale.py [--flops] [--row-tokens 8192] [--seconds 0.8] [--plot docs/scale.svg]
    python benchmarks/simulate_scale.py --measure            # prices anew: results/layer_prices.json

A mixture of text, pictures in tiles, speech and both is drawn in spreads of real kinds (below). Rows are planned by the
packer that training uses (`weft.data.packing`), evenly and not; by first fit of the longest first, sorted by vision
tokens over the whole epoch, which is what NeMo Automodel does (its description: neat_packing_vlm.py); and at random. Of
each update it is told what part of the time ranks work: where they meet once an update (each has the whole model), and
where they meet between encoders and language model too (each holds a slice, and needs the others for every layer).

What a token (by the length of its sample), a view and a second of sound cost was measured in CPU seconds of one layer
of each, forward and backward: a 7B language model, SigLIP so400m at 448 pixels and Whisper-large's encoder. With
--flops it is counted in FLOPs. With --tensor N, N ranks compute each layer of one row together (`parallel.tensor`).
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from weft.data.packing import WINDOW, PackingPlan, pack

WORLDS = 8, 64, 256, 1024
PRICES = Path(__file__).parents[1] / "results" / "layer_prices.json"
LENGTHS = 64, 128, 256, 512, 1024, 2048
WIDTH, LAYERS, INNER, KEYS = 3584, 28, 18944, 512  # Qwen2.5-7B
VIEW_PATCHES, VIEW_TOKENS, SIGHT = 1024, 256, (1152, 27, 4304)
SECOND_FRAMES, SECOND_TOKENS, SOUND = 50, 12.5, (1280, 32, 5120)
HEARD = 400  # frames of the clip that is measured


def samples(count: int, rng: np.random.Generator) -> np.ndarray:
    """[n, 3]: tokens, views, seconds of sound.

    Text: log-normal, median 180 tokens, up to 4,096; pictures: one view, or 2 to 12 tiles and the whole (InternVL's
    rule), and an answer of 67 tokens in the median; speech: log-normal, median 8 s, up to 30.
    """
    kind = rng.choice(4, count, p=[0.35, 0.35, 0.2, 0.1])  # text, picture, speech, both
    text = np.clip(rng.lognormal(5.2, 0.9, count), 16, 4096).astype(int)
    answer = np.clip(rng.lognormal(4.2, 0.9, count), 8, 1024).astype(int) + 30
    tiles = rng.choice([1, 3, 5, 7, 10, 13], count, p=[0.3, 0.2, 0.15, 0.15, 0.1, 0.1])
    views = np.where(kind == 1, tiles, np.where(kind == 3, np.minimum(tiles, 7), 0))
    seconds = np.where(kind >= 2, np.clip(rng.lognormal(np.log(8), 0.7, count), 1, 30), 0)
    media = views * VIEW_TOKENS + (seconds * SECOND_TOKENS).astype(int)
    return np.column_stack([np.where(kind == 0, text, answer + media), views, seconds])


def work(samples_n3: np.ndarray, prices: dict[str, Any] | None) -> np.ndarray:
    """[n, 3]: what each sample costs the language model, the image encoder and the sound encoder; None: FLOPs."""
    tokens_n = samples_n3[:, 0]
    if prices is None:
        token, pair, view, second = counted()
        return np.column_stack(
            [token * tokens_n + pair * tokens_n**2, view * samples_n3[:, 1], second * samples_n3[:, 2]]
        )
    lengths, seconds = np.array([(int(length), spent) for length, spent in prices["token"].items()]).T
    each_n = np.interp(np.log(tokens_n), np.log(lengths), seconds) * LAYERS
    view, second = prices["patch"] * VIEW_PATCHES * SIGHT[1], prices["frame"] * SECOND_FRAMES * SOUND[1]
    return np.column_stack([each_n * tokens_n, view * samples_n3[:, 1], second * samples_n3[:, 2]])


def counted() -> np.ndarray:
    """FLOPs of a token, a pair of tokens of one sample, a view and a second; forward and backward, all trains."""
    layer = 2 * WIDTH**2 + 2 * WIDTH * KEYS + 3 * WIDTH * INNER
    encoders = []
    for length, (width, layers, inner) in ((VIEW_PATCHES, SIGHT), (SECOND_FRAMES, SOUND)):
        context = length if length == VIEW_PATCHES else HEARD
        encoders.append(6.0 * length * layers * (4 * width**2 + 2 * width * inner + 2 * width * context))
    return np.array([6.0 * LAYERS * layer, 6.0 * LAYERS * WIDTH, *encoders])


def measure() -> dict[str, object]:
    """CPU seconds of one layer of each in bfloat16, forward and backward, all trains: a token by the sample's length, a
    patch of a view, a frame of 8 seconds of sound."""
    import torch
    from transformers import Qwen2Config, SiglipVisionConfig, WhisperConfig
    from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding
    from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer
    from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

    def timed(run: Callable[[torch.Tensor], torch.Tensor], length: int, width: int) -> float:
        best = []
        for _ in range(3 if length <= 1024 else 2):
            given = torch.randn(1, length, width, dtype=torch.bfloat16, requires_grad=True)
            began = time.process_time()
            run(given).sum().backward()
            best.append(time.process_time() - began)
        return min(best) / length

    text = Qwen2Config(hidden_size=WIDTH, intermediate_size=INNER, num_attention_heads=28, num_key_value_heads=4)
    text._attn_implementation = "sdpa"
    layer, rotary = Qwen2DecoderLayer(text, 0).bfloat16(), Qwen2RotaryEmbedding(text)

    def decode(given: torch.Tensor) -> torch.Tensor:
        places = rotary(given, torch.arange(given.shape[1])[None])
        out = layer(given, position_embeddings=places)
        return out if isinstance(out, torch.Tensor) else out[0]

    sight = SiglipVisionConfig(hidden_size=SIGHT[0], intermediate_size=SIGHT[2], num_attention_heads=16)
    sound = WhisperConfig(d_model=SOUND[0], encoder_ffn_dim=SOUND[2], encoder_attention_heads=20)
    sight._attn_implementation = sound._attn_implementation = "sdpa"
    eye, ear = SiglipEncoderLayer(sight).bfloat16(), WhisperEncoderLayer(sound).bfloat16()
    look = timed(lambda given: _first(eye(given, attention_mask=None)), VIEW_PATCHES, SIGHT[0])
    hear = timed(lambda given: _first(ear(given, attention_mask=None)), HEARD, SOUND[0])
    return {
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread",
        "torch": torch.__version__,
        "token": {str(length): timed(decode, length, WIDTH) for length in LENGTHS},
        "patch": look,
        "frame": hear,
    }


def _first(out):
    return out[0] if isinstance(out, tuple) else out


def plans(given: np.ndarray, row_tokens: int) -> dict[str, list[list[int]]]:
    """Rows of an epoch, each way."""
    tokens = given[:, 0].astype(int)
    media = np.column_stack([given[:, 1] * VIEW_TOKENS, given[:, 2] * SECOND_TOKENS]).astype(int)
    end = len(tokens)

    def product(even: bool) -> list[list[int]]:
        plan = PackingPlan(
            lambda p: int(tokens[p]), row_tokens, end=end, media=(lambda p: tuple(media[p])) if even else None
        )
        rows: list[list[int]] = []
        try:
            while True:
                rows.append(plan[len(rows)])
        except IndexError:
            return rows

    longest_first = pack(tokens, row_tokens, np.argsort(-tokens, kind="stable"))
    by_media = sorted(longest_first, key=lambda row: media[row].sum())
    return {
        "as they come, best fit": product(False),
        "Automodel's: longest first, sorted by media": by_media,
        "weft's even rows": product(True),
    }


def efficiency(rows: list[list[int]], cost_n3: np.ndarray, world: int) -> tuple[float, float]:
    """Work over time, where ranks meet once an update, and where they meet between the parts of the model too."""
    load_R3 = np.array([cost_n3[row].sum(0) for row in rows])
    load_UW3 = load_R3[: len(rows) // world * world].reshape(-1, world, 3)
    mean = load_UW3.sum(2).mean(1).sum()
    return mean / load_UW3.sum(2).max(1).sum(), mean / load_UW3.max(1).sum()


def added_up(tokens: int, seconds: float, together: int, link: float) -> None:
    """Prints how long ranks that compute layers together wait for sums (computed): of hidden states in bfloat16, two a
    layer forward, as many backward, the forward ones again where activations are made anew. Nothing hides them."""
    print(f"\nsums of {together} ranks that compute layers together, at {link:g} GB/s of each to the others:")
    for name, parameters, width, layers in (("7B", 8.7e9, WIDTH, LAYERS), ("70B", 71.7e9, 8192, 80)):
        sent = 6 * layers * tokens * width * 2 * 2 * (together - 1) / together
        work, wait = seconds * parameters / 8.7e9 / together, sent / link / 1e9
        told = f"{sent / 1e9:,.0f} GB a row of {tokens:,} tokens: {wait:.2f} s beside {work:.2f} s of work"
        print(f"  {name}: {told}, {wait / (wait + work):.0%} of the time")


def decoding() -> tuple[float, float]:
    """CPU seconds to read a photograph (JPEG of 1280 x 960, to 448 x 448), and a second of FLAC to log-mel."""
    import soundfile
    from PIL import Image

    from weft.media import load_audio, log_mel, resize_normalize

    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
    picture, clip = io.BytesIO(), io.BytesIO()
    small.resize((1280, 960), Image.Resampling.BICUBIC).save(picture, "jpeg")
    soundfile.write(clip, rng.normal(0, 0.1, 160_000).cumsum() / 100 % 0.5, 16000, format="flac")

    def look() -> None:
        image = Image.open(io.BytesIO(picture.getvalue())).convert("RGB")
        resize_normalize(image, (448, 448), (0.5,) * 3, (0.5,) * 3, "bicubic", "stretch")

    def listen() -> None:
        log_mel(load_audio(clip.getvalue(), 16000), 128)

    spent = []
    for run in (look, listen):
        run()
        began = time.process_time()
        for _ in range(5):
            run()
        spent.append((time.process_time() - began) / 5)
    return spent[0], spent[1] / 10


def draw(drawn: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Share of the time that ranks work, by their number: two panels, as `efficiency` tells."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, axes, title in ((0, left, "each rank holds the model"), (1, right, "the model is shared out")):
        for (name, told), colour in zip(drawn.items(), ("#b5b5b5", "#7fb5b5", "#14746f"), strict=True):
            axes.plot([2**k for k in range(len(told))], [100 * t[place] for t in told], color=colour, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 8, 64, 256, 1024], ["1", "8", "64", "256", "1,024"])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("ranks")
        axes.grid(color="#e3e8ec")
        axes.spines[["top", "right"]].set_visible(False)
    left.axhline(95, color="#444", linewidth=0.7, linestyle=":")
    right.axhline(95, color="#444", linewidth=0.7, linestyle=":")
    left.set_ylabel("part of the time at work, %")
    left.legend(fontsize=8, frameon=False, loc="lower left")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure prices here and write them; nothing else")
    parser.add_argument("--flops", action="store_true", help="prices counted in FLOPs, in place of measured ones")
    parser.add_argument("--plot", type=Path, help="also draw it: a file's name")
    parser.add_argument("--row-tokens", type=int, default=8192)
    parser.add_argument("--tensor", type=int, default=1, help="ranks that compute layers together")
    parser.add_argument("--link", type=float, default=450, help="GB/s of a GPU to its neighbours, one way (NVLink)")
    parser.add_argument("--samples", type=int, default=160 * WINDOW)
    parser.add_argument("--seconds", type=float, default=0.8, help="of a row on a GPU: 7B at half of an H200's peak")
    asked = parser.parse_args()
    if asked.measure:
        PRICES.write_text(json.dumps(measure(), indent=1) + "\n")
        return
    given = samples(asked.samples, np.random.default_rng(0))
    prices = None if asked.flops else json.loads(PRICES.read_text())
    cost = work(given, prices)
    share = cost.sum(0) / cost.sum()
    print("prices: " + ("FLOPs" if prices is None else f"CPU seconds of one layer, {PRICES.name}"))
    print("language model, pictures, sound: " + ", ".join(f"{s:.1%}" for s in share) + " of the work\n")
    print(f"| rows of {asked.row_tokens:,} tokens | full |" + "".join(f" {w:,} ranks |" for w in WORLDS))
    print("|---|---|" + "---|" * len(WORLDS))
    drawn: dict[str, list[tuple[float, float]]] = {}
    for name, rows in plans(given, asked.row_tokens).items():
        full = given[:, 0].sum() / (len(rows) * asked.row_tokens)
        told = [efficiency(rows, cost, world // asked.tensor) for world in WORLDS]
        drawn[name] = [efficiency(rows, cost, max(2**k // asked.tensor, 1)) for k in range(11)]
        print(f"| {name} | {full:.1%} |" + "".join(f" {once:.1%} / {often:.1%} |" for once, often in told))
    if asked.plot:
        draw(drawn, asked.plot)
    if asked.tensor > 1:
        added_up(asked.row_tokens, asked.seconds, asked.tensor, asked.link)

    row = 0
    even = PackingPlan(
        lambda p: int(given[p, 0]), asked.row_tokens, media=lambda p: (int(given[p, 1]) * 256, int(given[p, 2]))
    )
    began = time.process_time()
    while even.anchor(row)[0] < 16:
        row += 16
    planned = (time.process_time() - began) / (16 * WINDOW)
    in_row = asked.row_tokens / given[:, 0].mean()
    view, second = decoding()
    media = in_row * (given[:, 1].mean() * view + given[:, 2].mean() * second)
    print(f"\ndecoding: {view * 1e3:.1f} ms a view, {second * 1e3:.2f} ms a second of sound (CPU, measured here)")
    print(f"  {media:.2f} s a row, so {media / asked.seconds:.1f} cores a GPU (workers) at {asked.seconds} s a row")
    print(f"planning: {planned * 1e6:.1f} us a sample (CPU, measured here, lengths known); every rank plans all rows:")
    for world in WORLDS:
        print(f"  {world:5,} ranks: {planned * in_row * world / asked.seconds:.1%} of a core of each")
    print("checkpoints (float32 weights and two moments, all trains), every 500 updates of 8 rows a rank:")
    for name, parameters in (("7B", 8.7e9), ("70B", 71.7e9)):
        pace = asked.seconds * parameters / 8.7e9 * 8 * 500
        rate = 12 * parameters / pace / 1e9
        print(f"  {name}: {12 * parameters / 1e9:,.0f} GB every {pace:,.0f} s ({rate:.2f} GB/s to the disk); each rank")
        for world in WORLDS:
            part = 12 * parameters / world
            print(f"    of {world:5,} copies {part / 1e9:.2f} GB off its GPU: {part / 2e10:.2f} s at 20 GB/s")


if __name__ == "__main__":
    main()
