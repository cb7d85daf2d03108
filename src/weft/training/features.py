"""Features of frozen encoders, kept on disk: what a medium gives is computed once, for all epochs and runs.

A feature is found by the weights and settings of its encoder, and by the very numbers that the encoder is given: so by
the medium, how it was cut and how it was prepared. What is found is checked; what is damaged is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from platformdirs import user_cache_path
from safetensors import safe_open
from safetensors.torch import save
from torch.nn.utils.rnn import pad_sequence

from weft.data.augment import Augment
from weft.data.loader import SourceSpec
from weft.files import whole_file
from weft.models.loss import sent
from weft.training.recipe import PartName, PartTraining, Stage
from weft.version import VERSION

ENCODERS: tuple[PartName, ...] = ("vision", "audio")
Say = Callable[[str], None]
# By the encoder that is given something else each time.
RANDOM = {
    "audio": ("gain_db", "noise_db", "speed", "pad_seconds", "cut", "join", "time_masks", "freq_masks"),
    "vision": ("color", "shift", "scale", "flip"),
}


class FeatureStore:
    """Tensors by key, in files of one micro-step each; several processes may read and write it at once.

    All encoders together take at most ``limit`` bytes: the files that were used longest ago go. What this process has
    used stays, so where that fills the store nothing more is kept. Files lie in ``root`` / ``name``.
    """

    def __init__(self, root: Path, name: str, limit: int, say: Say) -> None:
        self.root, self.folder, self.limit, self.say = root, root / name, limit, say
        self.begun, self.full = time.time(), False
        self.used: set[Path] = set()
        self.places: dict[str, Path] = {}
        for file in self.folder.glob("*.safetensors"):
            with suppress(Exception), safe_open(file, "pt") as held:  # a damaged one is as good as not there
                self.places |= dict.fromkeys(held.keys(), file)
        self.room = limit - sum(size for _, size, _ in self._files())

    def read(self, key: str) -> torch.Tensor | None:
        """What is kept under a key, as it was written."""
        if (file := self.places.get(key)) is None:
            return None
        try:
            with safe_open(file, "pt") as held:
                found, check = held.get_tensor(key), held.metadata()[key]
            if check != checksum(found):
                raise ValueError("its bytes are not those that were written")
        except Exception as error:  # safetensors' own, KeyError, OSError: one answer to all
            self.places = {k: f for k, f in self.places.items() if f != file}
            if file.exists():  # else another process has made room
                self.say(f"  {file} is damaged ({error}): its features are computed again")
                file.unlink(missing_ok=True)
            return None
        if file not in self.used:
            self.used.add(file)
            with suppress(OSError):
                os.utime(file)
        return found

    def write(self, items: Mapping[str, torch.Tensor]) -> None:
        """Keeps them, where there is room."""
        data = save(dict(items), {key: checksum(value) for key, value in items.items()})
        if self.full or not self._room_for(len(data)):
            return
        file = self.folder / f"{secrets.token_hex(8)}.safetensors"
        try:
            with whole_file(file, "wb") as handle:
                handle.write(data)
        except OSError as error:
            self._stop(f"cannot be written ({error.strerror})")
            return
        self.room -= len(data)
        self.used.add(file)
        self.places |= dict.fromkeys(items, file)

    def _room_for(self, size: int) -> bool:
        if self.room < size:
            files = self._files()
            self.room = self.limit - sum(held for _, held, _ in files)
            for last, held, file in sorted(files):
                if self.room >= size + self.limit // 50 or last >= self.begun:
                    break
                file.unlink(missing_ok=True)
                self.room += held
        if self.room < size:
            self._stop(f"are {self.limit / 1e9:g} GB by now (features_gb)")
        return not self.full

    def _stop(self, why: str) -> None:
        self.full = True
        self.say(f"  features in {self.root} {why}: no more are kept, and the rest is computed each time")

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was last used, its size, and where it is."""
        found = []
        for file in self.root.glob("*/*.safetensors"):
            with suppress(OSError):
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        return found


