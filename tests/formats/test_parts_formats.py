"""Parts in the layouts of other programs give what those programs compute, or what `transformers` reads itself."""

import struct

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from weft.conversation import WeftError
from weft.formats.parts import efficientnet_from_pickle, language_from_gguf, whisper_from_ctranslate2
from weft.formats.weight_files import read_ctranslate2, read_gguf
from weft.models.encoders.efficientnet import EfficientNetLiteConfig, EfficientNetLiteForImageClassification

LITE = EfficientNetLiteConfig(
    channels=(8, 8, 12, 12, 16, 16, 20, 24), depths=(1, 2, 2, 1, 2, 1, 1), head=32, num_labels=5
)
STRIDES, KERNELS = (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3)


def lite_weights():
    """Random weights by the names of the published file."""
    generator, state = torch.Generator().manual_seed(0), {}

    def conv(name, norm, *shape):
        state[f"{name}.weight"] = torch.randn(*shape, generator=generator) / (shape[1] * shape[2] ** 2) ** 0.5
        for part in ("weight", "running_var"):
            state[f"{norm}.{part}"] = 0.5 + torch.rand(shape[0], generator=generator)
        for part in ("bias", "running_mean"):
            state[f"{norm}.{part}"] = torch.randn(shape[0], generator=generator) / 3
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    c, number = LITE.channels, 0
    conv("_conv_stem", "_bn0", c[0], 3, 3, 3)
    for stage, depth in enumerate(LITE.depths):
        for block in range(depth):
            before = c[stage + (block > 0)]
            inner, name = before * (6 if stage else 1), f"_blocks.{number}"
            if stage:
                conv(f"{name}._expand_conv", f"{name}._bn0", inner, before, 1, 1)
            conv(f"{name}._depthwise_conv", f"{name}._bn1", inner, 1, KERNELS[stage], KERNELS[stage])
            conv(f"{name}._project_conv", f"{name}._bn2", c[stage + 1], inner, 1, 1)
            number += 1
    conv("_conv_head", "_bn1", LITE.head, c[-1], 1, 1)
    state["_fc.weight"], state["_fc.bias"] = torch.randn(5, LITE.head, generator=generator), torch.ones(5)
    return state


