#!/usr/bin/env bash
# gradient_checkpointing_enable makes a frozen image encoder track gradients, and gradient_checkpointing_disable leaves it so.
#
# Seen with transformers==5.24.0, torch==2.13.0 (CPU), a LLaVA of which the projector alone trains. Enabling calls enable_input_require_grads
# where a checkpoint is reentrant or not, which has the embeddings of every part ask for a gradient: the frozen tower's output requires one from
# there on, so its layers keep what the backward pass needs, and compute gradients that nobody reads. That is memory that checkpointing was to
# save. Disabling takes the checkpoints away and not those hooks. disable_input_require_grads() after either ends it; with use_reentrant False
# nothing else is lost.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy==2.3.5
cat > "$work/tower.py" <<'PY'
import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

transformers.logging.set_verbosity_error()
narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
vision = CLIPVisionConfig(**narrow, image_size=32, patch_size=8)
text = LlamaConfig(**narrow, num_key_value_heads=2, vocab_size=100)
model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=5)).train()
model.requires_grad_(False)
model.model.multi_modal_projector.requires_grad_(True)


def tell(when):
    seen = model.model.vision_tower(torch.randn(1, 3, 32, 32)).last_hidden_state
    print(f"{when}: the frozen tower's output requires a gradient: {seen.requires_grad}")


tell("as it is")
model.gradient_checkpointing_enable({"use_reentrant": False})
tell("enabled")
model.gradient_checkpointing_disable()
tell("disabled again")
model.disable_input_require_grads()
tell("after disable_input_require_grads")
PY
"$work/env/bin/python" -W ignore "$work/tower.py" 2> /dev/null | tee "$work/said"
cat > "$work/wanted" <<'TXT'
as it is: the frozen tower's output requires a gradient: False
enabled: the frozen tower's output requires a gradient: True
disabled again: the frozen tower's output requires a gradient: True
after disable_input_require_grads: the frozen tower's output requires a gradient: False
TXT
cmp -s "$work/said" "$work/wanted" || { echo "the behaviour has changed"; exit 1; }
echo "as described: transformers 5.24.0"
