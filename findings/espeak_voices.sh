#!/usr/bin/env bash
# What a name of an espeak-ng voice means: a misspelt variant is taken in silence, a listed language is refused.
#
# Seen with espeakng-loader==0.2.4 (espeak-ng 1.52): "en-us+nonsense" is accepted without an error and speaks, bit for bit,
# as "en-us" does, so a typing mistake in a list of voices makes a data set of fewer voices. "en-gb", a language that the
# list of voices prints, is refused; British English is "en".
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work" espeakng-loader==0.2.4
cat > "$work/speak.py" <<'P'
import ctypes as c, hashlib, os, sys

import espeakng_loader

heard = hashlib.sha256()
@c.CFUNCTYPE(c.c_int, c.POINTER(c.c_short), c.c_int, c.c_void_p)
def hear(wave, count, events):
    if count > 0:
        heard.update(c.string_at(wave, 2 * count))
    return 0

lib = c.CDLL(espeakng_loader.get_library_path())
lib.espeak_Initialize(2, 0, os.fsencode(os.path.dirname(espeakng_loader.get_data_path())), 0)
lib.espeak_SetSynthCallback(hear)
refused = lib.espeak_SetVoiceByName(sys.argv[1].encode())
raw = b"seven fish in a house"
lib.espeak_Synth(raw, len(raw) + 1, 0, 0, 0, 1, None, None)
lib.espeak_Synchronize()
print("refused" if refused else heard.hexdigest()[:16])
P
speak() { PYTHONPATH=$work python3 "$work/speak.py" "$1"; }
for voice in en-us en-us+m3 en-us+nonsense en-gb en; do echo "$voice: $(speak "$voice") $(speak "$voice")"; done | tee "$work/seen"
python3 - "$work/seen" <<'P'
import sys
seen = {line.split(":")[0]: line.split()[1:] for line in open(sys.argv[1])}
assert all(one == two for one, two in seen.values()) and seen["en-us+m3"] != seen["en-us"], seen
assert seen["en-us+nonsense"] == seen["en-us"] and seen["en-gb"] == ["refused", "refused"] and "refused" not in seen["en"]
P
echo "as described: espeakng-loader 0.2.4"
