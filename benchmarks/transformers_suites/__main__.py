"""transformers' own tests of models, generation and processors, run on weft's classes.

    python -m benchmarks.transformers_suites [--generation FILE] [PYTEST OPTIONS]

The tests are those of the installed release: its source distribution is fetched by pip into a temporary folder, with
`parameterized`, which they need. The distribution leaves out the tests of generation: ``--generation`` is
``tests/generation/test_utils.py`` of a checkout of transformers. Nothing of either is kept.

Ends with 1 where a test fails that ``docs/clients.md`` does not name with its reason, or where one named there passes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import soundfile
import transformers
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
# What the distribution leaves out and its tests import; the last makes local files of the media they would fetch.
STUBS = {
    "__init__.py": "",
    "generation/__init__.py": "",
    "exporters/__init__.py": "",
    "generation/test_utils.py": "class GenerationTesterMixin: pass\n",
    "exporters/test_export.py": "class ExportTesterMixin: pass\n",
    "../utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n"
    "    return {'png': 'a.png', 'wav': 'a.wav', 'mp3': 'a.wav'}.get(url.rsplit('.')[-1], url)\n",
}


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *arguments], check=True)


def prepare(folder: Path, generation: Path | None) -> None:
    """The suites, and what they need, in ``folder``."""
    wanted = f"transformers=={transformers.__version__}"
    pip("download", "--no-deps", "--no-binary", "transformers", "-d", str(folder), wanted)
    with tarfile.open(next(folder.glob("transformers-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    shutil.move(str(next(folder.glob("transformers-*/tests"))), folder / "tests")
    pip("install", "--no-deps", "--target", str(folder), "parameterized")
    for name, text in STUBS.items():
        file = folder / "tests" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    if generation is not None:
        shutil.copy(generation, folder / "tests/generation/test_utils.py")
    shutil.copy(Path(__file__).with_name("weft_suites.py"), folder / "tests/test_weft.py")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "a.png")
    soundfile.write(folder / "a.wav", np.zeros(4000), 16000)


def named() -> set[str]:
    """The tests that docs/clients.md names as failing: first cells of its rows that begin with test_."""
    text = (ROOT / "docs/clients.md").read_text("utf-8")
    return {name for cell in re.findall(r"^\| (`test_[^|]*)\|", text, re.M) for name in re.findall(r"`(\w+)`", cell)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generation", type=Path)
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, options.generation and options.generation.resolve())
        command = [
            sys.executable,
            "-m",
            "pytest",
            "tests/test_weft.py",
            "-q",
            "--junitxml=report.xml",
            "-c",
            "/dev/null",
        ]
        subprocess.run([*command, "--rootdir=.", "-W", "ignore", *rest], cwd=folder)
        cases = list(ElementTree.parse(folder / "report.xml").iter("testcase"))
    failed = {str(c.get("name")) for c in cases if c.find("failure") is not None or c.find("error") is not None}
    skipped = sum(c.find("skipped") is not None for c in cases)
    ran = {str(c.get("name")) for c in cases}
    known = named()
    print(f"{len(cases) - len(failed) - skipped} passed, {len(failed)} failed, {skipped} do not apply (skipped)")
    for name in sorted(failed - known):
        print(f"not in docs/clients.md: {name}")
    for name in sorted(known & ran - failed):
        print(f"named in docs/clients.md, and it passes: {name}")
    return int(bool(failed ^ (known & ran)))


if __name__ == "__main__":
    sys.exit(main())
