"""What it costs to begin, in CPU seconds of fresh processes: `import weft`, the first load, the first answer.

And what of that is torch's and transformers' own.

    python -m benchmarks.start MODEL [--times 3]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median

TOLD = "import resource as r; u = r.getrusage(r.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"
STEPS = {
    "import weft": "import weft",
    "import torch": "import torch",
    "transformers' own classes": "from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM",
    "weft.load": "import weft; weft.load({model!r})",
    "and a first token": "import weft; weft.load({model!r}).chat('hello', max_new_tokens=1)",
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    for name, code in STEPS.items():
        run = [sys.executable, "-c", f"{code.format(model=asked.model)}\n{TOLD}"]
        found = [
            float(subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()[-1])
            for _ in range(asked.times)
        ]
        print(f"{name:28}{median(found):6.2f} s")


if __name__ == "__main__":
    main()
