"""What somebody has who never saw the repository: the wheel in an empty environment, and every command of the README.

    python benchmarks/stranger.py                       (CONTRIBUTING.md; some minutes and 2 GB while it runs)
    python3.12 benchmarks/stranger.py                   with another Python
    python benchmarks/stranger.py --lowest              the oldest releases that pyproject.toml allows, and some tests

The commands, samples and lines of Python are read from README.md itself; ``HOW`` says what is added to a command so
that it is short, or that it is not run. Ends with 1 at the first that fails, after what it printed. Only the standard
library is used here: nothing needs to be installed where this is run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Beginning of a command of the README: what takes the place of its words in capitals, and what is added to it.
# None: it needs published weights.
HOW: dict[str, tuple[dict[str, str], str] | None] = {
    "weft data validate": ({}, ""),
    "weft data stats": ({}, ""),
    "weft finetune scratch": ({}, "--steps 3"),
    "weft evaluate": ({}, "--max-new-tokens 8"),
    "weft chat": ({}, "--max-new-tokens 8"),
    "weft page": ({}, "--no-open"),
    "weft serve": ({}, "--port 0"),
    "weft import": None,
    "weft export": None,
    "weft data convert": ({"FORMAT": "subtitles", "PATH": "talk.srt"}, ""),
    "weft score": ({"METRIC": "wer", "P": "answers.jsonl", "R": "references.jsonl"}, "--field text"),
    "weft show minigpt_v2": ({}, ""),
    "weft show DIR": ({"DIR": "my-model"}, ""),
    "weft train": ({}, "--set stages.0.steps=2"),
}
NOTHING_TO_DRAW = "so there is nothing to draw"  # what a model of three updates may rightly end `weft chat --save` with
SERVERS = ("weft page", "weft serve")
BEFORE = ["weft --help", "weft doctor", "python -m weft.cli.doctor"]
ANSWERS = "weft generate my-model test.jsonl -o answers.jsonl --max-new-tokens 8"  # what `weft score` then reads

# Media under the names that the README's samples have, and files of another program for `weft data convert`.
MEDIA = """
import numpy as np, soundfile
from pathlib import Path
from PIL import Image
for folder in ("wav", "img"): Path(folder).mkdir()
wave = (0.3 * np.sin(np.arange(24000) * 0.2)).astype(np.float32)
soundfile.write("wav/8.flac", wave, 16000)
soundfile.write("talk.wav", wave, 16000)
Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)).save("img/7.jpg")
"""
SUBTITLES = "1\n00:00:00,200 --> 00:00:01,000\nnine zero two\n"

TESTS = [
    "tests/conversation",
    "tests/dialects/test_chatml.py",
    "tests/media",
    "tests/data/test_loader.py",
    "tests/data/test_mixture_and_packing.py",
    "tests/data/test_converters_rows.py",
    "tests/evaluation/test_scorers.py",
    "tests/evaluation/test_text.py",
    "tests/generation",
    "tests/models",
    "tests/serving",
    "tests/formats/test_adapters.py",
    "tests/formats/test_bundled.py",
]


def blocks(beginning: str) -> list[str]:
    """The README's indented blocks that begin so, without their indent."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE)
    texts = [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip() for block in found]
    return [text for text in texts if text.startswith(beginning)]


def asked() -> list[str]:
    """The README's commands, in its order, made runnable; those that need published weights are named and left out."""
    ready = []
    for line in "\n".join(blocks("weft ")).splitlines():
        command = line.split("#")[0].strip()
        known = [beginning for beginning in HOW if command.startswith(beginning)]
        if not known:
            sys.exit(f"HOW in {Path(__file__).name} does not say how to run this command of the README: {command}")
        how = HOW[known[0]]
        if how is None:
            print(f"not run, needs published weights: {command}", flush=True)
            continue
        words = [how[0].get(word, word) for word in shlex.split(command)]
        if known[0] == "weft score":
            ready.append(ANSWERS)
        ready.append(f"{shlex.join(words)} {how[1]}".strip())
    return ready


