"""Conversations to what a model takes: ids with loss flags, media and their slots; and generated ids back to parts.

Training, evaluation and generation use this alone; `processing` adds what `transformers` expects of a processor.

Legend: L tokens, B rows, N views of images, W windows of sound, T frames, M mel bands, S samples of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from weft.conversation import Conversation, Part, Text, WeftError
from weft.dialects import Dialect, Modality, Piece, get_dialect, plain_text
from weft.media import audio_samples, image_size, load_audio, load_image
from weft.models.config import AudioSection, DialectSection, VisionSection, WeftConfig
from weft.models.connectors import PLACES
from weft.models.encoders import ImageKind, SoundKind, Window, image_kind, sound_kind
from weft.models.loss import IGNORE
from weft.models.rendering import Rendered, Renderer, SlotSizes, Span


@dataclass(slots=True)
class Encoded:
    """One conversation as the model takes it, media decoded; not yet a batch."""

    input_ids: np.ndarray  # int64 [L]
    loss_mask: np.ndarray  # bool [L]: what the model learns to write
    images: list[np.ndarray] = field(default_factory=list)  # one a picture: float32 [V, 3, H, W], its views
    features: list[np.ndarray] = field(default_factory=list)  # one a window: float32 [T, M], or samples [S]
    spans: list[Span] = field(default_factory=list)
    source: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # int64 [L]: index into `pieces`
    pieces: list[Piece] = field(default_factory=list)
    generate: bool = False

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def labels(self) -> np.ndarray:
        """int64 [L]: the id where there is loss, else -100. Not shifted."""
        return np.where(self.loss_mask, self.input_ids, IGNORE)


class Encoding:
    """Tokenizer, dialect and media preparation of one model."""

    tokenizer: PreTrainedTokenizerBase

    def configure(self, config: WeftConfig | Mapping[str, Any] | None) -> None:
        """``config``: the model's configuration, or the part of it that a folder's ``processor_config.json`` holds."""
        get = config.get if isinstance(config, Mapping) else lambda name: getattr(config, name, None)
        self.vision = VisionSection.model_validate(get("vision")) if get("vision") else None
        self.audio = AudioSection.model_validate(get("audio")) if get("audio") else None
        self.image_kind = image_kind(self.vision) if self.vision is not None else None
        self.sound_kind = sound_kind(self.audio) if self.audio is not None else None
        self.section = DialectSection.model_validate(get("dialect") or {})
        self.dialect: Dialect = get_dialect(self.section.name, self.section.switches)
        self.renderer = Renderer(self.tokenizer, self.dialect)

    @property
    def token_ids(self) -> dict[str, Any]:
        """What `WeftConfig` wants to know: image_token_id, audio_token_id, audio_start_id, audio_end_id, and where a
        connector has ``places``, image_place_ids and audio_place_ids."""
        ids: dict[str, Any] = dict.fromkeys(("image_token_id", "audio_token_id", "audio_start_id", "audio_end_id"))
        for modality, section in (("image", self.vision), ("audio", self.audio)):
            if section is not None and section.connector.places:
                ids[f"{modality}_place_ids"] = PLACES[modality]().ids(self)
        if self.vision is not None and "image" in self.dialect.modalities:
            ids["image_token_id"] = self.renderer.token_id(self.dialect.slot_tokens("image")[0])
        if self.audio is not None and "audio" in self.dialect.modalities:
            token, start, end = self.dialect.slot_tokens("audio")
            ids["audio_token_id"] = self.renderer.token_id(token)
            if self.audio.boundaries and start is not None and end is not None:
                ids["audio_start_id"], ids["audio_end_id"] = self.renderer.token_id(start), self.renderer.token_id(end)
        return ids

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

    # One conversation.

    def encode(self, conversation: Conversation, *, generate: bool = False, max_length: int | None = None) -> Encoded:
        """A conversation with its media decoded.

        ``generate``: the prompt that the model is to go on from (the conversation must not end with an answer); else a
        training sample. Media in the conversation may be decoded already (PIL images, arrays). Longer than
        ``max_length`` tokens is an error: nothing is cut.
        """
        images, clips = [i.source for i in conversation.images], [a.source for a in conversation.audios]
        encoded = self.encode_pieces(self.pieces(conversation, generate=generate), images, clips)
        encoded.generate = generate
        if max_length is not None and len(encoded) > max_length:
            name = f"sample {conversation.id!r}" if conversation.id is not None else "the conversation"
            raise WeftError(
                f"{name} takes {len(encoded)} tokens and at most {max_length} fit; shorten it or raise the limit"
            )
        return encoded

    def encode_pieces(self, pieces: Sequence[Piece], images: Iterable[Any], clips: Iterable[Any]) -> Encoded:
        """Pieces of the dialect with the media of their slots in order."""
        sizes: dict[tuple[Modality, int], Sequence[int]] = {}
        pixels, features = [], []
        for item, source in enumerate(images):
            picture = load_image(source)
            pixels.append(self.images.pixels(picture))
            sizes["image", item] = [self.images.tokens(*image_size(picture))]
        for item, source in enumerate(clips):
            wave = load_audio(source, self.sounds.section.sample_rate)
            windows = self._windows(source, len(wave))
            features += [self.features_of(wave[w.start : w.end], w) for w in windows]
            sizes["audio", item] = [w.tokens for w in windows]
        rendered = self.renderer.render(pieces, sizes)
        return Encoded(
            np.asarray(rendered.ids, dtype=np.int64),
            np.asarray(rendered.loss, dtype=bool),
            pixels,
            features,
            rendered.spans,
            np.asarray(rendered.source, dtype=np.int64),
            rendered.pieces,
        )

    def length(self, conversation: Conversation) -> int:
        """Tokens of the training form; reads no more of the media than their headers."""
        return len(self.render(conversation).ids)

    def render(self, conversation: Conversation, *, generate: bool = False) -> Rendered:
        """Ids, loss flags and spans (`models.rendering.Rendered`) without decoding media: headers give their sizes."""
        images = {("image", i): [self.image_tokens(p.source)] for i, p in enumerate(conversation.images)}
        clips = {("audio", i): self.clip_tokens(p.source) for i, p in enumerate(conversation.audios)}
        sizes: SlotSizes = images | clips  # type: ignore[operator, assignment]
        return self.renderer.render(self.pieces(conversation, generate=generate), sizes)

    def pieces(self, conversation: Conversation, *, generate: bool = False) -> list[Piece]:
        """What the dialect writes for a conversation, of whose media the model has the senses."""
        if conversation.images:
            _ = self.images  # an error where there is no encoder of them
        if conversation.audios:
            _ = self.sounds
        if generate and conversation.answer is not None:
            raise WeftError(
                "the conversation ends with an answer, so there is nothing to generate; end it with a user message"
            )
        return self.dialect.render(conversation, generate=generate)

    # Media.

    @property
    def images(self) -> ImageKind:
        if self.image_kind is None:
            raise WeftError("this model has no image encoder; remove the images, or compose a model with one")
        return self.image_kind

    @property
    def sounds(self) -> SoundKind:
        if self.sound_kind is None:
            raise WeftError("this model has no audio encoder; remove the clips, or compose a model with one")
        return self.sound_kind

    def image_tokens(self, source: Any) -> int:
        """Embeddings of a picture, by its header where they depend on it; start and end tokens not counted."""
        return self.images.tokens(*image_size(source)) if self.images.by_size else self.images.view_tokens

    def clip_tokens(self, source: Any) -> list[int]:
        """Embeddings of each window of a clip, by its header; start and end tokens not counted."""
        samples = audio_samples(source, self.sounds.section.sample_rate)
        return [window.tokens for window in self._windows(source, samples)]

    def _windows(self, source: Any, samples: int) -> list[Window]:
        try:
            return self.sounds.windows(samples)
        except WeftError as error:
            if isinstance(source, str) and not source.startswith("data:"):
                raise WeftError(f"{source}: {error}") from error
            raise

    def features_of(self, wave: np.ndarray, window: Window) -> np.ndarray:
        """One window of sound at the encoder's rate as the encoder takes it: log-mel float32 [T, M], or samples [S]."""
        return self.sounds.prepare(wave, window)

    # Batches.

    def collate(
        self, samples: Sequence[Encoded], padding_side: Literal["right", "left"] = "right"
    ) -> dict[str, torch.Tensor]:
        """Rows padded to the longest: input_ids, attention_mask [B, L], labels where the samples are for training;
        pixel_values [N, 3, H, W], input_features [W, T, M] (or [W, S]), feature_lengths [W] where there are any."""
        batch = {
            "input_ids": padded([s.input_ids for s in samples], self.pad_id, padding_side),
            "attention_mask": padded([np.ones_like(s.input_ids) for s in samples], 0, padding_side),
        }
        if not any(sample.generate for sample in samples):
            batch["labels"] = padded([s.labels for s in samples], IGNORE, padding_side)
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
        row["labels"][starts] = IGNORE
        batch = {name: torch.from_numpy(values)[None] for name, values in row.items()}
        batch["segment_lengths"] = torch.tensor([len(sample) for sample in samples])
        return batch | self.media(samples)

    def media(self, samples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """The media of all samples in their order, as tensors; nothing where there are none."""
        out: dict[str, torch.Tensor] = {}
        images = [image for sample in samples for image in sample.images]
        features = [feature for sample in samples for feature in sample.features]
        if images:
            out["pixel_values"] = torch.from_numpy(np.concatenate(images))
        if features:
            more = -max(map(len, features)) % self.sounds.batch_frames
            filled = padded(features, 0.0)
            out["input_features"] = F.pad(filled, (0, 0) * (filled.ndim - 2) + (0, more))
            out["feature_lengths"] = torch.tensor([len(feature) for feature in features])
        return out

    # Back from ids.

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


def padded(rows: Sequence[np.ndarray], fill: float, side: Literal["right", "left"] = "right") -> torch.Tensor:
    """Rows of different lengths as one tensor."""
    return pad_sequence([torch.from_numpy(row) for row in rows], True, fill, side)
