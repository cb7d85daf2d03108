"""``weft doctor``: what is installed, what is broken, and how to repair it.

It has to work on a broken installation, so everything is tried in isolation: nothing here imports the rest of weft's
model code, and an import that fails is a finding, not the end.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module, metadata, util
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from weft.cli.terminal import out, size
from weft.version import VERSION

PYTHON = ((3, 11), (3, 14))  # from, below
TORCH, TRANSFORMERS = (2, 11), (5, 16, 1)
OURS = "weft.cli:main"  # what the command weft runs
ROOM = 5e9  # bytes of disk and memory below which work gets tight

# What each part needs at run time: distribution, module. torch and transformers are examined on their own.
NEEDED = {
    "peft": "peft",
    "safetensors": "safetensors",
    "numpy": "numpy",
    "grain": "grain",
    "sentencepiece": "sentencepiece",
    "protobuf": "google.protobuf",
    "tiktoken": "tiktoken",
    "jiwer": "jiwer",
    "sacrebleu": "sacrebleu",
    "whisper-normalizer": "whisper_normalizer",
    "pydantic": "pydantic",
    "matplotlib": "matplotlib",
}
OPTIONAL = {"tensorboard": "log to TensorBoard", "wandb": "log to Weights & Biases"}


@dataclass
class Finding:
    """One line of the report. ``broken`` means that weft does not work; ``fix`` is the command that repairs it."""

    name: str
    state: Literal["ok", "note", "broken"]
    says: str
    fix: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what is installed, what is broken, and how to repair it. Status 1 where something is broken."""
    findings = examine()
    broken = [f for f in findings if f.state == "broken"]
    if as_json:
        print(json.dumps({"ok": not broken, "findings": [asdict(f) for f in findings]}, ensure_ascii=False))
    else:
        _print(findings, len(broken))
    if broken:
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Every finding, in the order a person reads them."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # grain asks for jax, which nothing here uses
    findings: list[Finding] = []
    for part in CHECKS:
        try:
            findings += part()
        except Exception as e:  # a check that fails is a finding; the others still run
            findings.append(Finding(part.__name__.strip("_"), "broken", f"the check itself failed: {_short(e)}"))
    return findings


# ------------------------------------------------------------------------------------------------------------ checks


def _weft() -> list[Finding]:
    """weft itself, and others of its name: PyPI's weft writes into the same folder, weft-rag takes the command."""
    version = _version("weftlm") or VERSION
    found = [Finding("weft", "ok", f"{version} in {os.path.dirname(os.path.dirname(__file__))}")]
    shared = metadata.packages_distributions().get("weft", [])
    for other in metadata.distributions():
        name = other.metadata["Name"]
        scripts = [e.value for e in other.entry_points if e.group == "console_scripts" and e.name == "weft"]
        if OURS in scripts or name == "weftlm" or not (scripts or name in shared):
            continue
        says = f"{name} {other.version} is another project ({other.metadata['Summary']}) and "
        says += "writes into this package's folder" if name in shared else "has a command weft too"
        fix = f"pip uninstall -y {name} && pip install --force-reinstall --no-deps weftlm   (or one environment each)"
        found.append(Finding("another weft", "broken", says, fix))
    return found


def _python() -> list[Finding]:
    says = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if not PYTHON[0] <= sys.version_info[:2] < PYTHON[1]:
        return [Finding("python", "broken", says, "use Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.12")]
    return [Finding("python", "ok", says)]


def _torch() -> list[Finding]:
    version = _version("torch")
    if version is None:
        return [Finding("torch", "broken", "is not installed", "make setup")]
    try:
        torch = import_module("torch")
    except Exception as e:
        return [
            Finding("torch", "broken", f"{version} does not import: {_short(e)}", "pip install --force-reinstall torch")
        ]
    found = []
    if numbers(version) < TORCH:
        found.append(Finding("torch", "broken", f"{version} is too old", f"pip install -U 'torch>={_dotted(TORCH)}'"))
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if getattr(torch.version, "hip", None):
        build = f"ROCm {torch.version.hip}"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        memory = torch.cuda.get_device_properties(0).total_memory
        says = f"{version} ({build} build), {len(names)} × {names[0]}, {size(memory)}"
    elif torch.backends.mps.is_available():
        says = f"{version} ({build} build), Apple GPU"
    else:
        says = f"{version} ({build} build), {torch.get_num_threads()} threads"
    found.append(Finding("torch", "ok", says))
    if torch.version.cuda and not torch.cuda.is_available():
        found.append(Finding("gpu", "note", "torch is a CUDA build and sees no GPU; everything runs on the CPU"))
    found.append(_bf16(torch))
    return found