class Place:
    """A folder with an empty environment of its own; commands find its programs, and no cache of the user's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir()
        self.log = folder / "printed.txt"
        subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
        programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
        self.plain = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.plain["PATH"] = f"{programs}{os.pathsep}{self.plain['PATH']}"
        self.own = {**self.plain, "XDG_CACHE_HOME": str(folder / "cache")}

    def run(self, *command: str | Path, pip: bool = False, cwd: Path | None = None, said: str = "") -> None:
        """Runs to the end; ends this program with 1 where it fails."""
        begun = time.monotonic()
        with self.log.open("w+") as log:
            environment = self.plain if pip else self.own  # pip's cache spares downloads, and is not weft's
            program = shutil.which(str(command[0]), path=self.plain["PATH"]) or str(command[0])
            done = subprocess.run(
                [program, *command[1:]], cwd=cwd or self.work, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        status = 0 if NOTHING_TO_DRAW in self.log.read_text() else done.returncode
        self.told(said or shlex.join(map(str, command)), begun, status)

    def serve(self, command: str, path: str, body: dict[str, object] | None) -> None:
        """Starts a server, asks once, stops it."""
        begun = time.monotonic()
        program, *rest = shlex.split(command)
        with self.log.open("w+") as log:
            found = shutil.which(program, path=self.plain["PATH"]) or program
            server = subprocess.Popen([found, *rest], cwd=self.work, env=self.own, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not (address := re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())):
                if server.poll() is not None:
                    self.told(command, begun, server.returncode or 1)
                time.sleep(0.2)
            data = json.dumps(body).encode() if body else None
            request = urllib.request.Request(address[0] + path, data, {"Content-Type": "application/json"})
            for wait in range(300):  # the address is told a moment before it is listened on
                try:
                    with urllib.request.urlopen(request, timeout=120) as answer:
                        answer.read()
                    break
                except urllib.error.HTTPError as error:
                    self.log.write_text(f"{self.log.read_text()}\n{error.read().decode()}")
                    self.told(f"{command}: {path}", begun, error.code)
                except OSError:
                    if wait == 299:
                        raise
                    time.sleep(0.2)
        finally:
            server.terminate()
            server.wait(60)
        self.told(f"{command}: {path}", begun, server.returncode)

    def told(self, what: str, begun: float, status: int) -> None:
        print(f"{'failed' if status else 'ok':6} {time.monotonic() - begun:5.0f} s  {what}", flush=True)
        if status:
            sys.exit(f"status {status}; it printed:\n{self.log.read_text()}")


def lowest() -> list[str]:
    """A pin for each lower bound of what is installed; the higher where there are two. torch stays free: the index's
    old releases for Linux bring CUDA."""
    extras = PROJECT["optional-dependencies"]
    named = extras["all"][0].partition("[")[2].rstrip("]").split(",")
    bounds: dict[str, str] = {}
    for line in [*PROJECT["dependencies"], *(line for extra in named for line in extras[extra])]:
        name, _, bound = line.partition(">=")
        higher = max(bounds.get(name, "0"), bound, key=lambda version: [int(n) for n in version.split(".")])
        bounds[name] = higher
    return [f"{name}=={bound}" for name, bound in bounds.items() if name != "torch"]


def install(place: Place, old: bool) -> None:
    source, pins = place.folder / "source", place.folder / "lowest.txt"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    pip = ("python", "-m", "pip")
    place.run(*pip, "wheel", "--no-deps", "-w", place.folder, source, pip=True, said="pip wheel")
    shutil.rmtree(source)
    (wheel,) = place.folder.glob("*.whl")
    pins.write_text("\n".join(lowest() if old else []))
    limits = ("-c", ROOT / "constraints.txt", "-c", pins)
    place.run(*pip, "install", *limits, f"{wheel}[all]", pip=True, said="pip install weftlm[all]")
    if old:
        place.run(
            *pip,
            "install",
            *limits,
            "pytest",
            "hypothesis",
            "openai>=3",
            pip=True,
            said="pip install pytest hypothesis openai",
        )


def use(place: Place) -> None:
    """Everything that the README shows, in its order."""
    place.run("python", "-c", MEDIA, said="media made")
    decoder, text, found = json.JSONDecoder(), "\n".join(blocks('{"messages"')), []
    while text.strip():
        sample, end = decoder.raw_decode(text.lstrip())
        found.append(sample)
        text = text.lstrip()[end:]
    lines = "".join(json.dumps({"id": str(i), **found[i % len(found)]}) + "\n" for i in range(8))
    for name in ("train.jsonl", "test.jsonl"):
        (place.work / name).write_text(lines)
    references = [{"id": str(i), "text": "nine zero two"} for i in range(8)]
    (place.work / "references.jsonl").write_text("".join(json.dumps(line) + "\n" for line in references))
    (place.work / "talk.srt").write_text(SUBTITLES)
    for command in [*BEFORE, *asked()]:
        if command.startswith(SERVERS):
            question = {"model": "my-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
            place.serve(command, "/", None)
            place.serve(command, "/v1/chat/completions", question)
        else:
            place.run(*shlex.split(command))
    (python,) = blocks("import weft")
    place.run("python", "-c", python, said="the README's Python")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lowest", action="store_true", help="the oldest releases allowed, and a selection of tests")
    old = parser.parse_args().lowest
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        install(place, old)
        use(place)
        if old:
            shutil.copytree(ROOT / "tests", place.folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("pyproject.toml", "README.md", "docs"):  # the documents are tested too
                (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, place.folder / name)
            place.run("python", "-m", "pytest", "-x", "-m", "not slow", *TESTS, cwd=place.folder)
        place.run("python", "-m", "pip", "check", pip=True)


if __name__ == "__main__":
    main()
