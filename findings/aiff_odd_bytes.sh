#!/usr/bin/env bash
# libsndfile counts the pad byte of an AIFF file as a sample.
#
# Seen with soundfile==0.14.0 (libsndfile 1.2.2): 999 samples of 8 bits (signed, unsigned, u-law, A-law), written as AIFF and
# read back by the same library, are 1,000. The chunk's size is even by rule, and the byte that fills it up is read as
# sound: silence for signed 8 bits, but -1.0 for unsigned ones and -0.98 for u-law, a click at the very end. 16 bits are right.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" soundfile==0.14.0
PYTHONPATH=$work/site python3 - <<'P'
import io, numpy as np, soundfile

print("libsndfile", soundfile.__libsndfile_version__)
found = {}
for kind in ("PCM_S8", "PCM_U8", "ULAW", "ALAW", "PCM_16"):
    file = io.BytesIO()
    soundfile.write(file, np.full(999, 0.5, np.float32), 16000, format="AIFF", subtype=kind)
    file.seek(0)
    wave, _ = soundfile.read(file)
    found[kind] = len(wave)
    print(f"{kind}: wrote 999 samples, read {len(wave)}, the last {wave[-1]:.2f}")
wanted = {"PCM_S8": 1000, "PCM_U8": 1000, "ULAW": 1000, "ALAW": 1000, "PCM_16": 999}
raise SystemExit(0 if found == wanted else "the behaviour has changed")
P
echo "as described: soundfile 0.14.0"
