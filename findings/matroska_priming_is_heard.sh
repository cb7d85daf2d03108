#!/usr/bin/env bash
# The encoder's priming of AAC and MP3 in Matroska is decoded as sound by PyAV up to 17.0, and left out from 17.1 on.
#
# Seen with av==17.0.1 and av==17.1.0 (FFmpeg's libraries as their wheels bundle them) on a second of silence with a beep at sample 24,000, written by either: 17.0.1
# gives 1,024 samples of AAC and some 1,105 of MP3 before it, so that the beep is 21 and 23 ms late for whoever counts samples; its frames begin at -21 and
# -23 ms instead, which is where the truth is. The same AAC in MP4, and Opus in Matroska, are right in both. Word times of a browser's or a
# recorder's .mka differ by as much between two installations.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for version in 17.0.1 17.1.0; do
    python3 -m pip install --quiet --disable-pip-version-check --target "$work/$version" "av==$version" numpy==2.2.6
done
cat > "$work/write.py" <<'P'
import sys, av, numpy as np

wave = np.zeros(48000, np.float32)
wave[24000:24480] = 0.8 * np.sin(np.arange(480) * 2 * np.pi * 2000 / 48000)
with av.open(sys.argv[1], "w") as out:
    stream = out.add_stream(sys.argv[2], rate=48000)
    stream.layout = "mono"
    frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 48000, 0
    cut = av.AudioResampler("fltp", "mono", 48000, frame_size=stream.codec_context.frame_size or 1024)
    for piece in (*cut.resample(frame), *cut.resample(None)):
        out.mux(stream.encode(piece))
    out.mux(stream.encode(None))
P
cat > "$work/read.py" <<'P'
import sys, av, numpy as np

with av.open(sys.argv[1]) as file:
    frames = list(file.decode(audio=0))
wave = np.concatenate([frame.to_ndarray()[0] for frame in frames])
print(int(np.flatnonzero(abs(wave) > 0.2)[0]), frames[0].pts)
P
failed=0
check() { # file, version that reads, what is seen
    got=$(PYTHONPATH=$work/$2 python3 "$work/read.py" "$work/$1")
    echo "$1 read by $2: the beep's first sample and the first frame's pts are $got"
    [ "$got" = "$3" ] || { echo "expected $3"; failed=1; }
}
for writer in 17.0.1 17.1.0; do
    for pair in "libmp3lame mka" "aac mka" "aac mp4" "libopus mka"; do
        set -- $pair
        PYTHONPATH=$work/$writer python3 "$work/write.py" "$work/$writer-$1.$2" "$1"
    done
    check "$writer-aac.mka" 17.0.1 "25026 -21"
    check "$writer-aac.mka" 17.1.0 "24002 0"
    check "$writer-libmp3lame.mka" 17.0.1 "25107 -23"
    check "$writer-libmp3lame.mka" 17.1.0 "24002 0"
    for reader in 17.0.1 17.1.0; do
        check "$writer-aac.mp4" "$reader" "24002 0"
        check "$writer-libopus.mka" "$reader" "24001 0"
    done
done
[ "$failed" = 0 ] || { echo "the behaviour has changed"; exit 1; }
echo "as described: av 17.0.1, 17.1.0"
