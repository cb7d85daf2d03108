"""A language model's layers in 8 or 4 bits: what reads them so."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import torch

from weft.conversation import WeftError


def in_bits(bits: int, place: torch.device, adapter: str | None = None) -> dict[str, Any]:
    """What `transformers` is to be told, to read a language model's layers in so many bits; `WeftError` where it
    cannot. ``adapter``: the name of what is to be loaded, where it is one. By bitsandbytes; in 8 bits by torchao, where
    that alone is installed."""
    if bits not in (4, 8):
        raise WeftError(f"bits is 8 or 4, not {bits!r}; leave it out for the weights as they are")
    if adapter:
        raise WeftError(f"{adapter} is an adapter, and cannot be loaded in {bits} bits; weft merge makes it a model")
    apart = ["vision", "vision_connector", "audio", "audio_connector", "lm_head"]
    config: Any
    if importlib.util.find_spec("bitsandbytes") is not None:
        from transformers import BitsAndBytesConfig

        wanted = {"load_in_8bit": True} if bits == 8 else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
        config = BitsAndBytesConfig(**wanted, bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=apart)
    elif bits == 8 and importlib.util.find_spec("torchao") is not None:
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        # peft's: that it could not merge into these layers, which nothing here does
        warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated")
        config = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=apart)
    else:
        raise WeftError(f"loading in {bits} bits needs bitsandbytes; install it with: pip install bitsandbytes")
    return {"quantization_config": config, "device_map": {"": place}}
