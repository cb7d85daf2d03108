"""Shards behind an address of fsspec beside the same shards here: samples, media, batches, a damaged one.

    moto_server -p 5055 &                             # pip install "moto[server,s3]", in another environment
    export AWS_ENDPOINT_URL=http://127.0.0.1:5055 AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x
    python -m benchmarks.shards_away s3://weft/shards         # needs s3fs; any address that fsspec can write to

    gcp-storage-emulator start --port 9023 --in-memory --default-bucket weft &      # pip install gcp-storage-emulator
    export STORAGE_EMULATOR_HOST=http://127.0.0.1:9023 FSSPEC_GS_TOKEN=anon GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false
    python -m benchmarks.shards_away gs://weft/shards         # needs gcsfs; without the last of these it asks for TLS

    python -m benchmarks.shards_away hf://datasets/me/set     # a hub on this machine (`tiny_hub`), begun for it

Makes shards of both kinds from pictures of noise, copies them there (what is at the address is written over), and reads
them as training does. Each line that it prints was asserted first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import numpy as np
import torch
from benchmarks.tiny_hub import Hub
from PIL import Image

from weft.data import shards
from weft.data.loader import SourceSpec, TrainingData
from weft.data.shard_reading import samples_of
from weft.data.shard_writing import shard
from weft.data.shards import Shards
from weft.data.stats import measure
from weft.data.validate import validate
from weft.media import Stored
from weft.recipes import model_spec
from weft.training.sizes import planned

COUNT = 120


def samples(folder: Path) -> Path:
    made = np.random.default_rng(0)
    lines = []
    for i in range(COUNT):
        Image.fromarray(made.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / f"{i}.png")
        asked = [{"type": "image", "image": f"{i}.png"}, {"type": "text", "text": f"what is {i}?"}]
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": f"number {i}"}]
        lines.append(json.dumps({"id": str(i), "messages": messages}))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "samples.jsonl"


def media(source: Shards, index: int) -> list[bytes]:
    return [p.source.read() for p in source[index].images if isinstance(p.source, Stored)]


def batches(path: str | Path, processor: Any, policy: Any = "fail") -> tuple[list[dict[str, Any]], list[str]]:
    spec = SourceSpec(str(path), name="one")
    data = TrainingData([spec], processor, row_tokens=600, seed=1, on_bad_sample=policy)
    found = list(islice(data.batches(), 30))
    return [b.inputs for b in found], [s for b in found for s in b.skipped] + list(data.problems)


def failing(times: int, read: Callable[..., bytes]) -> Callable[..., bytes]:
    """A read that the network fails ``times`` times."""
    left = [times]

    def tried(*arguments: Any, **options: Any) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionResetError("the other side has hung up")
        return read(*arguments, **options)

    return tried


def one_kind(kind: Any, here: Path, away: str, file: Path, processor: Any, hub: Hub | None) -> None:
    done = shard(file, here, format=kind, size=120_000)
    files, root = fsspec.core.url_to_fs(away)
    # Only somebody with an account writes to a hub.
    to, place = (fsspec.filesystem("file"), str(hub.folder / kind)) if hub else (files, root)
    to.put(f"{here}/", place + "/", recursive=True)
    files.invalidate_cache()
    near, far = Shards(here), Shards(away)
    begun = time.perf_counter()
    assert [repr(near[i].messages[0].parts[1]) for i in range(COUNT)] == [
        repr(far[i].messages[0].parts[1]) for i in range(COUNT)
    ]
    assert all(media(near, i) == media(far, i) for i in range(COUNT))
    print(
        f"{kind}: {COUNT} samples of {len(done)} shards and their media are alike, {time.perf_counter() - begun:.1f} s"
    )
    begun = time.perf_counter()
    assert not any(isinstance(found, Exception) for found in samples_of(far))
    print(f"{kind}: all of them in order, ahead in threads, {time.perf_counter() - begun:.1f} s")
    if hub:
        hub.given = hub.reads = 0
        read = Shards(away)
        size = sum(len(data) for i in range(COUNT) for data in media(read, i))
        print(
            f"{kind}: {size:,} bytes of media came, with their samples, in {hub.given:,} bytes of {hub.reads} answers"
        )
    alike = zip(batches(here, processor)[0], batches(away, processor)[0], strict=True)
    assert all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in alike)
    print(f"{kind}: 30 batches of training are alike")
    assert measure([away]).as_dict()["measures"] == measure([here]).as_dict()["measures"]
    assert validate([away], deep=True).samples == COUNT
    print(f"{kind}: stats and validate --deep are alike")
    if kind == "tar":
        held, read = far[1].images[0].source, far._files.cat_file
        far._files.cat_file = failing(shards.TRIES - 1, read)
        assert isinstance(held, Stored) and held.read() == media(near, 1)[0]
        far._files.cat_file = read
        print(f"{kind}: a read that fails {shards.TRIES - 1} times is read")
    broken, count = done[-1]
    to.pipe_file(f"{place}/{broken}", to.cat_file(f"{place}/{broken}")[:100])
    files.invalidate_cache()
    lost, mistakes = Shards(away), []
    checked = validate([away], on_mistake=mistakes.append)
    assert (checked.samples, checked.mistakes) == (COUNT - count, count), checked.mistakes
    assert len(lost) == COUNT
    _, skipped = batches(away, processor, "skip")
    assert skipped and all(broken in str(problem) for problem in skipped)
    print(f"{kind}: a shard cut to 100 bytes: {count} mistakes; in training {len(skipped)} samples left out and told")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    address = parser.parse_args().address
    processor = planned(model_spec("scratch"))[1]
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as served:
        hub = Hub(Path(served).resolve()) if address.startswith("hf://") else None
        if hub:
            Thread(target=hub.serve_forever, daemon=True).start()
            fsspec.config.conf["hf"] = {"endpoint": hub.address, "token": False}
        else:
            files, root = fsspec.core.url_to_fs(address)
            files.makedirs(root, exist_ok=True)
        file = samples(Path(name))
        for kind in ("tar", "parquet"):
            one_kind(kind, Path(name) / kind, f"{address}/{kind}", file, processor, hub)


if __name__ == "__main__":
    main()
