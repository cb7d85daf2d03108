#!/usr/bin/env bash
# What LoRA leaves frozen costs a copy in every forward pass, in three ways that nothing tells.
#
# Seen with torch==2.13.0 and peft==0.21.2 on a CPU:
#   torch.autocast keeps the bfloat16 copy of a weight for the rest of its context where the weight trains, and makes a new one in each
#     call where it is frozen (so one forward pass of a module that is called twice casts it twice).
#   peft's LoRA layer turns a bfloat16 input into float32, the type of its own matrices, before autocast turns it into bfloat16 again.
#   peft's trainable tokens copy the whole table at every look-up of a few rows, and again for the head that is tied to it.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" torch==2.13.0 transformers==5.17.0 peft==0.21.2
cat > "$work/copies.py" <<'P'
import peft
import torch
from torch import nn
from torch.profiler import profile
from transformers import AutoModelForCausalLM, LlamaConfig


def copies(work, shape):
    """How often numbers of a shape are copied from one type to another."""
    with profile(record_shapes=True) as seen, torch.autocast("cpu", torch.bfloat16):
        work()
    moved = [e for e in seen.events() if e.name == "aten::copy_" and e.input_shapes and list(e.input_shapes[0]) == shape]
    return len(moved)


layer, x = nn.Linear(48, 40, bias=False), torch.randn(3, 48)
twice = lambda: (layer(x), layer(x))  # noqa: E731
trained = copies(twice, [40, 48])
layer.requires_grad_(False)
frozen = copies(twice, [40, 48])
print(f"torch {torch.__version__.split('+')[0]}: casts of a weight that is used twice: {trained} where it trains, {frozen} where it is frozen")

model = peft.inject_adapter_in_model(peft.LoraConfig(r=4, target_modules=["0"]), nn.Sequential(nn.Linear(48, 40, bias=False)))
half = torch.randn(5, 48, dtype=torch.bfloat16)
with_cast = copies(lambda: model(half), [5, 48])
for module in model.modules():
    if hasattr(module, "cast_input_dtype_enabled"):
        module.cast_input_dtype_enabled = False
without = copies(lambda: model(half), [5, 48])
print(f"peft {peft.__version__}: copies of a bfloat16 input of LoRA: {with_cast}, without its own cast {without}")

sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
text = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=640, tie_word_embeddings=True, **sizes))
peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [1, 2]}), text)
table = copies(lambda: text.get_input_embeddings()(torch.tensor([[5]])), [640, 32])
print(f"copies of a table of 640 rows for the look-up of one: {table}")
P
said=$(PYTHONPATH="$work/site" python3 "$work/copies.py" 2>/dev/null)
echo "$said"
changed() { echo "the behaviour has changed"; exit 1; }
case $said in *"1 where it trains, 2 where it is frozen"*) ;; *) changed ;; esac
case $said in *"of LoRA: 2, without its own cast 0"*) ;; *) changed ;; esac
case $said in *"look-up of one: 1"*) ;; *) changed ;; esac
echo "as described: torch 2.13.0, peft 0.21.2"
