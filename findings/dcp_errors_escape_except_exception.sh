#!/usr/bin/env bash
# What torch.distributed.checkpoint raises for a checkpoint that does not fit is no Exception: `except Exception` lets it through.
#
# Seen with torch==2.13.0: dcp.load of a name that the checkpoint lacks, or of a tensor of another shape, raises CheckpointException, which
# derives from BaseException. A program that tries one checkpoint and falls back to the one before (`except Exception`), or that cleans up and
# reports errors so, ends in the middle instead, as if interrupted. Who catches it has to name CheckpointException.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.3.5
cat > "$work/load.py" <<'PY'
import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp

warnings.simplefilter("ignore")
dcp.save({"w": torch.ones(2)}, checkpoint_id=sys.argv[1], no_dist=True)
for asked, state in (("another name", {"v": torch.zeros(2)}), ("another shape", {"w": torch.zeros(3)})):
    try:
        try:
            dcp.load(state, checkpoint_id=sys.argv[1], no_dist=True)
            print(f"{asked}: loaded")
        except Exception as error:
            print(f"{asked}: an Exception, {type(error).__name__}")
    except BaseException as error:
        print(f"{asked}: not an Exception, {type(error).__name__}")
PY
"$work/env/bin/python" "$work/load.py" "$work/saved" 2> /dev/null | tee "$work/said"
printf '%s\n' "another name: not an Exception, CheckpointException" "another shape: not an Exception, CheckpointException" > "$work/wanted"
cmp -s "$work/said" "$work/wanted" || { echo "the behaviour has changed"; exit 1; }
echo "as described: torch 2.13.0"
