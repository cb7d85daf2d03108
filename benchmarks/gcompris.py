"""Takes photographs that fill the frame, named by their files, out of GCompris' data.

    apt-get download gcompris-qt-data && dpkg-deb -x gcompris-qt-data_*.deb GCOMPRIS
    python -m benchmarks.gcompris GCOMPRIS/usr/share/gcompris-qt/rcc OUT

Debian's package (GPL-3 and CC-BY-SA) keeps them in Qt's resource files. OUT gets those of animals and things, which
`photographs.py` asks about, and OUT/others places of the world, for `bundled_names.py` too.
"""

from __future__ import annotations

import argparse
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

NAMED = ("erase/resource", "explore_farm_animals/resource/animals", "explore_world_animals/resource/animals")
NAMED = (*NAMED, "categorization/resource/images/fishes", "categorization/resource/images/others")
NAMED = (*NAMED, "categorization/resource/images/tools")
OTHERS = ("categorization/resource/images/renewable", "categorization/resource/images/monuments")
FOLDER, PACKED = 2, 1  # flags of an entry


def entries(file: Path) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of a resource file (https://doc.qt.io/qt-6/resources.html), those packed with Zstandard left
    out."""
    held = file.read_bytes()
    if held[:4] != b"qres":
        raise ValueError(f"{file} is no resource file of Qt")
    version, tree, data, names = struct.unpack(">IIII", held[4:20])
    size = 22 if version >= 2 else 14

    def walk(node: int, above: str) -> Iterator[tuple[str, bytes]]:
        at = tree + size * node
        name, flags, first, second = struct.unpack(">IHII", held[at : at + 14])
        (length,) = struct.unpack(">H", held[names + name : names + name + 2])
        path = above + "/" + held[names + name + 6 : names + name + 6 + 2 * length].decode("utf-16-be") if node else ""
        if flags & FOLDER:
            for child in range(second, second + first):
                yield from walk(child, path)
        elif flags in (0, PACKED):
            (length,) = struct.unpack(">I", held[data + second : data + second + 4])
            content = held[data + second + 4 : data + second + 4 + length]
            yield path, zlib.decompress(content[4:]) if flags else content

    yield from walk(0, "")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("resources", type=Path)
    options.add_argument("out", type=Path)
    given = options.parse_args()
    count = 0
    for file in sorted(given.resources.glob("*.rcc")):
        for path, content in entries(file):
            folder, _, name = path.removeprefix("/gcompris/src/activities/").rpartition("/")
            if folder not in NAMED + OTHERS or content[8:12] != b"WEBP":
                continue
            out = given.out if folder in NAMED else given.out / "others"
            out.mkdir(parents=True, exist_ok=True)
            words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", Path(name).stem).lower()  # as they are named: cuttingTool2
            number = len([f for f in out.iterdir() if re.fullmatch(rf"{re.sub('[0-9]+$', '', words)} ?\d*", f.stem)])
            (out / f"{re.sub('[0-9]+$', '', words)} {number}.webp").write_bytes(content)
            count += 1
    print(f"{count} photographs in {given.out}")


if __name__ == "__main__":
    main()