class Recalled:
    """A frozen encoder's tower that computes what is not kept yet. It is called as the tower, with inputs on the CPU.

    What is computed is rounded to ``dtype`` before it is used, too: so an epoch is as the one before it.
    """

    def __init__(self, tower: Any, store: FeatureStore, dtype: torch.dtype) -> None:
        self.tower, self.store, self.dtype = tower, store, dtype
        self.device = next(tower.parameters()).device
        self.recalled = self.computed = 0

    def __call__(self, inputs_N: torch.Tensor, lengths_N: torch.Tensor | None = None) -> Any:
        if (self.dtype == torch.bfloat16) != torch.is_autocast_enabled(self.device.type):  # an evaluation's answers
            given = sent(inputs_N, self.device)
            return self.tower(given) if lengths_N is None else self.tower(given, lengths_N)
        inputs_N = inputs_N.cpu()
        ends = [inputs_N.shape[1]] * len(inputs_N) if lengths_N is None else lengths_N.tolist()
        keys = [digest(row[:end]) for row, end in zip(inputs_N, ends, strict=True)]
        found = {key: self.store.read(key) for key in keys}
        missing = [n for key, n in {key: n for n, key in enumerate(keys)}.items() if found[key] is None]
        if missing:
            found |= self._compute(inputs_N, lengths_N, missing, keys)
        self.computed += len(missing)
        self.recalled += len(keys) - len(missing)
        rows = [row for key in keys if (row := found[key]) is not None]
        features_NTD = sent(pad_sequence(rows, batch_first=True).float(), self.device)
        return features_NTD if lengths_N is None else (features_NTD, torch.tensor([len(row) for row in rows]))

    def _compute(
        self, inputs_N: torch.Tensor, lengths_N: torch.Tensor | None, missing: Sequence[int], keys: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        lengths_M = None if lengths_N is None else lengths_N[list(missing)]
        given = sent(inputs_N[list(missing)], self.device)
        with torch.no_grad():
            features_MTD, lengths_M = (self.tower(given), None) if lengths_M is None else self.tower(given, lengths_M)
        features_MTD = features_MTD.to(self.dtype).cpu()
        ends = [features_MTD.shape[1]] * len(missing) if lengths_M is None else lengths_M.tolist()
        cut = [row[:end].contiguous() for row, end in zip(features_MTD, ends, strict=True)]
        made = dict(zip((keys[n] for n in missing), cut, strict=True))
        self.store.write(made)
        return made


def recalled_towers(
    model: Any, stage: Stage, specs: Sequence[SourceSpec], *, half: bool, gigabytes: float, say: Say
) -> dict[str, Recalled]:
    """The towers of a stage whose features are kept, by part; for the others it is said why they are not.

    ``half``: the stage computes in bfloat16, in which its features are kept; else in float32.
    """
    towers: dict[str, Recalled] = {}
    for part in ENCODERS:
        if not gigabytes or not model.part(part) or stage.parts.get(part, PartTraining()).train != "frozen":
            continue
        (tower,), section = model.part(part), getattr(model.config, f"{part}_section")
        why = sorted({name for spec in specs for name in changed_at_random(spec.augment, part)})
        if getattr(section, "batch_leak", False):
            why.append("batch_leak")
        if why:
            say(f"  {part} is frozen, but what it is given changes ({', '.join(why)}): its features are not kept")
            continue
        root = user_cache_path("weft") / "features"
        store = FeatureStore(root, fingerprint(tower, section, half), int(gigabytes * 1e9), say)
        towers[part] = Recalled(tower, store, torch.bfloat16 if half else torch.float32)
        say(f"  {part} is frozen: its features are kept in {store.folder} ({len(store.places):,} so far)")
    return towers


def changed_at_random(augment: Augment | Callable[[int], Augment], part: str) -> list[str]:
    """The settings that change what an encoder is given; ``part`` is "vision" or "audio"."""
    if not isinstance(augment, Augment):
        return ["changes that grow"]
    return [name for name in RANDOM[part] if getattr(augment, name)]


def fingerprint(tower: torch.nn.Module, section: Any, half: bool) -> str:
    """Of all that an encoder's features depend on, but for what it is given."""
    said = section.model_dump(mode="json", exclude={"connector"})
    if hasattr(tower, "merge"):  # it fills up to whole groups, and tells how loud it is (`encoders.transcript`)
        said["merge"] = tower.merge, "loud"
    made = hashlib.blake2b(json.dumps([VERSION, half, said], sort_keys=True).encode(), digest_size=16)
    for name, value in sorted(tower.state_dict().items()):
        made.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        made.update(octets(value))
    return made.hexdigest()


def digest(given: torch.Tensor) -> str:
    made = hashlib.blake2b(f"{given.dtype} {tuple(given.shape)}".encode(), digest_size=16)
    made.update(octets(given))
    return made.hexdigest()


def checksum(value: torch.Tensor) -> str:
    return f"{crc32(octets(value)):08x}"


def octets(value: torch.Tensor) -> memoryview:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
