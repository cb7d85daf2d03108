#!/usr/bin/env bash
# webvtt-py's start_in_seconds and end_in_seconds are whole seconds, cut off; and entities stay as they are written.
#
# Seen with webvtt-py==0.6.0: a cue from 00:00:03.900 to 00:00:04.100 has start_in_seconds 3 and end_in_seconds 4, so that a word of 0.2 s
# lasts a second and stands up to a second early; no error and no rounding. `start` and `end` are text with all digits. "Tom &amp; Ann"
# of a WebVTT file, where the format says that this is "Tom & Ann", is given with its entity in `text`.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" webvtt-py==0.6.0
printf 'WEBVTT\n\n00:03.900 --> 00:04.100\nTom &amp; Ann\n' > "$work/cue.vtt"
PYTHONPATH=$work/site FILE=$work/cue.vtt python3 - <<'P'
import os, webvtt

(cue,) = webvtt.read(os.environ["FILE"])
print(f"{cue.start} to {cue.end}: {cue.start_in_seconds!r} to {cue.end_in_seconds!r} seconds; text {cue.text!r}")
same = (cue.start_in_seconds, cue.end_in_seconds, cue.text) == (3, 4, "Tom &amp; Ann")
raise SystemExit(0 if same else "the behaviour has changed")
P
echo "as described: webvtt-py 0.6.0"