def _bf16(torch: Any) -> Finding:
    """Whether bfloat16 is fast here. On a CPU the instructions decide; without them it is correct and slow."""
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported():
            return Finding("bfloat16", "ok", "in hardware, on the GPU")
        return Finding("bfloat16", "note", "this GPU has none: train with --set precision=float32")
    a = torch.ones(8, 8, dtype=torch.bfloat16)
    if not torch.isfinite(a @ a).all():
        return Finding("bfloat16", "broken", "gives wrong products", "pip install --force-reinstall torch")
    flags = _cpu_flags()
    if flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        from weft.training.meters import product_rate

        half, single = (product_rate("cpu", dtype) / 1e9 for dtype in (torch.bfloat16, torch.float32))
        if single > 1.2 * half:
            says = f"in hardware, but {half:.0f} GFLOP/s against {single:.0f} in float32: --set precision=float32"
            return Finding("bfloat16", "note", says)
        return Finding("bfloat16", "ok", "in hardware, on the CPU")
    return Finding("bfloat16", "note", "no CPU instructions for it here: --set precision=float32 may be faster")


def _pair() -> list[Finding]:
    """torchvision and torchaudio: weft needs neither, and one that does not fit torch breaks `import transformers`.

    transformers imports torchvision where it is installed and says, when that fails, that it could not import whatever
    was asked of it; so the pair is named here.
    """
    found = []
    for name in ("torchvision", "torchaudio"):
        version = _version(name)
        if version is None:
            continue
        try:
            import_module(name)
        except Exception as e:
            says = f"{version} does not fit torch {_version('torch')} and breaks transformers ({_short(e)})"
            found.append(Finding(name, "broken", says, f"pip uninstall -y {name}   (weft does not need it)"))
        else:
            found.append(Finding(name, "ok", f"{version} (weft does not need it)"))
    return found


def _transformers() -> list[Finding]:
    version = _version("transformers")
    if version is None:
        return [Finding("transformers", "broken", "is not installed", "make setup")]
    if numbers(version) < TRANSFORMERS:
        fix = f"pip install -U 'transformers>={_dotted(TRANSFORMERS)}'"
        return [Finding("transformers", "broken", f"{version} is too old", fix)]
    try:
        module = import_module("transformers")
        for name in ("AutoProcessor", "LlamaForCausalLM", "WhisperModel", "CLIPVisionModel"):
            getattr(module, name)
    except Exception as e:
        fix = "repair what is named above" if _pair_broken() else "pip install --force-reinstall transformers"
        return [Finding("transformers", "broken", f"{version} does not import its models: {_short(e)}", fix)]
    found = [Finding("transformers", "ok", version)]
    try:
        import_module("weft").register()
    except Exception as e:
        found.append(
            Finding("weft models", "broken", f"cannot be registered with transformers: {_short(e)}", "make setup")
        )
    else:
        found.append(Finding("weft models", "ok", "registered with transformers"))
    return found


def _pair_broken() -> bool:
    return any(f.state == "broken" for f in _pair())


def _needed() -> list[Finding]:
    """The other packages weft cannot do without: one line where all is well, one each where it is not."""
    broken, versions = [], []
    for distribution, module in NEEDED.items():
        version = _version(distribution)
        if version is None:
            broken.append(Finding(distribution, "broken", "is not installed", f"pip install {distribution}"))
            continue
        try:
            import_module(module)
        except Exception as e:
            above = distribution == "peft" and _pair_broken()  # peft imports transformers
            fix = "repair what is named above" if above else f"pip install --force-reinstall {distribution}"
            broken.append(Finding(distribution, "broken", f"{version} does not import: {_short(e)}", fix))
        else:
            versions.append(f"{distribution} {version}")
    return [*broken, Finding("packages", "ok", ", ".join(versions))] if versions else broken


