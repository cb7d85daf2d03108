"""`weft generate`: a file of requests to a file of answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from weft.cli import asking


def generate(
    model: asking.ModelName,
    requests: Annotated[
        str, typer.Argument(help="JSON Lines of samples, or shards; a final answer in one is left out.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of answers; where it exists, it is gone on with.")],
    batch_size: asking.BatchSize = 16,
    nproc: asking.Processes = 1,
    ray: asking.Ray = False,
    on_bad_sample: asking.OnBadSample = "fail",
    media_root: asking.MediaRoot = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away the answers that are there.")] = False,
    max_new_tokens: asking.MaxNewTokens = 256,
    sample: asking.Sample = False,
    temperature: asking.Temperature = None,
    top_p: asking.TopP = None,
    top_k: asking.TopK = None,
    beams: asking.Beams = 1,
    repetition_penalty: asking.RepetitionPenalty = 1.0,
    seed: asking.Seed = None,
    dtype: asking.Dtype = None,
    device: asking.Device = None,
    switch: asking.Switch = None,
) -> None:
    """Answer a file of requests in batches.

    Each answer is on disk as soon as it is made, so after any kind of end the same command goes on where it stopped.
    """
    from weft.cli.terminal import err, plural
    from weft.data.source import is_shards
    from weft.generation.answers import answer_all
    from weft.generation.requests import answer_file

    options = asking.decoding_options(
        max_new_tokens, sample, temperature, top_p, top_k, beams, repetition_penalty, seed
    )
    with (
        asking.ranks(nproc) as ranks,
        asking.open_models(model, dtype, device or ranks.device, switch, nproc, ray) as answerer,
        asking.progress_bar("answering") as progress,
    ):
        shared: dict[str, Any] = {"batch_size": batch_size, "on_bad_sample": on_bad_sample, "restart": restart}
        shared |= {"ranks": ranks, "progress": progress}
        if is_shards(requests):
            from weft.data.shard_reading import ShardRequests

            summary = answer_all(answerer, ShardRequests(requests, on_bad_sample), out, options, **shared)
        else:
            summary = answer_file(answerer, requests, out, options, media_root=media_root, **shared)
    if ranks.rank:
        return
    before = f", {summary.before:,} of them by an earlier run" if summary.before else ""
    bad = f"; {plural(summary.errors, 'request')} could not be asked, with the reason there" if summary.errors else ""
    err.print(f"{plural(summary.total - summary.errors, 'answer')} in {out}{before}{bad}", soft_wrap=True)
