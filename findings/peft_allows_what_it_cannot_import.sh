#!/usr/bin/env bash
# peft 0.17 allows transformers 5 by its metadata, and cannot be imported beside it.
#
# Seen with peft==0.17.1, transformers==5.16.1, torch==2.13.0: pip installs the three together and `pip check` finds nothing wrong; `import
# peft` ends with ImportError, for it imports HybridCache, which transformers 5 has not. peft==0.18.0 imports. So a lower bound that pip
# is content with can still be false.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
found() {
  "$work/env/bin/python" -m pip install --quiet --disable-pip-version-check "peft==$1" transformers==5.16.1 torch==2.13.0
  "$work/env/bin/python" -m pip check --disable-pip-version-check > "$work/check" && checked=fine || checked=broken
  "$work/env/bin/python" -c "import peft" 2> "$work/error" && imported=imports || imported=$(tail -1 "$work/error" | cut -d: -f1,2)
  echo "peft $1: pip check $checked, $imported"
}
first=$(found 0.17.1); second=$(found 0.18.0)
printf '%s\n' "$first" "$second"
case $first in *"pip check fine, ImportError"*HybridCache*) ;; *) echo "the behaviour has changed"; exit 1 ;; esac
[ "$second" = "peft 0.18.0: pip check fine, imports" ] || { echo "the behaviour has changed"; exit 1; }
echo "as described: peft 0.17.1, transformers 5.16.1"
