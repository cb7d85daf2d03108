#!/usr/bin/env bash
# transformers' AutoBackbone.from_pretrained takes no folder by its path, though the class that it would pick does.
#
# Seen with transformers==5.24.0, huggingface-hub==2.4.0, torch==2.13.0: a ResNet saved by `save_pretrained` opens with
# `ResNetBackbone.from_pretrained(folder)` and with `AutoModel`; `AutoBackbone` asks the hub whether a repository of that name exists, and
# the path is no valid name: HFValidationError, "Repo id must be in the form ...".
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$work/site" transformers==5.24.0 huggingface-hub==2.4.0 torch==2.13.0
PYTHONPATH=$work/site HF_HUB_OFFLINE=1 FOLDER=$work/resnet python3 - 2>/dev/null <<'P'
import os
from transformers import AutoBackbone, AutoModel, ResNetBackbone, ResNetConfig, ResNetForImageClassification

folder = os.environ["FOLDER"]
config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
ResNetForImageClassification(config).save_pretrained(folder)
found = []
for kind in (AutoModel, ResNetBackbone, AutoBackbone):
    try:
        found.append(type(kind.from_pretrained(folder)).__name__)
    except Exception as error:
        found.append(type(error).__name__)
    print(f"{kind.__name__}: {found[-1]}")
raise SystemExit(0 if found == ["ResNetModel", "ResNetBackbone", "HFValidationError"] else "the behaviour has changed")
P
echo "as described: transformers 5.24.0"
