"""Takes out of a finished run what weft ships of its own model: connectors, LoRA and token rows, at most 25 MB.

    python benchmarks/ship_bundled.py RUN/final [--rank 32] [-o src/weft/bundled]

RUN is of the recipe `bundled`, on the parts that `weft parts` brings. The rank is at least the sum of those of the
stages that trained through LoRA. LICENSE and README.md that lie in the folder stay; state in README.md what the new
weights were trained on. Then `weft parts` puts the model together anew, and `weft evaluate bundled` measures what a
user gets.
"""

import argparse
from pathlib import Path

from weft.formats.bundled import ship
from weft.models.own import SHIPPED
from weft.parts import PARTS, sources

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("-o", "--out", type=Path, default=SHIPPED)
    asked = parser.parse_args()
    hub = next(str(part.hub) for part in PARTS if part.role == "language")
    told = ship(asked.model, sources(), hub, asked.out, asked.rank)
    size = sum(file.stat().st_size for file in asked.out.iterdir())
    print(f"{asked.out}: {size / 1e6:.1f} MB; {', '.join(f'{name} {count}' for name, count in told.items())}")
