"""`WeftProcessor`: what `transformers` expects of a processor, on top of `encoding`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AddedToken, AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from weft.conversation import Conversation, WeftError, dump_parts, parse_messages
from weft.conversation.tasks import TASKS
from weft.dialects import DialectError, Modality, Piece, Slot, Special, get_dialect
from weft.media import image_size
from weft.models import doors
from weft.models.config import AudioSection, DialectSection, VisionSection, WeftConfig
from weft.models.encoding import Encoded, Encoding, padded

# Where callers put options that are meant for one part of a processor: here all of it is one part.
NESTED = ("text_kwargs", "images_kwargs", "audio_kwargs", "videos_kwargs", "common_kwargs", "processor_kwargs")
HARMLESS = {"add_special_tokens", "return_attention_mask", "return_token_type_ids", "return_mm_token_type_ids"}


@dataclass(frozen=True, slots=True)
class Options:
    """What callers of any processor of transformers may ask of a batch.

    ``sampling_rate``: that of sound given as arrays. ``max_length``: what rows are filled up to with
    ``padding="max_length"``, and with ``truncation`` the most that they may have: nothing is cut, it is an error.
    """

    return_tensors: str | None = None
    padding: bool | str | None = True
    padding_side: Literal["right", "left"] = "left"
    pad_to_multiple_of: int | None = None
    truncation: bool | str | None = None
    max_length: int | None = None
    sampling_rate: int | None = None

    @classmethod
    def of(cls, given: dict[str, Any], where: str) -> Options:
        """An option that would change the result must not be passed over; one that is off may."""
        flat: dict[str, Any] = {}
        for group in (given, *(given.get(name) or {} for name in NESTED)):
            for name, value in group.items():
                if name in flat and flat[name] != value:
                    raise WeftError(f"{where} is given {name}={flat[name]!r} and {name}={value!r}; give it once")
                if name not in NESTED:
                    flat[name] = value
        known = {field.name for field in fields(cls)}
        for name, value in flat.items():
            if name not in known | HARMLESS and value:
                raise WeftError(f"{where} has no use for {name}={value!r}; leave it out")
        return cls(**{name: value for name, value in flat.items() if name in known and value is not None})

    def width(self, longest: int) -> int:
        """How long the rows of a batch are made whose longest has so many tokens."""
        if self.truncation and self.max_length is not None and longest > self.max_length:
            raise WeftError(
                f"a row has {longest} tokens, more than max_length={self.max_length}, and cutting it could cut a "
                "picture or an answer; raise max_length, or shorten what is asked"
            )
        least = max(longest, self.max_length or 0) if self.padding == "max_length" else longest
        step = self.pad_to_multiple_of or 1
        return -(-least // step) * step


class WeftProcessor(ProcessorMixin, Encoding):
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
        self.configure(config)
        self.tokenizer.padding_side = "left"  # weft fills rows up itself; pipelines do by this, and go on at the right
        if getattr(self, "chat_template", None) is None:
            self.chat_template = self.dialect.chat_template()

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
        senses: dict[Modality, Any] = {"image": vision, "audio": audio}
        wanted = form.all_tokens(*(modality for modality, tower in senses.items() if tower is not None))
        # Also those that it has but does not mark as special: else text could become one of them.
        added = tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special}
        missing = [token for token in dict.fromkeys(wanted) if token not in special]
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
        tokenizer.chat_template = None  # a pretrained one would write another format than the dialect
        tokenizer.eos_token = tokenizer.eos_token or form.stop_tokens()[0]  # for programs that ask for one
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
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
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "input_features", "feature_lengths"]

    # Pipelines look here for what fills batches of sound up: before it, as ids, which `filled_behind` mends.
    padding_value = float("nan")

    @property
    def image_processor(self) -> WeftProcessor:
        return self

    @property
    def image_token(self) -> str | None:
        """What stands for a picture in a prompt written out; None where the model takes none. ``audio_token`` alike."""
        return self._placeholder("image")

    @property
    def audio_token(self) -> str | None:
        return self._placeholder("audio")

    @property
    def image_token_id(self) -> int | None:
        return self.token_ids["image_token_id"]  # type: ignore[no-any-return]

    @property
    def audio_token_id(self) -> int | None:
        return self.token_ids["audio_token_id"]  # type: ignore[no-any-return]

    def _placeholder(self, modality: Modality) -> str | None:
        taken = self.token_ids[f"{modality}_token_id"] is not None
        return self.dialect.slot_tokens(modality)[0] if taken else None

    def __call__(  # type: ignore[override]
        self, text: str | Sequence[str] | None = None, images: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Prompts written out (as `apply_chat_template` gives them with ``tokenize=False``) and their media in order.

        A placeholder stands for each image and clip. Here, unlike in a conversation, special tokens in the text count
        as what they are. ``images`` and ``audio`` are one item, a list over all prompts, or a list a prompt; arrays of
        sound are taken to be at ``sampling_rate`` (the model's own where not given). Further arguments: `Options`.
        """
        options = Options.of(kwargs, self.__class__.__name__)
        if text is None:
            raise WeftError("the processor needs text=: the prompt with a placeholder for each image and clip")
        prompts = [text] if isinstance(text, str) else list(text)
        pictures, clips = _flat(images), _flat(audio)
        clips = [_at_rate(clip, options.sampling_rate) for clip in clips]
        samples: list[Encoded] = []
        used = {"image": 0, "audio": 0}
        for prompt in prompts:
            pieces = self.renderer.read(prompt)
            count = {m: sum(isinstance(p, Slot) and p.modality == m for p in pieces) for m in used}
            mine = pictures[used["image"] :][: count["image"]], clips[used["audio"] :][: count["audio"]]
            if tuple(map(len, mine)) != tuple(count.values()):
                raise WeftError(
                    f"the text has {count['image']} image and {count['audio']} audio placeholders, and {len(mine[0])} "
                    f"images and {len(mine[1])} clips are left for it"
                )
            samples.append(self.encode_pieces(pieces, *mine))
            for modality in used:
                used[modality] += count[modality]
        for modality, given in (("image", pictures), ("audio", clips)):
            if used[modality] != len(given):
                token = self.dialect.slot_tokens(modality)[0] if modality in self.dialect.modalities else "placeholder"  # type: ignore[arg-type]
                raise WeftError(f"{len(given)} of {modality}= given for {used[modality]} {token} in the text")
        return self._feature(samples, options)

    def _feature(self, samples: list[Encoded], options: Options, masks: bool = False) -> BatchFeature:
        return_tensors = options.return_tensors
        batch = self.collate(samples, options.padding_side)
        batch.pop("labels", None)
        fill = {"input_ids": self.pad_id, "attention_mask": 0}
        if masks:
            mask = [sample.loss_mask.astype(np.int64) for sample in samples]
            batch["assistant_masks"], fill["assistant_masks"] = padded(mask, 0, options.padding_side), 0
        length = batch["input_ids"].shape[1]
        more = options.width(length) - length
        for name, value in fill.items():
            batch[name] = F.pad(batch[name], (more, 0) if options.padding_side == "left" else (0, more), value=value)
        if return_tensors == "pt":
            return BatchFeature(batch)
        arrays = {name: tensor.numpy() for name, tensor in batch.items()}
        if return_tensors == "np":
            return BatchFeature(arrays)
        if return_tensors not in (None, "auto"):
            raise WeftError(f'return_tensors is "pt", "np" or None, not {return_tensors!r}')
        there = arrays["attention_mask"].astype(bool)
        lists: dict[str, Any] = {name: array.tolist() for name, array in arrays.items() if array.ndim <= 2}
        for name in ("input_ids", "attention_mask", *["assistant_masks"] * masks):  # rows need no padding
            lists[name] = [row[keep].tolist() for row, keep in zip(arrays[name], there, strict=True)]
        return BatchFeature({**arrays, **lists})

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_dict: bool = False,
        return_assistant_tokens_mask: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Messages (of text, image, audio, task, box and words parts) rendered by the model's dialect.

        ``tokenize=False`` gives the prompt as text with a placeholder for each image and clip, whose media may be left
        out. A list of conversations gives a batch, padded on the left. Without ``add_generation_prompt`` this is the
        training form; with ``continue_final_message`` it ends where the answer that the conversation ends with does.
        Further arguments: `Options`, also within ``processor_kwargs``.
        """
        options = Options.of(kwargs, "apply_chat_template")
        if chat_template is not None:
            raise WeftError("the dialect writes the prompt here; a chat_template of your own cannot replace it")
        batched = _is_batch(conversation)
        rows = conversation if batched else [conversation]
        conversations = [_typed(row, options.sampling_rate, bare=not tokenize) for row in rows]
        written = [self.pieces(c, generate=add_generation_prompt) for c in conversations]
        if continue_final_message:
            written = [self._unended(pieces, c) for pieces, c in zip(written, conversations, strict=True)]
        if not tokenize:
            texts = [self.renderer.write(pieces) for pieces in written]
            return texts if batched else texts[0]
        samples = [
            self.encode_pieces(pieces, [i.source for i in c.images], [a.source for a in c.audios])
            for pieces, c in zip(written, conversations, strict=True)
        ]
        feature = self._feature(samples, options, masks=return_assistant_tokens_mask)
        if return_dict:
            return feature
        ids = feature["input_ids"]
        return ids if batched or options.return_tensors in ("pt", "np") else ids[0]

    def _unended(self, pieces: list[Piece], conversation: Conversation) -> list[Piece]:
        """The pieces up to the end of the last answer, without what ends it."""
        if conversation.answer is None:
            raise WeftError("continue_final_message goes on with an answer, and the conversation ends with none")
        stops, kept = self.dialect.stop_tokens(), list(pieces)
        while kept and (isinstance(last := kept[-1], Slot) or not last.loss or _stops(last, stops)):
            kept.pop()
        return kept

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


def _stops(piece: Piece, stops: Sequence[str]) -> bool:
    return isinstance(piece, Special) and piece.token in stops


def _typed(messages: Any, rate: int | None = None, bare: bool = False) -> Conversation:
    """``bare``: media may be left out, for only their places are written."""
    if not isinstance(messages, Conversation):
        messages = [_filled(message, rate, bare) for message in messages]
    return parse_messages(messages, probe=image_size)


def _filled(message: Any, rate: int | None, bare: bool) -> Any:
    """A message without keys that hold nothing: tables give every part the keys of all."""
    if not isinstance(message, dict):
        return message
    message = {key: value for key, value in message.items() if value is not None and (key != "tool_calls" or value)}
    if isinstance(message.get("content"), list):
        message["content"] = [_part(part, rate, bare) for part in message["content"]]
    return message


def _part(part: Any, rate: int | None, bare: bool) -> Any:
    if not isinstance(part, dict):
        return part
    task = TASKS.get(str(part.get("task")))  # one of whose fields may be null on purpose
    kept = {key: value for key, value in part.items() if value is not None or (task and key in task.fields)}
    if "audio" in kept and kept.get("type") == "audio":
        kept["audio"] = _at_rate(kept["audio"], rate)
    elif bare and kept.keys() == {"type"}:
        stand_in = {"image": Image.new("RGB", (1, 1)), "audio": np.zeros(1, np.float32)}.get(kept["type"])
        kept |= {} if stand_in is None else {kept["type"]: stand_in}
    return kept


def _at_rate(clip: Any, rate: int | None) -> Any:
    return (clip, rate) if rate is not None and isinstance(clip, np.ndarray | list | torch.Tensor) else clip


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


AutoProcessor.register(WeftConfig, WeftProcessor, exist_ok=True)
