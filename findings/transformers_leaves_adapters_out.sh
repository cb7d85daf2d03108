#!/usr/bin/env bash
# transformers' from_pretrained of an adapter's folder leaves parts of the adapter out, or all of it, and raises nothing.
#
# Seen with torch==2.13.0: an adapter that peft saved, opened by `AutoModelForCausalLM.from_pretrained(folder)` and by `PeftModel`, which
# gives the logits of the model that was saved each time.
#   transformers==5.17.0, peft==0.19.1 (the oldest peft that this transformers takes): GPT-2's LoRA is left out, for peft takes its own
#     "base_model.model." off names alone that go on with "model."; Llama's LoRA is put on.
#   transformers==5.17.0, with either peft: what was trained in full (`modules_to_save`) and trained rows of tokens are left out.
#   transformers==5.19.0, peft==0.21.2: all of it is put on.
# The log has a table that calls the tensors UNEXPECTED and MISSING, which "can be ignored when loading from different task/architecture".
# transformers 5.16.1 does as 5.17.0.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
pip() { python3 -m pip install --quiet --disable-pip-version-check --target "$work/$1" "${@:2}"; }
pip site torch==2.13.0 transformers==5.17.0 peft==0.19.1
pip peft --no-deps peft==0.21.2
pip transformers --no-deps transformers==5.19.0
cat > "$work/opened.py" <<'P'
import tempfile

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

gpt2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2)
llama = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
cases = {
    "GPT-2's LoRA": (gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "Llama's LoRA": (llama, {"target_modules": ["q_proj"]}),
    "a head trained in full": (llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "rows of tokens": (llama, {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]}),
}
ids = torch.arange(20)[None]
found = []
for name, (config, options) in cases.items():
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(f"{folder}/base")
        base = AutoModelForCausalLM.from_pretrained(f"{folder}/base")
        model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **options)).eval()
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn_like(value))
        model.save_pretrained(f"{folder}/adapter")
        by_peft = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(f"{folder}/base"), f"{folder}/adapter")
        opened = by_peft.eval(), AutoModelForCausalLM.from_pretrained(f"{folder}/adapter").eval()
        wrong = [float((each(ids).logits - model(ids).logits).abs().max()) for each in opened]
        assert wrong[0] < 1e-5
        found.append("on" if wrong[1] < 1e-5 else f"{name} left out (logits {wrong[1]:.1g} apart)")
print(f"transformers {transformers.__version__}, peft {peft.__version__}: {'; '.join(found)}")
P
opened() { PYTHONPATH=$1 HF_HUB_OFFLINE=1 python3 "$work/opened.py" 2>/dev/null; }
first=$(opened "$work/site"); second=$(opened "$work/peft:$work/site"); third=$(opened "$work/transformers:$work/peft:$work/site")
printf '%s\n' "$first" "$second" "$third"
changed() { echo "the behaviour has changed"; exit 1; }
case $first in *"5.17.0, peft 0.19.1: GPT-2's LoRA left out"*"; on; a head"*"left out"*"rows of tokens left out"*) ;; *) changed ;; esac
case $second in *"5.17.0, peft 0.21.2: on; on; a head"*"left out"*"rows of tokens left out"*) ;; *) changed ;; esac
[ "$third" = "transformers 5.19.0, peft 0.21.2: on; on; on; on" ] || changed
echo "as described: transformers 5.17.0 and 5.19.0, peft 0.19.1 and 0.21.2"
