#!/usr/bin/env bash
# transformers takes the first token of a Llama's GGUF file for its last, so that an answer does not end where the file says.
#
# Seen with transformers==5.17.0, gguf==0.19.0, torch==2.13.0: a file whose metadata say bos_token_id 38 and eos_token_id 39 gives a tokenizer
# whose eos_token is that of 38; the configuration that is read from the same file has eos_token_id 39. And a vocabulary with one merge, which
# the format allows, does not open (TypeError): the list of one is taken for its entry. transformers==5.19.0 does both right.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
pip() { python3 -m pip install --quiet --disable-pip-version-check --target "$work/$1" "${@:2}"; }
pip site torch==2.13.0 transformers==5.17.0 gguf==0.19.0
pip newer --no-deps transformers==5.19.0
cat > "$work/read.py" <<'P'
import tempfile

import gguf
import numpy as np
import transformers
from transformers import AutoConfig, AutoTokenizer


def opened(folder, merges):
    writer = gguf.GGUFWriter(f"{folder}/tiny.gguf", "llama")
    for add, value in (
        (writer.add_context_length, 128), (writer.add_embedding_length, 64), (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 96), (writer.add_head_count, 4), (writer.add_head_count_kv, 4),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_dimension_count, 16), (writer.add_vocab_size, 40),
        (writer.add_tokenizer_model, "gpt2"), (writer.add_token_types, [1] * 38 + [3, 3]),
        (writer.add_token_list, ["A", "B", "AB", *(chr(70 + i) for i in range(34)), "FG", "<first>", "<last>"]),
        (writer.add_token_merges, merges), (writer.add_bos_token_id, 38), (writer.add_eos_token_id, 39),
        (writer.add_unk_token_id, 0),
    ):
        add(value)
    writer.add_tensor("token_embd.weight", np.zeros((40, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="tiny.gguf")
    except Exception as error:
        return type(error).__name__
    config = AutoConfig.from_pretrained(folder, gguf_file="tiny.gguf")
    return f"ends with {tokenizer.eos_token}, its configuration with token {config.eos_token_id}"


with tempfile.TemporaryDirectory() as folder:
    two, one = opened(folder, ["A B", "F G"]), opened(folder, ["A B"])
print(f"transformers {transformers.__version__}: two merges: {two}; one merge: {one}")
P
found() { PYTHONPATH=$1 HF_HUB_OFFLINE=1 python3 "$work/read.py" 2>/dev/null; }
first=$(found "$work/site"); second=$(found "$work/newer:$work/site")
printf '%s\n' "$first" "$second"
right="ends with <last>, its configuration with token 39"
changed() { echo "the behaviour has changed"; exit 1; }
[ "$first" = "transformers 5.17.0: two merges: ${right/last/first}; one merge: TypeError" ] || changed
[ "$second" = "transformers 5.19.0: two merges: $right; one merge: $right" ] || changed
echo "as described: transformers 5.17.0 and 5.19.0, gguf 0.19.0"
