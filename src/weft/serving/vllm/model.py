"""weft's architecture in vLLM 0.32: all of weft but its language model, which is vLLM's own.

A prompt has one slot a medium however long the medium is; weft's own renderer and arithmetic widen it here.
"""

from functools import partial

import torch
from torch import nn
from transformers import BatchFeature
from vllm.model_executor.models.interfaces import SupportsMultiModal, SupportsPP
from vllm.model_executor.models.utils import AutoWeightsLoader, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY, processing
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import MultiModalDataParser

from weft.dialects import Slot
from weft.media import load_audio, load_image
from weft.models.clients import written_out
from weft.models.encoders.tiles import largest
from weft.models.senses import Senses
from weft.serving.vllm.heads import fill

# Language models of weft's own, and the one of vLLM's that takes their weights: Qwen-7B's first `seq_length` tokens.
FAMILIES = {"weft_qwen": ["Qwen2ForCausalLM"]}


def media_ids(config):
    """Ids whose embeddings come from an encoder."""
    return [token for token in (config.image_token_id, *config.audio_ids) if token is not None]


class Parser(MultiModalDataParser):
    """Sound is mixed down and resampled by weft, not by what vLLM finds installed."""

    def _get_audio_with_sr(self, audio):
        return load_audio(audio, self.rate), None


class Info(processing.BaseProcessingInfo):
    def get_supported_mm_limits(self):
        config = self.get_hf_config()
        return {m: None for m in ("image", "audio") if getattr(config, f"{m}_token_id") is not None}

    def get_data_parser(self):
        audio, parser = self.get_hf_config().audio_section, Parser()
        parser.rate = audio.sample_rate if audio else 16000
        return parser

    def slot(self, modality, sizes):
        """Ids of one medium with its start and end tokens; ``sizes``: one number a window."""
        return self.get_hf_processor().renderer.render([Slot(modality, 0)], {(modality, 0): sizes}).ids

    def widened(self, modality, size):
        """Ids of an image of that width and height, or of a clip of so many samples."""
        processor = self.get_hf_processor()
        if modality == "image":
            return self.slot("image", [processor.images.tokens(*size)])
        return self.slot("audio", [w.tokens for w in processor.sounds.windows(size)])

    def largest(self, modality):
        """The size of an image that gives the most tokens, or of a clip of one whole window."""
        processor = self.get_hf_processor()
        return largest(processor.vision) if modality == "image" else processor.sounds.window_samples

    def get_mm_max_tokens_per_item(self, seq_len, mm_counts=None):
        return {m: len(self.widened(m, self.largest(m))) for m in self.get_supported_mm_limits()}


class Dummy(processing.BaseDummyInputsBuilder[Info]):
    def get_dummy_text(self, mm_counts):
        renderer = self.info.get_hf_processor().renderer
        return "".join(written_out(renderer, [Slot(modality, 0)]) * n for modality, n in mm_counts.items())

    def get_dummy_mm_data(self, seq_len, mm_counts, mm_options):
        data = {}
        if n := mm_counts.get("image", 0):
            width, height = self.info.largest("image")
            data["image"] = self._get_dummy_images(width=width, height=height, num_images=n)
        if n := mm_counts.get("audio", 0):
            data["audio"] = self._get_dummy_audios(length=self.info.largest("audio"), num_audios=n)
        return data


class Processor(processing.BaseMultiModalProcessor[Info]):
    def _call_hf_processor(self, hf_data, hf_kwargs):
        processor, out = self.info.get_hf_processor(), {}
        if images := hf_data.get("images"):
            out["pixel_values"] = [torch.from_numpy(processor.images.pixels(load_image(image))) for image in images]
        for wave in hf_data.get("audio", ()):  # one item a clip: its windows [n, T, M], filled up with zeros
            windows = processor.sounds.windows(len(wave))
            mels = [torch.from_numpy(processor.features_of(wave[w.start : w.end], w)) for w in windows]
            out.setdefault("input_features", []).append(nn.utils.rnn.pad_sequence(mels, batch_first=True))
            out.setdefault("feature_lengths", []).append(torch.tensor([len(mel) for mel in mels]))
        return BatchFeature(out)

    def _get_mm_fields_config(self, hf_inputs, hf_processor_mm_kwargs):
        names = {"pixel_values": "image", "input_features": "audio", "feature_lengths": "audio"}
        return {name: MultiModalFieldConfig.batched(modality) for name, modality in names.items()}

    def _get_prompt_updates(self, mm_items, hf_processor_mm_kwargs, out_mm_kwargs):
        ids = media_ids(self.info.get_hf_config())

        def wide(modality, item):
            items = mm_items[modality]
            size = items.get_audio_length(item) if modality == "audio" else items.get_image_size(item)
            return processing.PromptUpdateDetails.select_token_ids(self.info.widened(modality, size), ids)

        targets = {modality: self.info.slot(modality, [1]) for modality in mm_items}
        return [processing.PromptReplacement(m, target, partial(wide, m)) for m, target in targets.items()]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=Dummy)
class WeftForConditionalGeneration(Senses, nn.Module, SupportsMultiModal, SupportsPP):
    def __init__(self, *, vllm_config, prefix=""):
        super().__init__()
        config = self.config = vllm_config.model_config.hf_config
        self.build_senses(config, partial(self._mark_tower_model, vllm_config))
        with self._mark_language_model(vllm_config):
            name, text = maybe_prefix(prefix, "language_model"), config.text_config
            longest = getattr(text, "seq_length", None)  # past it the model has two rules that vLLM has not
            if longest is not None and vllm_config.model_config.max_model_len > longest:
                raise ValueError(f"this language model goes to {longest:,} tokens here: give max_model_len={longest}")
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config, hf_config=text, prefix=name, architectures=FAMILIES.get(text.model_type)
            )
        fill(self.language_model)
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors
        self.configure_mm_token_handling(config.text_config.vocab_size, media_ids(config))

    @classmethod
    def get_placeholder_str(cls, modality, i):
        return f"<|{modality}_start|><|{modality}|><|{modality}_end|>"

    def get_input_embeddings(self):
        return self.language_model.embed_input_ids

    @property
    def device(self):
        return next(self.parameters()).device

    def embed_multimodal(self, **kwargs):
        """One tensor [tokens, W] an item, in the order of the items; vLLM asks for one modality at a time."""
        out = []
        for views in kwargs.get("pixel_values", ()):
            out.append(self.embed_images(views))
        for clip, lengths in zip(kwargs.get("input_features", ()), kwargs.get("feature_lengths", ()), strict=True):
            out.append(self.embed_audio(clip, lengths, ends=True))
        return out

    def forward(self, input_ids, positions, intermediate_tensors=None, inputs_embeds=None, **kwargs):
        inputs_embeds = inputs_embeds if intermediate_tensors is None else None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states):
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights):
        return AutoWeightsLoader(self).load_weights(weights)
