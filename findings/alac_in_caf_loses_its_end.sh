#!/usr/bin/env bash
# FFmpeg cuts the end off ALAC in CAF: padding is taken from a last packet that has none.
#
# Seen with av==18.1.0 (FFmpeg's libraries as its wheel bundles them) on files of soundfile==0.14.0 (libsndfile 1.2.2): of 15,000 samples
# 13,616 are decoded, of 20,000 it is 19,520; libsndfile reads its own files whole. The file's
# packet table says how many frames of the last packet are padding; ALAC's last packet is short already, so that they are missing twice.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" soundfile==0.14.0 av==18.1.0
PYTHONPATH=$work/site WORK=$work python3 - <<'P'
import os, av, numpy as np, soundfile

found = {}
for samples in (15000, 20000):
    file = f"{os.environ['WORK']}/{samples}.caf"
    soundfile.write(file, np.sin(np.arange(samples) / 20).astype(np.float32) / 2, 16000, format="CAF", subtype="ALAC_16")
    with av.open(file) as opened:
        decoded = sum(frame.samples for frame in opened.decode(audio=0))
    found[samples] = decoded
    print(f"{samples} samples: libsndfile reads {len(soundfile.read(file)[0])}, FFmpeg {decoded}")
raise SystemExit(0 if found == {15000: 13616, 20000: 19520} else "the behaviour has changed")
P
echo "as described: av 18.1.0, soundfile 0.14.0"
