#!/usr/bin/env bash
# PyAV makes no planar sound frame of eight channels.
#
# Seen with av==18.1.0: AudioFrame.from_ndarray of 7.1 sound in a planar format ends in IndexError ("index 8 is out of
# bounds for axis 0 with size 8"), where six channels, and eight in a packed format, work. Whoever reads or writes 7.1
# sound takes a packed format and lets FFmpeg convert.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" av==18.1.0 numpy==2.4.6
PYTHONPATH=$work/site python3 - <<'P'
import av, numpy as np

found = {}
for layout, channels in (("5.1", 6), ("7.1", 8)):
    for kind, shape in (("fltp", (channels, 100)), ("flt", (1, channels * 100))):
        try:
            frame = av.AudioFrame.from_ndarray(np.zeros(shape, np.float32), format=kind, layout=layout)
            found[layout, kind] = f"{frame.samples} samples"
        except IndexError as error:
            found[layout, kind] = f"IndexError: {error}"
        print(layout, kind, found[layout, kind])
right = "100 samples"
wanted = {("5.1", "fltp"): right, ("5.1", "flt"): right, ("7.1", "flt"): right}
wanted["7.1", "fltp"] = "IndexError: index 8 is out of bounds for axis 0 with size 8"
raise SystemExit(0 if found == wanted else "the behaviour has changed")
P
echo "as described: av 18.1.0"
