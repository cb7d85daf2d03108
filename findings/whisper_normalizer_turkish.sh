#!/usr/bin/env bash
# Whisper's basic normaliser cuts Turkish words in two where they begin with a dotted capital I.
#
# Seen with whisper-normalizer==0.1.15 (the basic normaliser of the openai-whisper repository): "İzmir" becomes "i zmir", two
# words, for Python lowers İ to i and a combining dot, and marks become blanks. The same word written small stays one, so
# a right transcript in small letters has four errors in five words (WER 0.8). Word error rates of Turkish after it cannot be
# compared with others.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work" whisper-normalizer==0.1.15 jiwer==4.0.0
PYTHONPATH=$work python3 - <<'P'
import jiwer
from whisper_normalizer.basic import BasicTextNormalizer

normal = BasicTextNormalizer()
said, heard = normal("İstanbul ve İzmir"), normal("istanbul ve izmir")
print(repr(said), "beside", repr(heard), "WER", round(jiwer.wer(said, heard), 2))
assert said == "i stanbul ve i zmir" and heard == "istanbul ve izmir", "the behaviour has changed"
assert jiwer.wer(said, heard) == 0.8
P
echo "as described: whisper-normalizer 0.1.15"
