"""Files of a model that is shared out among ranks: each writes what it holds, and nobody ever holds the whole.

They are safetensors (`torch.distributed.checkpoint` in its Hugging Face layout), so no pickle is written or read, and
any other number of ranks, or one process alone, reads what it needs of them.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from weft.conversation import WeftError
from weft.files import ASIDE, is_full, whole_folder
from weft.models.modeling import WeftForConditionalGeneration
from weft.models.processing import WeftProcessor
from weft.training.checkpoint import check_room, disk_full
from weft.training.export import kept_dtype
from weft.training.ranks import SILENCE, Ranks, others

FILE_BYTES = 5_000_000_000  # of a model's files, about

logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)


class ShardWriter:
    """Writes checkpoints while training goes on: what is to be written is copied first."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self.folder, self.ranks = folder, ranks
        self.group = dist.new_group(backend="gloo", timeout=SILENCE)  # training talks on the other meanwhile
        self.state: dict[str, Any] = {}
        self.saved: int | None = None  # step of the newest that is whole, on the first rank
        self._under_way: Any = None
        self._place: AbstractContextManager[Path] | None = None

    def begin(self, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """A checkpoint of ``state["step"]``; waits for the one before it."""
        self.wait()
        self.state, final = {**state, "shards": True}, self.folder / f"step-{state['step']:08d}"
        need = sum(t.numel() * t.element_size() for t in tensors.values()) + (1 << 20)
        self.ranks.lead(partial(self._open, final, need))
        writer = HuggingFaceStorageWriter(str(self.folder / f"{ASIDE}{final.name}"), save_distributed=True)
        with others():
            self._under_way = dcp.async_save(dict(tensors), storage_writer=writer, process_group=self.group)

    def _open(self, final: Path, need: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        check_room(self.folder, need, f"the checkpoint of {final.name}")
        self._place = whole_folder(final)
        self._place.__enter__()

    def look(self) -> None:
        """Finishes the one under way if all is written; nobody waits."""
        if self._under_way is not None and self._under_way.done():
            self._end()

    def wait(self) -> None:
        """Until there is none under way, on every rank."""
        if self._under_way is not None:
            self._end()
        self.ranks.told(0)  # not before the first rank is through

    def _end(self) -> None:
        under_way, self._under_way = self._under_way, None
        try:
            under_way.result()
        except (Exception, CheckpointException) as error:
            if self._place is not None:
                with suppress(BaseException):
                    self._place.__exit__(type(error), error, None)
            why = [e for e, _ in error.failures.values()] if isinstance(error, CheckpointException) else [error]
            if any(map(is_full, why)):
                raise disk_full(self.folder, "a checkpoint could not be written") from None
            raise WeftError(f"{self.folder}: a checkpoint could not be written: {why[0]}") from error
        if self.ranks.first and self._place is not None:
            folder = self.folder / f"{ASIDE}step-{self.state['step']:08d}"
            files = {p.name: [p.stat().st_size, None] for p in sorted(folder.iterdir())}
            (folder / "state.json").write_text(json.dumps({**self.state, "files": files}, indent=1))
            self._place.__exit__(None, None, None)
            self._place = None
        self.saved = self.state["step"]


def read_into(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fills tensors, whole ones or this rank's shards, with those of their names in a folder of safetensors."""
    alone = not dist.is_initialized()
    with others():
        dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=alone)


def shapes(path: Path) -> dict[str, torch.Size]:
    """Names and shapes of the tensors that ranks left in a folder."""
    return {k: v.size for k, v in HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata.items()}  # type: ignore[union-attr]


def save_shards(model: WeftForConditionalGeneration, processor: WeftProcessor, path: Path, ranks: Ranks) -> None:
    """What `export.save_model` writes, of a model that is shared out: files of whole tensors, put together from
    slices on the disk."""
    dtype = kept_dtype(model)
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    names = [name for name, value in state.items() if first.setdefault(id(value), name) == name]
    own = {n: state[n].detach().to(dtype if state[n].is_floating_point() else None) for n in names}
    sizes = [own[n].numel() * dtype.itemsize for n in names]
    files = {n: 1 + sum(sizes[:i]) // FILE_BYTES for i, n in enumerate(names)}
    place: list[AbstractContextManager[Path]] = []

    def begin() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_room(path.parent, 2 * sum(sizes) + (1 << 20), "the model, in slices and whole,")
        place.append(whole_folder(path))
        place[0].__enter__()

    def end() -> None:
        config = model.config
        config.dtype, config.architectures = str(dtype).split(".")[1], [type(model).__name__.removeprefix("FSDP")]
        config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        processor.save_pretrained(folder)
        shutil.rmtree(folder / "sharded")
        if max(files.values()) == 1:  # as transformers names it
            shutil.move(folder / "model-00001-of-00001.safetensors", folder / "model.safetensors")
            (folder / "model.safetensors.index.json").unlink()
        place[0].__exit__(None, None, None)

    ranks.lead(begin)
    folder = path.with_name(ASIDE + path.name)
    writer = HuggingFaceStorageWriter(str(folder), files, save_distributed=True, enable_consolidation=True)
    with others():
        dcp.save(own, storage_writer=writer)
    ranks.lead(end)
