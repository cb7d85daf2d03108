"""Small checkpoints in the published layouts, with random weights, and what they compute, written out in plain torch.

The forward passes here share no code with weft or `transformers` beyond torch itself: they follow the released code
(names, order of operations, quirks) so that an import can be checked where the parity kit is absent, and at sizes that
the kit does not have.
"""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor

TEXTS = (
    "[INST] <Img> </Img> [refer] give me the location of the red cup on the table [/INST]",
    "[vqa] Based on the image, respond to this question with a short answer: what is this? [/INST]",
    "{<12><34><56><78>}<delim>{<0><100><5><99>} <p>person</p> a photo of two dogs and a cat, running",
    "It's the quick brown fox; jumps over 1234567890 lazy dogs!\nAnd then? user assistant system",
)


class Weights(dict):
    """Random tensors by name; `add` makes one scaled so that signals keep their size."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = torch.Generator().manual_seed(seed)

    def add(self, name: str, *shape: int, gain: bool = False, scale: float | None = None) -> None:
        z = torch.randn(shape, generator=self.rng)
        if gain:
            self[name] = 1 + 0.1 * z
        elif scale is not None:
            self[name] = scale * z
        else:
            self[name] = z / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1 * z


def sentencepiece_model(file: Path, size: int = 400, **options: object) -> None:
    made = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "hard_vocab_limit": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20), model_writer=made, vocab_size=size, minloglevel=2, **{**settings, **options}
    )
    file.write_bytes(made.getvalue())


def tiktoken_ranks(file: Path) -> None:
    """256 bytes and a few merges, as `qwen.tiktoken` is written."""
    tokens = [bytes([b]) for b in range(256)]
    for word in ("th", "the", " the", "an", "and", "in", "ing", "er", "sys", "system", "us", "user", " 1", "o:", "di"):
        tokens.append(word.encode())
    for text in ("\u4e2d", "\u4e2d\u6587"):
        data = text.encode()
        tokens += [data[:k] for k in range(2, len(data) + 1) if data[:k] not in tokens]
    file.write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(tokens)))


# --- MiniGPT-v2 -----------------------------------------------------------------------------------------------------


def eva_weights(
    seed: int, width: int, inner: int, blocks: int, grid: int, patch: int = 14, whole: bool = True
) -> Weights:
    w = Weights(seed)
    w.add("cls_token", 1, 1, width, scale=0.5)
    w.add("pos_embed", 1, 1 + grid * grid, width, scale=0.5)
    w.add("patch_embed.proj.weight", width, 3, patch, patch)
    w.add("patch_embed.proj.bias", width)
    for n in range(blocks):
        b = f"blocks.{n}."
        for norm in ("norm1", "norm2"):
            w.add(f"{b}{norm}.weight", width, gain=True)
            w.add(f"{b}{norm}.bias", width)
        w.add(b + "attn.q_bias", width)
        w.add(b + "attn.v_bias", width)
        w.add(b + "attn.qkv.weight", 3 * width, width)
        w.add(b + "attn.proj.weight", width, width)
        w.add(b + "attn.proj.bias", width)
        w.add(b + "mlp.fc1.weight", inner, width)
        w.add(b + "mlp.fc1.bias", inner)
        w.add(b + "mlp.fc2.weight", width, inner)
        w.add(b + "mlp.fc2.bias", width)
    if whole:
        w.add("norm.weight", width, gain=True)
        w.add("norm.bias", width)
        w.add("head.weight", 7, width)
        w.add("head.bias", 7)
    return w


def eva_forward(w: Weights, pixels_N3HW: Tensor, heads: int, blocks: int, patch: int = 14) -> Tensor:
    """The released tower without its last norm: [N, 1 + patches, D]."""
    x = F.conv2d(pixels_N3HW, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch)
    side = x.shape[-1]
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    cls, rest = w["pos_embed"][:, :1], w["pos_embed"][:, 1:]
    old = round(rest.shape[1] ** 0.5)
    rest = rest.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    rest = F.interpolate(rest, size=(side, side), mode="bicubic", align_corners=False)
    x = x + torch.cat([cls, rest.permute(0, 2, 3, 1).flatten(1, 2)], 1)
    n, t, d = x.shape
    for b in (f"blocks.{k}." for k in range(blocks)):
        h = F.layer_norm(x, (d,), w[b + "norm1.weight"], w[b + "norm1.bias"], 1e-6)
        bias = torch.cat([w[b + "attn.q_bias"], torch.zeros(d), w[b + "attn.v_bias"]])
        q, k, v = F.linear(h, w[b + "attn.qkv.weight"], bias).reshape(n, t, 3, heads, -1).permute(2, 0, 3, 1, 4)
        a = ((q * (d // heads) ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v
        a = a.transpose(1, 2).reshape(n, t, d)
        x = x + F.linear(a, w[b + "attn.proj.weight"], w[b + "attn.proj.bias"])
        h = F.layer_norm(x, (d,), w[b + "norm2.weight"], w[b + "norm2.bias"], 1e-6)
        h = F.gelu(F.linear(h, w[b + "mlp.fc1.weight"], w[b + "mlp.fc1.bias"]))
        x = x + F.linear(h, w[b + "mlp.fc2.weight"], w[b + "mlp.fc2.bias"])
    return x


def llama_weights(seed: int, width: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int) -> Weights:
    w = Weights(seed)
    head = width // heads
    w.add("model.embed_tokens.weight", vocabulary, width, scale=0.5)
    for n in range(layers):
        b = f"model.layers.{n}."
        w.add(b + "self_attn.q_proj.weight", width, width)
        w.add(b + "self_attn.k_proj.weight", kv * head, width)
        w.add(b + "self_attn.v_proj.weight", kv * head, width)
        w.add(b + "self_attn.o_proj.weight", width, width)
        w.add(b + "mlp.gate_proj.weight", inner, width)
        w.add(b + "mlp.up_proj.weight", inner, width)
        w.add(b + "mlp.down_proj.weight", width, inner)
        w.add(b + "input_layernorm.weight", width, gain=True)
        w.add(b + "post_attention_layernorm.weight", width, gain=True)
        w[b + "self_attn.rotary_emb.inv_freq"] = 10000 ** (-torch.arange(0, head, 2) / head)
    w.add("model.norm.weight", width, gain=True)
    w.add("lm_head.weight", vocabulary, width)
    return w


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x_HLD: Tensor, base: float) -> Tensor:
    """Rotary positions 0..L-1, the halves of a head rotated against each other."""
    length, d = x_HLD.shape[-2:]
    angles = torch.arange(length)[:, None] * base ** (-torch.arange(0, d, 2) / d)
    cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
    a, b = x_HLD.chunk(2, -1)
    return x_HLD * cos + torch.cat([-b, a], -1) * sin


def llama_forward(
    w: Weights, x_LD: Tensor, heads: int, kv: int, eps: float, lora: Weights | None, scale: float
) -> Tensor:
    """Logits [L, V]; LoRA is applied beside the weights, as in training, not merged."""
    length, d = x_LD.shape
    mask = torch.full((length, length), -torch.inf).triu(1)
    layers = 1 + max(int(k.split(".")[2]) for k in w if k.startswith("model.layers."))
    for n in range(layers):
        b = f"model.layers.{n}."
        h = rms(x_LD, w[b + "input_layernorm.weight"], eps)

        def project(part: str, h: Tensor = h, b: str = b) -> Tensor:
            y = h @ w[f"{b}self_attn.{part}_proj.weight"].T
            name = f"llama_model.base_model.model.{b}self_attn.{part}_proj.lora_"
            if lora is not None and f"{name}A.weight" in lora:
                y = y + scale * (h @ lora[f"{name}A.weight"].T) @ lora[f"{name}B.weight"].T
            return y.reshape(length, -1, d // heads).transpose(0, 1)

        q, k = rotate(project("q"), 10000.0), rotate(project("k"), 10000.0)
        k, v = (t.repeat_interleave(heads // kv, 0) for t in (k, project("v")))
        a = (q @ k.transpose(-1, -2) / math.sqrt(d // heads) + mask).softmax(-1) @ v
        x_LD = x_LD + a.transpose(0, 1).reshape(length, d) @ w[b + "self_attn.o_proj.weight"].T
        h = rms(x_LD, w[b + "post_attention_layernorm.weight"], eps)
        h = F.silu(h @ w[b + "mlp.gate_proj.weight"].T) * (h @ w[b + "mlp.up_proj.weight"].T)
        x_LD = x_LD + h @ w[b + "mlp.down_proj.weight"].T
    return rms(x_LD, w["model.norm.weight"], eps) @ w["lm_head.weight"].T


class MiniGPT:
    """A MiniGPT-v2 kit on disk. Sizes as in the class's arguments; see `logits` for what it computes."""

    def __init__(
        self,
        folder: Path,
        seed: int = 0,
        width: int = 32,
        heads: int = 2,
        depth: int = 2,
        grid: int = 2,
        hidden: int = 48,
        text_heads: int = 4,
        kv: int = 4,
        layers: int = 2,
        rank: int = 4,
        half: bool = True,
        norm: bool = False,
    ) -> None:
        self.folder, self.heads, self.depth, self.side = folder, heads, depth, 28 * grid
        self.text_heads, self.kv, self.scale = text_heads, kv, 16 / rank
        folder.mkdir(parents=True, exist_ok=True)
        self.eva = eva_weights(seed, width, int(width * 4.3637), depth + 1, grid)
        torch.save(dict(self.eva), folder / "eva_vit_g.pth")

        llama = folder / "llama"
        llama.mkdir(exist_ok=True)
        sentencepiece_model(llama / "tokenizer.model")
        self.tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(llama / "tokenizer.model"))
        vocabulary = self.tokenizer.vocab_size()
        self.llama = llama_weights(seed + 1, hidden, 2 * hidden, layers, text_heads, kv, vocabulary)
        if half:
            self.llama.update({k: v.half().float() for k, v in self.llama.items()})
        torch.save({k: v.half() if half else v for k, v in self.llama.items()}, llama / "pytorch_model.bin")
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_attention_heads": text_heads,
            "num_key_value_heads": kv,
            "num_hidden_layers": layers,
            "rms_norm_eps": 1e-5,
            "vocab_size": vocabulary,
            "max_position_embeddings": 512,
            "torch_dtype": "float16",
        }
        (llama / "config.json").write_text(json.dumps(config))

        self.trained = Weights(seed + 2)
        for n in range(layers):
            for part, rows in (("q", hidden), ("v", kv * hidden // text_heads)):
                at = f"llama_model.base_model.model.model.layers.{n}.self_attn.{part}_proj.lora_"
                self.trained.add(at + "A.weight", rank, hidden)
                self.trained.add(at + "B.weight", rows, rank, scale=0.1)
            at = f"llama_model.base_model.model.model.layers.{n}.self_attn.rotary_emb.inv_freq"
            self.trained[at] = torch.ones(hidden // text_heads // 2)
        self.trained.add("llama_proj.weight", hidden, 4 * width)
        self.trained.add("llama_proj.bias", hidden)
        if norm:
            self.trained.add("ln_vision.weight", width, gain=True)
            self.trained.add("ln_vision.bias", width)
        whole = {"model": dict(self.trained), "optimizer": {"state": {}}, "config": {"model": {"arch": "minigpt_v2"}}}
        torch.save({**whole, "scaler": None, "epoch": 3}, folder / "minigptv2_checkpoint.pth")

    def arguments(self) -> dict[str, Path]:
        f = self.folder
        return {"vision": f / "eva_vit_g.pth", "llm": f / "llama", "checkpoint": f / "minigptv2_checkpoint.pth"}

    def image_tokens(self, pixels_N3HW: Tensor) -> Tensor:
        """[N, T/4, W]: norm, class token dropped, four neighbours in raster order merged and projected."""
        x = eva_forward(self.eva, pixels_N3HW, self.heads, self.depth)
        d = x.shape[-1]
        norm = [self.trained.get(f"ln_vision.{p}") for p in ("weight", "bias")]
        x = F.layer_norm(x, (d,), *norm, 1e-5)[:, 1:]
        x = x.reshape(len(x), -1, 4 * d)
        return F.linear(x, self.trained["llama_proj.weight"], self.trained["llama_proj.bias"])

    def logits(self, segments: list[list[int] | Tensor]) -> Tensor:
        """Of a prompt given as lists of ids and [T, W] image tokens."""
        table = self.llama["model.embed_tokens.weight"]
        x = torch.cat([table[torch.tensor(s)] if isinstance(s, list) else s for s in segments])
        return llama_forward(self.llama, x, self.text_heads, self.kv, 1e-5, self.trained, self.scale)


# --- Qwen-Audio -----------------------------------------------------------------------------------------------------


class Qwen:
    """A Qwen-Audio kit on disk, with a small tokenizer of its own unless ``ids_only``."""

    def __init__(
        self,
        folder: Path,
        seed: int = 0,
        width: int = 32,
        heads: int = 2,
        layers: int = 2,
        inner: int = 96,
        state: int = 24,
        audio_heads: int = 2,
        audio_layers: int = 2,
        seq_length: int = 64,
        ids_only: bool = True,
        shards: int = 1,
    ) -> None:
        from safetensors.torch import save_file

        self.folder, self.heads, self.seq_length, self.audio_heads = folder, heads, seq_length, audio_heads
        self.eps = 1e-6
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary, start = 320, 300
        if not ids_only:
            tiktoken_ranks(folder / "qwen.tiktoken")
            ranks = len((folder / "qwen.tiktoken").read_bytes().splitlines())
            start, vocabulary = ranks + 3520, ranks + 3522 + 13
        w = self.w = Weights(seed)
        w.add("transformer.wte.weight", vocabulary, width, scale=0.5)
        for n in range(layers):
            b = f"transformer.h.{n}."
            w.add(b + "ln_1.weight", width, gain=True)
            w.add(b + "ln_2.weight", width, gain=True)
            w.add(b + "attn.c_attn.weight", 3 * width, width)
            w.add(b + "attn.c_attn.bias", 3 * width)
            w.add(b + "attn.c_proj.weight", width, width)
            w.add(b + "mlp.w1.weight", inner, width)
            w.add(b + "mlp.w2.weight", inner, width)
            w.add(b + "mlp.c_proj.weight", width, inner)
        w.add("transformer.ln_f.weight", width, gain=True)
        w.add("lm_head.weight", vocabulary, width)
        a = "transformer.audio."
        w.add(a + "positional_embedding", 1500, state, scale=0.5)
        w.add(a + "conv1.weight", state, 80, 3)
        w.add(a + "conv1.bias", state)
        w.add(a + "conv2.weight", state, state, 3)
        w.add(a + "conv2.bias", state)
        for n in range(audio_layers):
            b = f"{a}blocks.{n}."
            for part in ("query", "key", "value", "out"):
                w.add(f"{b}attn.{part}.weight", state, state)
                if part != "key":
                    w.add(f"{b}attn.{part}.bias", state)
            for norm in ("attn_ln", "mlp_ln"):
                w.add(f"{b}{norm}.weight", state, gain=True)
                w.add(f"{b}{norm}.bias", state)
            w.add(b + "mlp.0.weight", 4 * state, state)
            w.add(b + "mlp.0.bias", 4 * state)
            w.add(b + "mlp.2.weight", state, 4 * state)
            w.add(b + "mlp.2.bias", state)
        w.add(a + "ln_post.weight", state, gain=True)
        w.add(a + "ln_post.bias", state)
        w.add(a + "proj.weight", width, state)
        w.add(a + "proj.bias", width)
        w.add(a + "audio_bos_eos_token.weight", 2, width, scale=0.5)
        self.layers, self.audio_layers, self.start = layers, audio_layers, start
        names = list(w)
        for k in range(shards):
            part = {n: w[n].clone() for n in names[k::shards]}
            file = "model.safetensors" if shards == 1 else f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
            save_file(part, folder / file)
        if shards > 1:
            where = {
                n: f"model-{k + 1:05d}-of-{shards:05d}.safetensors" for k in range(shards) for n in names[k::shards]
            }
            (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
        config = {
            "model_type": "qwen",
            "hidden_size": width,
            "intermediate_size": 2 * inner,
            "kv_channels": width // heads,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "vocab_size": vocabulary,
            "layer_norm_epsilon": self.eps,
            "max_position_embeddings": 8192,
            "seq_length": seq_length,
            "rotary_emb_base": 10000,
            "rotary_pct": 1.0,
            "no_bias": True,
            "use_dynamic_ntk": True,
            "use_logn_attn": True,
            "tie_word_embeddings": False,
            "audio": {
                "add_audio_bos_eos_token": True,
                "audio_start_id": start,
                "avg_pool": True,
                "n_ctx": 1500,
                "n_head": audio_heads,
                "n_layer": audio_layers,
                "n_mels": 80,
                "n_state": state,
                "output_dim": width,
            },
        }
        (folder / "config.json").write_text(json.dumps(config))

    def audio_tokens(self, mel_MT: Tensor) -> Tensor:
        """One clip's embeddings [T/4, W], from a log-mel of even length: the pool comes before the last norm."""
        w, a = self.w, "transformer.audio."
        x = F.gelu(F.conv1d(mel_MT[None], w[a + "conv1.weight"], w[a + "conv1.bias"], padding=1))
        x = F.gelu(F.conv1d(x, w[a + "conv2.weight"], w[a + "conv2.bias"], stride=2, padding=1))[0].T
        t, d = x.shape
        x = x + w[a + "positional_embedding"][:t]
        for n in range(self.audio_layers):
            b = f"{a}blocks.{n}."
            h = F.layer_norm(x, (d,), w[b + "attn_ln.weight"], w[b + "attn_ln.bias"])
            q, k, v = (
                F.linear(h, w[f"{b}attn.{p}.weight"], w.get(f"{b}attn.{p}.bias")).reshape(t, self.audio_heads, -1)
                for p in ("query", "key", "value")
            )
            q, k, v = (y.transpose(0, 1) for y in (q, k, v))
            y = (q @ k.transpose(-1, -2) * (d // self.audio_heads) ** -0.5).softmax(-1) @ v
            y = y.transpose(0, 1).reshape(t, d)
            x = x + F.linear(y, w[b + "attn.out.weight"], w[b + "attn.out.bias"])
            h = F.layer_norm(x, (d,), w[b + "mlp_ln.weight"], w[b + "mlp_ln.bias"])
            h = F.gelu(F.linear(h, w[b + "mlp.0.weight"], w[b + "mlp.0.bias"]))
            x = x + F.linear(h, w[b + "mlp.2.weight"], w[b + "mlp.2.bias"])
        x = F.avg_pool1d(x.T[None], 2, 2)[0].T
        x = F.layer_norm(x, (d,), w[a + "ln_post.weight"], w[a + "ln_post.bias"])
        return F.linear(x, w[a + "proj.weight"], w[a + "proj.bias"])

    def logits(self, segments: list[list[int] | Tensor]) -> Tensor:
        """Of a prompt given as lists of ids and [t, W] clips (their start and end embeddings are added here)."""
        w = self.w
        ends = w["transformer.audio.audio_bos_eos_token.weight"]
        rows = [
            w["transformer.wte.weight"][torch.tensor(s)] if isinstance(s, list) else torch.cat([ends[:1], s, ends[1:]])
            for s in segments
        ]
        x = torch.cat(rows)
        length, d = x.shape
        head = d // self.heads
        base = 10000.0
        if length > self.seq_length:  # dynamic NTK
            alpha = max(2 ** math.ceil(math.log2(length / self.seq_length) + 1) - 1, 1)
            base *= alpha ** (head / (head - 2))
        positions = torch.arange(1, length + 1)
        logn = torch.where(positions > self.seq_length, positions.log() / math.log(self.seq_length), 1.0)
        mask = torch.full((length, length), -torch.inf).triu(1)
        for n in range(self.layers):
            b = f"transformer.h.{n}."
            h = rms(x, w[b + "ln_1.weight"], self.eps)
            fused = F.linear(h, w[b + "attn.c_attn.weight"], w[b + "attn.c_attn.bias"])
            q, k, v = (y.reshape(length, self.heads, head).transpose(0, 1) for y in fused.chunk(3, -1))
            q, k = rotate(q, base) * logn[:, None], rotate(k, base)
            y = (q @ k.transpose(-1, -2) / math.sqrt(head) + mask).softmax(-1) @ v
            x = x + y.transpose(0, 1).reshape(length, d) @ w[b + "attn.c_proj.weight"].T
            h = rms(x, w[b + "ln_2.weight"], self.eps)
            h = (h @ w[b + "mlp.w1.weight"].T) * F.silu(h @ w[b + "mlp.w2.weight"].T)
            x = x + h @ w[b + "mlp.c_proj.weight"].T
        return rms(x, w["transformer.ln_f.weight"], self.eps) @ w["lm_head.weight"].T
