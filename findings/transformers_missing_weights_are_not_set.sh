#!/usr/bin/env bash
# A parameter or buffer that a checkpoint lacks does not keep the value that the model's __init__ gave it: it is memory that nobody wrote to.
#
# Seen with transformers==5.24.0, torch==2.13.0. from_pretrained builds the model on the meta device, and makes what is missing with empty_like;
# values come back only through _init_weights, which the usual one gives for linear layers, embeddings and norms. A tensor that __init__ filled
# (a scale of ones, a table of constants, a flag as a persistent buffer) holds numbers of other things then, each time others, while the loading
# report calls it "newly initialized". Model(config) has the right ones, so a test that makes models sees nothing. A class that grows such a
# tensor, and reads older folders, has to set it in _init_weights.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy==2.3.5
cat > "$work/load.py" <<'PY'
import sys

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class Config(PretrainedConfig):
    model_type = "grown"


class Model(PreTrainedModel):
    config_class = Config

    def __init__(self, config, grown=False):
        super().__init__(config)
        self.layer = nn.Linear(4, 4)
        if grown:
            self.register_buffer("table", torch.full((4096,), 7.0))
            self.scale = nn.Parameter(torch.full((4096,), 7.0))
        self.post_init()


Model(Config()).save_pretrained(sys.argv[1])
made = Model(Config(), grown=True)
read, told = Model.from_pretrained(sys.argv[1], grown=True, output_loading_info=True)
print("told as missing:", ", ".join(sorted(told["missing_keys"])))
for name in ("scale", "table"):
    print(f"{name}: sevens as made {bool((getattr(made, name) == 7).all())}, as read {bool((getattr(read, name) == 7).any())}")
PY
"$work/env/bin/python" -W ignore "$work/load.py" "$work/saved" 2> /dev/null | tee "$work/said"
cat > "$work/wanted" <<'TXT'
told as missing: scale, table
scale: sevens as made True, as read False
table: sevens as made True, as read False
TXT
cmp -s "$work/said" "$work/wanted" || { echo "the behaviour has changed"; exit 1; }
echo "as described: transformers 5.24.0"
