#!/usr/bin/env bash
# Prompt lookup changes transformers' greedy answer, without an error, where a prompt is given as ids and as embeddings.
#
# Seen with transformers==5.24.0, torch==2.13.0: `generate(input_ids=ids, inputs_embeds=table(ids))` answers as with the ids alone. With
# `prompt_lookup_num_tokens=3`, which is promised to change nothing but the speed, ids alone and embeddings alone still give the same
# tokens, and both together give others from the first one on: the draft that is checked is not among the embeddings.
# A model that sees or hears is asked in just this way, with ids for the lookup and embeddings for the pictures.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" transformers==5.24.0 torch==2.13.0
PYTHONPATH=$work/site python3 - 2>/dev/null <<'P'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
tokens = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
model = LlamaForCausalLM(LlamaConfig(**small, **tokens, initializer_range=0.5)).eval()
ids = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 9, 5, 6]])
prompts = {"ids": {"input_ids": ids}, "embeddings": {"inputs_embeds": model.get_input_embeddings()(ids)}}
prompts["both"] = prompts["ids"] | prompts["embeddings"]
same = []
for name, prompt in prompts.items():
    plain, looked = (model.generate(**prompt, do_sample=False, max_new_tokens=24, **more)[0, -24:].tolist() for more in ({}, {"prompt_lookup_num_tokens": 3}))
    same.append(plain == looked)
    print(f"{name}: {plain[:6]} ..., with prompt lookup {looked[:6]} ...")
raise SystemExit(0 if same == [True, True, False] else "the behaviour has changed")
P
echo "as described: transformers 5.24.0"