def _images() -> list[Finding]:
    version = _version("pillow")
    if version is None:
        return [Finding("pictures", "broken", "Pillow is not installed", "pip install pillow")]
    from PIL import features

    codecs = {"JPEG": "jpg", "PNG": "zlib", "WebP": "webp", "TIFF": "libtiff"}
    lacking = [name for name, feature in codecs.items() if not features.check(feature)]
    if lacking:
        says = f"Pillow {version} was built without {', '.join(lacking)}"
        return [Finding("pictures", "broken", says, "pip install --force-reinstall --only-binary :all: pillow")]
    return [Finding("pictures", "ok", f"Pillow {version} reads JPEG, PNG, WebP, GIF, TIFF, BMP")]


def _sound() -> list[Finding]:
    found = []
    for name in ("soundfile", "soxr"):
        if _version(name) is None:
            found.append(Finding(name, "broken", "is not installed", f"pip install {name}"))
    if found:
        return found
    fix = "pip install --force-reinstall soundfile soxr"
    try:
        soundfile, soxr, numpy = (import_module(name) for name in ("soundfile", "soxr", "numpy"))
        lacking = [name for name in ("WAV", "FLAC", "MP3", "OGG") if name not in soundfile.available_formats()]
        resampled = len(soxr.resample(numpy.zeros(800, numpy.float32), 8000, 16000))
    except Exception as e:
        return [Finding("sound", "broken", f"soundfile or soxr does not work: {_short(e)}", fix)]
    library = f"soundfile {_version('soundfile')} ({soundfile.__libsndfile_version__}), soxr {_version('soxr')}"
    if lacking or resampled != 1600:
        says = f"{library}: cannot read {', '.join(lacking)}" if lacking else f"{library}: resamples wrongly"
        return [Finding("sound", "broken", says, fix)]
    return [Finding("sound", "ok", f"{library}; reads WAV, FLAC, MP3, OGG")]


def _machine() -> list[Finding]:
    cores, memory = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), _memory()
    if memory is None:
        return [Finding("machine", "ok", f"{cores} cores")]
    total, free = memory
    says = f"{cores} cores, {size(total)} of memory, {size(free)} free"
    return [Finding("machine", "note" if free < ROOM else "ok", says + (": tight" if free < ROOM else ""))]


def _disk() -> list[Finding]:
    free = shutil.disk_usage(os.getcwd()).free
    says = f"{size(free)} free in {os.getcwd()}"
    return [Finding("disk", "note" if free < ROOM else "ok", says + (": tight for checkpoints" if free < ROOM else ""))]


def _optional() -> list[Finding]:
    lacking = [f"{name} ({use})" for name, use in OPTIONAL.items() if util.find_spec(name) is None]
    return [Finding("optional", "ok", f"not installed: {', '.join(lacking)}")] if lacking else []


# ------------------------------------------------------------------------------------------------------------ helpers


CHECKS: list[Callable[[], list[Finding]]] = [_weft, _python, _torch, _pair, _transformers, _needed]
CHECKS += [_images, _sound, _machine, _disk, _optional]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` as (2, 13, 0)."""
    digits = []
    for piece in version.split("+")[0].split("."):
        if not piece.isdigit():
            break
        digits.append(int(piece))
    return tuple(digits)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:140]}" if lines else type(error).__name__


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith(("flags", "Features"))]
    except OSError:
        return set()
    return set(lines[0].split(":", 1)[1].split()) if lines else set()


def _memory() -> tuple[int, int] | None:
    """Total and available memory in bytes, where the system says."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file if "kB" in line}
        return found["MemTotal"], found["MemAvailable"]
    except (OSError, KeyError, ValueError):
        return None


def _print(findings: list[Finding], broken: int) -> None:
    marks = {"ok": ("✓", "good"), "note": ("!", "warn"), "broken": ("✗", "bad")}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for style in (None, "head", None):
        table.add_column(style=style)
    for finding in findings:
        text = Text(finding.says)
        if finding.fix:
            text.append("\n→ ", "accent").append(finding.fix, "accent")
        table.add_row(Text(*marks[finding.state]), Text(finding.name), text)
    out.print(table)
    out.print()
    if broken:
        out.print(Text(f"{broken} broken: follow the arrows.", "bad"))
    else:
        out.print(Text("All is well.", "good"))


if __name__ == "__main__":  # python -m weft.cli.doctor, where the command weft is somebody else's
    typer.run(doctor)
