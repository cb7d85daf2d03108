"""`WeftProcessor`: conversations to model inputs, and generated ids back to parts.

Legend: L tokens, B rows, N images, W windows of sound, T frames, M mel bands, S samples of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from transformers import AddedToken, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from weft.conversation import Audio, Conversation, Part, Text, WeftError, dump_parts, parse_messages
from weft.dialects import Dialect, DialectError, Piece, Slot, get_dialect, plain_text
from weft.media import audio_samples, image_size, load_audio, load_image, log_mel, resize_normalize
from weft.models import doors, templates
from weft.models.config import AudioSection, DialectSection, VisionSection, WeftConfig
from weft.models.layout import Window, audio_windows, image_tokens, mel_bands
from weft.models.rendering import Rendered, Renderer, SlotSizes, Span

IGNORED = -100  # a label that carries no loss
EVEN = 128  # frames; see `WeftProcessor.media`


@dataclass(slots=True)
class Encoded:
    """One conversation as the model takes it, media decoded; not yet a batch."""

    input_ids: np.ndarray  # int64 [L]
    loss_mask: np.ndarray  # bool [L]: what the model learns to write
    images: list[np.ndarray] = field(default_factory=list)  # float32 [3, H, W]
    features: list[np.ndarray] = field(default_factory=list)  # one a window: float32 [T, M], or samples [S]
    spans: list[Span] = field(default_factory=list)
    source: np.ndarray | None = None  # int64 [L]: index into `pieces`
    pieces: list[Piece] = field(default_factory=list)
    windows: int = 0  # windows of sound over all clips
    generate: bool = False

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def labels(self) -> np.ndarray:
        """int64 [L]: the id where there is loss, else -100. Not shifted."""
        return np.where(self.loss_mask, self.input_ids, IGNORED)


class WeftProcessor(ProcessorMixin):
    """Tokenizer, dialect and media preparation of one model.

    ``config`` is the model's configuration, or the part of it that a folder's ``processor_config.json`` holds
    (``vision``, ``audio``, ``dialect``).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        config: WeftConfig | dict[str, Any] | None = None,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template)
        get = config.get if isinstance(config, dict) else lambda name: getattr(config, name, None)
        self.vision = VisionSection.model_validate(get("vision")) if get("vision") else None
        self.audio = AudioSection.model_validate(get("audio")) if get("audio") else None
        self.section = DialectSection.model_validate(get("dialect") or {})
        self.dialect: Dialect = get_dialect(self.section.name, self.section.switches)
        self.renderer = Renderer(self.tokenizer, self.dialect)
        if getattr(self, "chat_template", None) is None:
            self.chat_template = templates.chat_template(self.dialect)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; no code of the folder runs, whatever its files name."""
        name = pretrained_model_name_or_path
        with doors.guarded(name):
            doors.check_processor(name, **kwargs)
            return super().from_pretrained(name, *args, **{**kwargs, "trust_remote_code": False})

    @classmethod
    def build(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        vision: VisionSection | None = None,
        audio: AudioSection | None = None,
        dialect: DialectSection | None = None,
    ) -> WeftProcessor:
        """A processor for a newly composed model; adds to ``tokenizer`` the special tokens that are missing.

        The language model's embeddings must then be resized to ``len(tokenizer)``.
        """
        dialect = dialect or DialectSection()
        switches = dict(dialect.switches)
        if dialect.name == "chatml" and "bos" not in switches and _begins_with_bos(tokenizer):
            switches["bos"] = tokenizer.bos_token
        section = DialectSection(name=dialect.name, switches=switches)
        form = get_dialect(section.name, section.switches)
        wanted = form.special_tokens()
        for modality, tower in (("image", vision), ("audio", audio)):
            if tower is not None and modality in form.modalities:
                wanted += [token for token in form.slot_tokens(modality) if token is not None]  # type: ignore[arg-type]
        # Also those that it has but does not mark as special: else text could become one of them.
        added = tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special}
        missing = [token for token in dict.fromkeys(wanted) if token not in special]
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
        tokenizer.chat_template = None  # a pretrained one would write another format than the dialect
        if tokenizer.pad_token_id is None:
            stop = form.stop_tokens()[0]
            tokenizer.pad_token = stop if tokenizer.eos_token is None else tokenizer.eos_token
        data = {
            "vision": vision.model_dump(mode="json") if vision else None,
            "audio": audio.model_dump(mode="json") if audio else None,
            "dialect": section.model_dump(mode="json"),
        }
        return cls(tokenizer, data)

    def to_dict(self) -> dict[str, Any]:
        sections = {"vision": self.vision, "audio": self.audio, "dialect": self.section}
        config = {name: s.model_dump(mode="json") for name, s in sections.items() if s is not None}
        return {"config": config, "processor_class": type(self).__name__}

    def with_switches(self, **switches: Any) -> WeftProcessor:
        """A processor like this one, with these switches of its dialect changed (`DialectError` for unknown ones)."""
        data = self.to_dict()["config"]
        section = {"name": self.section.name, "switches": {**self.section.switches, **switches}}
        return type(self)(self.tokenizer, {**data, "dialect": section})

    @property
    def token_ids(self) -> dict[str, Any]:
        """What `WeftConfig` wants to know: image_token_id, audio_token_id, audio_start_id, audio_end_id, and where a
        connector has ``places``, image_place_ids and audio_place_ids."""
        ids: dict[str, Any] = dict.fromkeys(("image_token_id", "audio_token_id", "audio_start_id", "audio_end_id"))
        for modality, section in (("image", self.vision), ("audio", self.audio)):
            if section is not None and section.connector.places:
                ids[f"{modality}_place_ids"] = self._place_ids(modality)
        if self.vision is not None and "image" in self.dialect.modalities:
            ids["image_token_id"] = self.renderer.token_id(self.dialect.slot_tokens("image")[0])
        if self.audio is not None and "audio" in self.dialect.modalities:
            token, start, end = self.dialect.slot_tokens("audio")
            ids["audio_token_id"] = self.renderer.token_id(token)
            if self.audio.boundaries and start is not None and end is not None:
                ids["audio_start_id"], ids["audio_end_id"] = self.renderer.token_id(start), self.renderer.token_id(end)
        return ids

    def _place_ids(self, modality: Any) -> list[tuple[int, int]]:
        """First id and number of the tokens of each scale that names a place in an image or a window of sound."""
        scales = [[self.renderer.token_id(t) for t in scale] for scale in self.dialect.place_tokens(modality)]
        if not scales or any(ids != list(range(ids[0], ids[0] + len(ids))) for ids in scales):
            raise WeftError(
                f"connector.places needs a dialect with tokens for places, one after the other in the vocabulary, and "
                f"{self.dialect.name} has none for {modality}s here; turn places off, or take chatml with tokens"
            )
        heard = self.audio.window_seconds if modality == "audio" and self.audio is not None else None
        counted = getattr(self.dialect.switches, "window_seconds", None)
        if heard is not None and counted is not None and abs(counted - heard) > 1e-6:
            raise WeftError(
                f"audio.connector.places: the encoder hears windows of {heard:g} s and the dialect "
                f"counts times in windows of {counted:g} s; give both one length (audio.window_seconds, or the switch "
                "window_seconds)"
            )
        return [(ids[0], len(ids)) for ids in scales]

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer: the dialect's, and the tokenizer's own end of text."""
        ids = [self.renderer.token_id(token) for token in self.dialect.stop_tokens()]
        eos = self.tokenizer.eos_token_id
        return ids if eos is None or eos in ids else [*ids, eos]

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.stop_ids[0] if pad is None else int(pad)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "input_features", "feature_lengths"]

    # One conversation.

    def encode(self, conversation: Conversation, *, generate: bool = False, max_length: int | None = None) -> Encoded:
        """A conversation with its media decoded.

        ``generate``: the prompt that the model is to go on from (the conversation must not end with an answer); else a
        training sample. Media in the conversation may be decoded already (PIL images, arrays). Longer than
        ``max_length`` tokens is an error: nothing is cut.
        """
        self._check_towers(conversation)
        images = [self.pixels_of(image.source) for image in conversation.images]
        features: list[np.ndarray] = []
        windows: list[list[Window]] = []
        for clip in conversation.audios:
            wave = load_audio(clip.source, self._audio.sample_rate)
            windows.append(self._clip_windows(clip, len(wave)))
            features += [self.features_of(wave[w.start : w.end], w) for w in windows[-1]]
        encoded = self._encode(self.pieces(conversation, generate=generate), self._sizes(len(images), windows))
        encoded.images, encoded.features, encoded.generate = images, features, generate
        encoded.windows = len(features)
        self._check_length(len(encoded), conversation, max_length)
        return encoded

    def length(self, conversation: Conversation) -> int:
        """Tokens of the training form; reads no more of the media than their headers."""
        return len(self.render(conversation).ids)

    def render(self, conversation: Conversation, *, generate: bool = False) -> Rendered:
        """Ids, loss flags and spans (`models.rendering.Rendered`) without decoding media: headers give their sizes."""
        self._check_towers(conversation)
        windows = [
            self._clip_windows(clip, audio_samples(clip.source, self._audio.sample_rate))
            for clip in conversation.audios
        ]
        sizes = self._sizes(len(conversation.images), windows)
        return self.renderer.render(self.pieces(conversation, generate=generate), sizes)

    def pieces(self, conversation: Conversation, *, generate: bool = False) -> list[Piece]:
        """What the dialect writes for a conversation."""
        if generate and conversation.answer is not None:
            raise WeftError(
                "the conversation ends with an answer, so there is nothing to generate; end it with a user message"
            )
        return self.dialect.render(conversation, generate=generate)

    def _encode(self, pieces: Sequence[Piece], sizes: SlotSizes) -> Encoded:
        rendered = self.renderer.render(pieces, sizes)
        return Encoded(
            np.asarray(rendered.ids, dtype=np.int64),
            np.asarray(rendered.loss, dtype=bool),
            spans=rendered.spans,
            source=np.asarray(rendered.source, dtype=np.int64),
            pieces=rendered.pieces,
        )

    @property
    def _audio(self) -> AudioSection:
        if self.audio is None:
            raise WeftError("this model has no audio encoder; remove the clips, or compose a model with one")
        return self.audio

    def _check_towers(self, conversation: Conversation) -> None:
        if conversation.images and self.vision is None:
            raise WeftError("this model has no image encoder; remove the images, or compose a model with one")
        if conversation.audios:
            assert self._audio

    def _sizes(self, images: int, windows: Sequence[Sequence[Window]]) -> SlotSizes:
        sizes: dict[Any, Sequence[int]] = {}
        if images:
            assert self.vision is not None
            count = [image_tokens(self.vision)]
            sizes |= {("image", i): count for i in range(images)}
        return sizes | {("audio", i): [w.tokens for w in clip] for i, clip in enumerate(windows)}

    def _clip_windows(self, clip: Audio, samples: int) -> list[Window]:
        try:
            return audio_windows(self._audio, samples)
        except WeftError as error:
            name = clip.source if isinstance(clip.source, str) and not clip.source.startswith("data:") else None
            raise error if name is None else WeftError(f"{name}: {error}") from error

    def pixels_of(self, source: Any) -> np.ndarray:
        """A picture (a path, bytes, a data URL or decoded) as the image encoder takes it: float32 [3, H, W]."""
        if self.vision is None:
            raise WeftError("this model has no image encoder; remove the images, or compose a model with one")
        v = self.vision
        return resize_normalize(load_image(source), v.size, v.mean, v.std, v.resample, v.fit)

    def features_of(self, wave: np.ndarray, window: Window) -> np.ndarray:
        """One window of sound at the encoder's rate as the encoder takes it: log-mel float32 [T, M], or samples [S]."""
        bands = mel_bands(self._audio)
        if bands is None:
            return np.pad(wave, (0, window.padded - len(wave)))[: window.frames]
        return log_mel(wave, bands, pad_to=window.padded)[: window.frames]

    def _check_length(self, length: int, conversation: Conversation, limit: int | None) -> None:
        if limit is not None and length > limit:
            name = f"sample {conversation.id!r}" if conversation.id is not None else "the conversation"
            raise WeftError(f"{name} takes {length} tokens and at most {limit} fit; shorten it or raise the limit")

    # Batches.

    def collate(
        self, samples: Sequence[Encoded], padding_side: Literal["right", "left"] = "right"
    ) -> dict[str, torch.Tensor]:
        """Rows padded to the longest: input_ids, attention_mask [B, L], labels where the samples are for training;
        pixel_values [N, 3, H, W], input_features [W, T, M] (or [W, S]), feature_lengths [W] where there are any."""
        longest = max(len(sample) for sample in samples)
        shape = (len(samples), longest)
        ids_BL = np.full(shape, self.pad_id, dtype=np.int64)
        mask_BL = np.zeros(shape, dtype=np.int64)
        labels_BL = np.full(shape, IGNORED, dtype=np.int64)
        for row, sample in enumerate(samples):
            here = slice(longest - len(sample), longest) if padding_side == "left" else slice(0, len(sample))
            ids_BL[row, here], mask_BL[row, here], labels_BL[row, here] = sample.input_ids, 1, sample.labels
        batch = {"input_ids": torch.from_numpy(ids_BL), "attention_mask": torch.from_numpy(mask_BL)}
        if not any(sample.generate for sample in samples):
            batch["labels"] = torch.from_numpy(labels_BL)
        return batch | self.media(samples)

    def pack(self, samples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """All samples in one row: input_ids, position_ids (restarting at 0), labels [1, L], segment_lengths, media."""
        row = {
            "input_ids": np.concatenate([sample.input_ids for sample in samples]),
            "position_ids": np.concatenate([np.arange(len(sample)) for sample in samples]),
            "labels": np.concatenate([sample.labels for sample in samples]),
        }
        # What follows a sample is another sample: its first token is not to be learned from this one.
        starts = np.cumsum([0, *(len(sample) for sample in samples[:-1])])
        row["labels"][starts] = IGNORED
        batch = {name: torch.from_numpy(values)[None] for name, values in row.items()}
        batch["segment_lengths"] = torch.tensor([len(sample) for sample in samples])
        return batch | self.media(samples)

    def media(self, samples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """The media of all samples in their order, as tensors; nothing where there are none."""
        out: dict[str, torch.Tensor] = {}
        images = [image for sample in samples for image in sample.images]
        features = [feature for sample in samples for feature in sample.features]
        if images:
            out["pixel_values"] = torch.from_numpy(np.stack(images))
        if features:
            longest = max(len(feature) for feature in features)
            if self._audio.kind == "conv":
                # A CPU's kernels are made anew for each shape: few shapes made an update of spoken digits a fifth
                # faster, more frames and all, and kept a GB of kernels out of memory.
                longest = -(-longest // EVEN) * EVEN
            padded = np.zeros((len(features), longest, *features[0].shape[1:]), dtype=np.float32)
            for row, feature in zip(padded, features, strict=True):
                row[: len(feature)] = feature
            out["input_features"] = torch.from_numpy(padded)
            out["feature_lengths"] = torch.tensor([len(feature) for feature in features])
        return out

    # What transformers' processors offer.

    def __call__(  # type: ignore[override]
        self,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        audio: Any = None,
        *,
        return_tensors: str | None = None,
        padding_side: Literal["right", "left"] = "left",
        sampling_rate: int | None = None,
        **unused: Any,
    ) -> BatchFeature:
        """Prompts written out (as `apply_chat_template` gives them with ``tokenize=False``) and their media in order.

        A placeholder stands for each image and clip. Here, unlike in a conversation, special tokens in the text count
        as what they are. ``images`` and ``audio`` are one item, a list over all prompts, or a list a prompt; arrays of
        sound are taken to be at ``sampling_rate`` (the model's own where not given).
        """
        _refuse(unused, self.__class__.__name__)
        if text is None:
            raise WeftError("the processor needs text=: the prompt with a placeholder for each image and clip")
        prompts = [text] if isinstance(text, str) else list(text)
        pictures, clips = _flat(images), _flat(audio)
        if sampling_rate is not None:
            clips = [(c, sampling_rate) if isinstance(c, np.ndarray | list | torch.Tensor) else c for c in clips]
        samples: list[Encoded] = []
        used = {"image": 0, "audio": 0}
        for prompt in prompts:
            pieces = self.renderer.read(prompt)
            count = {m: sum(isinstance(p, Slot) and p.modality == m for p in pieces) for m in used}
            mine = pictures[used["image"] :][: count["image"]], clips[used["audio"] :][: count["audio"]]
            samples.append(self._encode_with(pieces, *mine, count))
            for modality in used:
                used[modality] += count[modality]
        for modality, given in (("image", pictures), ("audio", clips)):
            if used[modality] != len(given):
                token = self.dialect.slot_tokens(modality)[0] if modality in self.dialect.modalities else "placeholder"  # type: ignore[arg-type]
                raise WeftError(f"{len(given)} of {modality}= given for {used[modality]} {token} in the text")
        return self._feature(samples, return_tensors, padding_side)

    def _encode_with(self, pieces: list[Piece], images: list[Any], clips: list[Any], count: dict[str, int]) -> Encoded:
        if (len(images), len(clips)) != (count["image"], count["audio"]):
            raise WeftError(
                f"the text has {count['image']} image and {count['audio']} audio placeholders, and {len(images)} "
                f"images and {len(clips)} clips are left for it"
            )
        if images and self.vision is None:
            raise WeftError("this model has no image encoder; remove the images, or compose a model with one")
        waves = [load_audio(clip, self._audio.sample_rate) for clip in clips]
        windows = [audio_windows(self._audio, len(wave)) for wave in waves]
        encoded = self._encode(pieces, self._sizes(len(images), windows))
        encoded.images = [self.pixels_of(image) for image in images]
        encoded.features = [
            self.features_of(wave[w.start : w.end], w) for wave, ws in zip(waves, windows, strict=True) for w in ws
        ]
        encoded.windows, encoded.generate = len(encoded.features), True
        return encoded

    def _feature(
        self, samples: list[Encoded], return_tensors: str | None, padding_side: Literal["right", "left"]
    ) -> BatchFeature:
        batch = self.collate(samples, padding_side)
        batch.pop("labels", None)
        if return_tensors == "pt":
            return BatchFeature(batch)
        arrays = {name: tensor.numpy() for name, tensor in batch.items()}
        if return_tensors == "np":
            return BatchFeature(arrays)
        if return_tensors not in (None, "auto"):
            raise WeftError(f'return_tensors is "pt", "np" or None, not {return_tensors!r}')
        lists: dict[str, Any] = {name: array.tolist() for name, array in arrays.items() if array.ndim <= 2}
        for name in ("input_ids", "attention_mask"):  # without tensors rows need no padding
            lists[name] = [
                [v for v, keep in zip(row, mask, strict=True) if keep]
                for row, mask in zip(arrays[name].tolist(), arrays["attention_mask"].tolist(), strict=True)
            ]
        return BatchFeature({**arrays, **lists})

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        return_assistant_tokens_mask: bool = False,
        padding_side: Literal["right", "left"] = "left",
        **unused: Any,
    ) -> Any:
        """Messages (DESIGN: text, image, audio, task, box and words parts) rendered by the model's dialect.

        ``tokenize=False`` gives the prompt as text with a placeholder for each image and clip. A list of conversations
        gives a batch, padded on the left. Without ``add_generation_prompt`` this is the training form.
        """
        unused.pop("padding", None)
        _refuse(unused, "apply_chat_template")
        if chat_template is not None:
            raise WeftError("the dialect writes the prompt here; a chat_template of your own cannot replace it")
        batched = _is_batch(conversation)
        conversations = [_typed(c) for c in (conversation if batched else [conversation])]
        if not tokenize:
            texts = [self.renderer.write(self.pieces(c, generate=add_generation_prompt)) for c in conversations]
            return texts if batched else texts[0]
        samples = [self.encode(c, generate=add_generation_prompt) for c in conversations]
        feature = self._feature(samples, return_tensors, padding_side)
        if return_assistant_tokens_mask:
            masks = [sample.loss_mask.astype(np.int64) for sample in samples]
            width = max(map(len, masks))
            rows = [
                np.pad(m, (width - len(m), 0) if padding_side == "left" else (0, width - len(m)))
                if return_tensors in ("pt", "np")
                else m
                for m in masks
            ]
            feature["assistant_masks"] = (
                torch.from_numpy(np.stack(rows))
                if return_tensors == "pt"
                else np.stack(rows)
                if return_tensors == "np"
                else [row.tolist() for row in rows]
            )
        if return_dict:
            return feature
        return feature["input_ids"] if batched or return_tensors in ("pt", "np") else feature["input_ids"][0]

    # Back from ids.

    def parse(self, generated: Any, messages: Any) -> Any:
        """Parts of an answer as data: boxes in fractions, words in seconds, the rest as text.

        ``generated``: ids as `generate` gives them (with or without the prompt) or text decoded with its special tokens
        kept. ``messages``: what was asked. A batch (a list of texts, or ids of several rows, with a list of
        conversations) gives a list.
        """
        if _is_batch(messages):
            rows = generated.tolist() if hasattr(generated, "tolist") else list(generated)
            if len(rows) % len(messages):
                raise WeftError(f"{len(rows)} answers for {len(messages)} conversations; give one list for each")
            each = len(rows) // len(messages)  # num_return_sequences
            return [self.parse(row, messages[i // each]) for i, row in enumerate(rows)]
        conversation = _typed(messages).prompt()
        if isinstance(generated, str):
            return dump_parts(self.dialect.parse(self._unstopped(generated), conversation))
        ids = generated.tolist() if hasattr(generated, "tolist") else list(generated)
        if ids and isinstance(ids[0], list):
            if len(ids) > 1:
                return [self.parse(row, conversation) for row in ids]
            ids = ids[0]
        return dump_parts(self.parse_reply(self._without_prompt(ids, conversation), conversation)[2])

    def parse_reply(self, ids: Sequence[int], conversation: Conversation) -> tuple[str, str, list[Part]]:
        """Of generated ids (no prompt): the text as generated, the text for a person, and the parts."""
        ids = list(ids)
        stops = set(self.stop_ids)
        end = next((i for i, index in enumerate(ids) if index in stops), len(ids))
        raw = self.tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        parts = self.dialect.parse(raw, conversation)
        return raw, self._without_special(plain_text(parts), ids[:end]).strip(), parts

    def settled(self, ids: Sequence[int], conversation: Conversation) -> str:
        """The text for a person of an answer under way, as far as no later id can change it.

        Boxes and words are whole only with their last token: what may yet become one is left out.
        """
        raw, _, parts = self.parse_reply(ids, conversation)
        if parts and isinstance(parts[-1], Text):
            text = parts[-1].text
            ends = [at for token in self._special_among(ids) if (at := text.find(token)) >= 0]
            parts = [*parts[:-1], Text(text[: min(ends, default=len(text))].rstrip("\ufffd"))]
        return self._without_special(plain_text(parts), ids).strip()

    def _special_among(self, ids: Sequence[int]) -> list[str]:
        there = self.renderer.special_ids.intersection(ids)
        return [self.tokenizer.convert_ids_to_tokens(i) for i in sorted(there)]

    def _without_special(self, text: str, ids: Sequence[int]) -> str:
        """Text without the special tokens among ``ids``; what merely reads like one stays."""
        for token in self._special_among(ids):
            text = text.replace(token, "")
        return text

    def _unstopped(self, text: str) -> str:
        for token in self.dialect.stop_tokens():
            text = text.split(token)[0]
        return text

    def _without_prompt(self, ids: list[int], conversation: Conversation) -> list[int]:
        """Generated ids without the prompt and its padding, where they have one."""
        try:
            prompt = self.render(conversation, generate=True).ids
        except DialectError:
            return ids
        for start in range(len(ids) - len(prompt) + 1):
            if ids[start : start + len(prompt)] == prompt:
                return ids[start + len(prompt) :]
            if ids[start] != self.pad_id:
                break
        return ids


def _begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and bool(ids) and ids[0] == tokenizer.bos_token_id


def _typed(messages: Any) -> Conversation:
    return parse_messages(messages, probe=image_size)


def _is_batch(conversation: Any) -> bool:
    if isinstance(conversation, Conversation):
        return False
    return bool(conversation) and isinstance(conversation[0], list | tuple | Conversation)


def _flat(items: Any) -> list[Any]:
    """Media as one list: a single item, a list, or a list of lists."""
    if items is None:
        return []
    if not isinstance(items, list):
        return [items]
    return [x for item in items for x in (item if isinstance(item, list) and not _numbers(item) else [item])]


def _numbers(item: list[Any]) -> bool:
    return bool(item) and isinstance(item[0], int | float)


def _refuse(unused: dict[str, Any], where: str) -> None:
    """An option that would change the result must not be passed over; one that is off, or about padding, may."""
    harmless = {"padding", "add_special_tokens", "return_attention_mask"}
    for name, value in unused.items():
        if value and name not in harmless:
            raise WeftError(f"{where} has no use for {name}={value!r}; leave it out")
