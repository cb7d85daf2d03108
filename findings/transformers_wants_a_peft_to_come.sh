#!/usr/bin/env bash
# transformers 5.24 wants peft 0.22 for adapters that it adds or saves, and pip finds nothing wrong with an older one.
#
# Seen with transformers==5.24.0, peft==0.21.2 (the newest that PyPI has, 30 November 2026), torch==2.13.0: `pip check` is content and
# `from_pretrained` opens a saved adapter; `add_adapter`, and `save_pretrained` of a model with an adapter, end with ValueError: "The
# version of PEFT you are using is not compatible, please use a version >= 0.22.0". transformers==5.19.0 does both with peft==0.21.2.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
python=$work/env/bin/python
cat > "$work/adapter.py" <<'P'
import tempfile

import peft
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig

config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
lora = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
found = []
with tempfile.TemporaryDirectory() as folder:
    AutoModelForCausalLM.from_config(config).save_pretrained(f"{folder}/base")
    base = AutoModelForCausalLM.from_pretrained(f"{folder}/base")
    peft.get_peft_model(base, lora).save_pretrained(f"{folder}/adapter")
    opened = AutoModelForCausalLM.from_pretrained(f"{folder}/adapter")
    for act in (lambda: AutoModelForCausalLM.from_config(config).add_adapter(lora), lambda: opened.save_pretrained(f"{folder}/again")):
        try:
            act()
            found.append("done")
        except ValueError as error:
            found.append(str(error))
print(f"transformers {transformers.__version__}, peft {peft.__version__}: add_adapter: {found[0]}; save_pretrained: {found[1]}")
P
found() {
  "$python" -m pip install --quiet --disable-pip-version-check "transformers==$1" peft==0.21.2 torch==2.13.0
  "$python" -m pip check --disable-pip-version-check > "$work/check" || echo "pip check: $(cat "$work/check")"
  HF_HUB_OFFLINE=1 "$python" "$work/adapter.py" 2>/dev/null
}
first=$(found 5.24.0); second=$(found 5.19.0)
printf '%s\n' "$first" "$second"
changed() { echo "the behaviour has changed"; exit 1; }
case $first in "transformers 5.24.0, peft 0.21.2: add_adapter: "*"a version >= 0.22.0; save_pretrained: "*"a version >= 0.22.0") ;; *) changed ;; esac
[ "$second" = "transformers 5.19.0, peft 0.21.2: add_adapter: done; save_pretrained: done" ] || changed
echo "as described: transformers 5.24.0 and 5.19.0, peft 0.21.2"
