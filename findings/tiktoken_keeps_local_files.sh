#!/usr/bin/env bash
# tiktoken keeps a copy of a local vocabulary by the text of its path, and reads the copy when the file has changed.
#
# Seen with tiktoken==0.14.0: `load_tiktoken_bpe("words.tiktoken")` of a local file writes it into the temporary folder
# `data-gym-cache` under a hash of the path. After the file is replaced by one with two more tokens, the same call gives
# the old vocabulary, without a word; a relative path even gives another folder's file. transformers' TikTokenConverter
# reads through it. TIKTOKEN_CACHE_DIR="" (empty, not unset) reads what is there.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" tiktoken==0.14.0
cat > "$work/count.py" <<'P'
from tiktoken.load import load_tiktoken_bpe

print(len(load_tiktoken_bpe("words.tiktoken")))
P
write() { python3 - "$1" <<'P'
import base64, sys
tokens = [bytes([i]) for i in range(256)] + [b"lo", b"loom", b"warp"][: int(sys.argv[1])]
open("words.tiktoken", "w").writelines(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(tokens))
P
}
count() { TMPDIR=$work/tmp PYTHONPATH=$work/site python3 "$work/count.py"; }
mkdir "$work/tmp" "$work/here" "$work/there"
cd "$work/here"; write 1; first=$(count)
write 3; second=$(count); fresh=$(TIKTOKEN_CACHE_DIR="" count)
cd "$work/there"; write 2; third=$(count)
echo "257 tokens: read $first; 259 in the same file: read $second, without the cache $fresh; another folder's 258: read $third"
[ "$first $second $fresh $third" = "257 257 259 257" ] || { echo "the behaviour has changed"; exit 1; }
echo "as described: tiktoken 0.14.0"