def lite(state, x):
    """Grid and scores by the published definition, one function after the other; squares only."""

    def norm(x, name):
        held = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *held, eps=1e-3)

    def conv(x, name, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        short = max((-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
        x = F.pad(x, (short // 2, short - short // 2) * 2)
        return F.conv2d(x, weight, stride=stride, groups=groups)

    x, number = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0")), 0
    for stage, depth in enumerate(LITE.depths):
        for block in range(depth):
            name, y, stride = f"_blocks.{number}", x, STRIDES[stage] if block == 0 else 1
            if stage:
                y = F.relu6(norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0"))
            y = F.relu6(norm(conv(y, f"{name}._depthwise_conv", stride, y.shape[1]), f"{name}._bn1"))
            y = norm(conv(y, f"{name}._project_conv"), f"{name}._bn2")
            x, number = (x + y if x.shape == y.shape else y), number + 1
    pooled = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
    return x, pooled @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.mark.parametrize("size", [64, 70, 75])
def test_efficientnet_lite_computes_what_its_definition_says(tmp_path, size):
    state = lite_weights()
    torch.save(state, tmp_path / "lite.pth")
    efficientnet_from_pickle(tmp_path / "lite.pth", tmp_path, LITE, torch.float32)
    model = EfficientNetLiteForImageClassification.from_pretrained(tmp_path).eval()
    pixels = torch.randn(2, 3, size, size)
    grid, scores = lite(state, pixels)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(pixels).feature_maps[0], grid, rtol=0, atol=1e-5)
        torch.testing.assert_close(model(pixels).logits, scores, rtol=1e-5, atol=1e-4)


WHISPER = WhisperConfig(
    d_model=8,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=12,
    decoder_ffn_dim=12,
    num_mel_bins=8,
    max_source_positions=10,
    max_target_positions=6,
    vocab_size=20,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=3,
)


def ctranslate2(state):
    """Whisper's weights by the names that CTranslate2's converter gives them."""
    out = {}

    def norm(to, name):
        out[f"{to}/layer_norm/gamma"], out[f"{to}/layer_norm/beta"] = state[f"{name}.weight"], state[f"{name}.bias"]

    def linear(to, *names):
        out[f"{to}/weight"] = torch.cat([state[f"{n}.weight"] for n in names])
        biases = [state.get(f"{n}.bias", torch.zeros(len(state[f"{n}.weight"]))) for n in names]
        out[f"{to}/bias"] = torch.cat(biases)

    for side, layers in (("encoder", 2), ("decoder", 1)):
        norm(side, f"model.{side}.layer_norm")
        out[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        for i in range(layers):
            to, name = f"{side}/layer_{i}", f"model.{side}.layers.{i}"
            norm(f"{to}/self_attention", f"{name}.self_attn_layer_norm")
            linear(f"{to}/self_attention/linear_0", *(f"{name}.self_attn.{part}_proj" for part in "qkv"))
            linear(f"{to}/self_attention/linear_1", f"{name}.self_attn.out_proj")
            norm(f"{to}/ffn", f"{name}.final_layer_norm")
            linear(f"{to}/ffn/linear_0", f"{name}.fc1")
            linear(f"{to}/ffn/linear_1", f"{name}.fc2")
    to, name = "decoder/layer_0/attention", "model.decoder.layers.0.encoder_attn"
    norm(to, f"{name}_layer_norm")
    linear(f"{to}/linear_0", f"{name}.q_proj")
    linear(f"{to}/linear_1", f"{name}.k_proj", f"{name}.v_proj")
    linear(f"{to}/linear_2", f"{name}.out_proj")
    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"model.encoder.{conv}")
    out["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    return out


def write_ctranslate2(file, tensors, version=6):
    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    with file.open("wb") as sink:
        sink.write(struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors) + 1))
        sink.write(text("decoder/num_heads") + struct.pack("<BBIh", 0, 2, 2, 2))  # a setting, no tensor
        for name, value in tensors.items():
            data = value.numpy().astype(np.float16)
            sink.write(text(name) + struct.pack("<B", data.ndim) + struct.pack(f"<{data.ndim}I", *data.shape))
            sink.write(struct.pack("<BI", 4, data.nbytes) + data.tobytes())
        sink.write(struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight"))


def test_a_whisper_of_ctranslate2_is_the_one_that_was_converted(tmp_path):
    torch.manual_seed(0)
    source = WhisperForConditionalGeneration(WHISPER).half().float().eval()
    write_ctranslate2(tmp_path / "model.bin", ctranslate2(source.state_dict()))
    (tmp_path / "tokenizer.json").write_text("{}")
    out = tmp_path / "out"
    out.mkdir()
    whisper_from_ctranslate2(tmp_path, out, WHISPER, torch.float16)
    again = WhisperForConditionalGeneration.from_pretrained(out, dtype=torch.float32)
    wanted = source.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in again.state_dict().items())


def test_a_damaged_ctranslate2_file_is_named(tmp_path):
    file = tmp_path / "model.bin"
    write_ctranslate2(file, {"a/weight": torch.ones(2, 3)})
    assert read_ctranslate2(file)["a/weight"].tolist() == [[1, 1, 1], [1, 1, 1]]
    whole = file.read_bytes()
    for damaged, said in ((whole[:40], "no whole CTranslate2 file"), (b"\5" + whole[1:], "of version 5; weft reads 6")):
        file.write_bytes(damaged)
        with pytest.raises(WeftError, match=said):
            read_ctranslate2(file)


def test_a_llama_of_gguf_is_what_transformers_reads(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the extra `bundled` brings gguf")
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=40, num_key_value_heads=2, tie_word_embeddings=True, **shape)
    torch.manual_seed(0)
    state = LlamaForCausalLM(config).state_dict()
    file = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(40)
    words = ["A", "B", "AB", *(chr(70 + i) for i in range(34)), "FG", "<|im_start|>", "<|im_end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_merges(["A B", "F G"])  # transformers 5.16 takes a list of one for its only entry
    writer.add_token_types([1] * 38 + [3, 3])
    writer.add_bos_token_id(38)
    writer.add_eos_token_id(39)
    writer.add_pad_token_id(39)
    writer.add_unk_token_id(39)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, value in state.items():
        if name != "lm_head.weight":
            kind = gguf.GGMLQuantizationType.Q4_1 if value.ndim == 2 else gguf.GGMLQuantizationType.F32
            heads = 4 if "q_proj" in name else 2 if "k_proj" in name else 0
            if heads:  # as llama.cpp's converter turns them
                value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
            data = gguf.quantize(value.numpy(), kind)
            writer.add_tensor(names.get_name(name, (".weight",)), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    out = tmp_path / "out"
    out.mkdir()
    language_from_gguf(file, out, torch.float32)
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).state_dict()
    again = AutoModelForCausalLM.from_pretrained(out)
    found = again.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(value, wanted[name]) for name, value in found.items())
    assert not torch.equal(found["model.embed_tokens.weight"], state["model.embed_tokens.weight"])  # it was rounded
    assert again.config.eos_token_id == 39 and AutoTokenizer.from_pretrained(out).eos_token == "<|im_end|>"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(WeftError, match="no whole GGUF file"):
        read_gguf(file)
