"""`WeftProcessor`: what `transformers` expects of a processor, on top of `encoding`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from transformers import AddedToken, AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from weft.conversation import Conversation, WeftError, dump_parts, parse_messages
from weft.dialects import DialectError, Modality, Slot, get_dialect
from weft.media import image_size
from weft.models import doors, templates
from weft.models.config import AudioSection, DialectSection, VisionSection, WeftConfig
from weft.models.encoding import Encoded, Encoding, padded


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
        senses: dict[Modality, Any] = {"image": vision, "audio": audio}
        wanted = form.all_tokens(*(modality for modality, tower in senses.items() if tower is not None))
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
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "input_features", "feature_lengths"]

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
        return self._feature(samples, return_tensors, padding_side)

    def _feature(
        self,
        samples: list[Encoded],
        return_tensors: str | None,
        padding_side: Literal["right", "left"],
        masks: bool = False,
    ) -> BatchFeature:
        batch = self.collate(samples, padding_side)
        batch.pop("labels", None)
        if masks:
            batch["assistant_masks"] = padded([s.loss_mask.astype(np.int64) for s in samples], 0, padding_side)
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
        return_dict: bool = False,
        return_tensors: str | None = None,
        return_assistant_tokens_mask: bool = False,
        padding_side: Literal["right", "left"] = "left",
        **unused: Any,
    ) -> Any:
        """Messages (of text, image, audio, task, box and words parts) rendered by the model's dialect.

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
        feature = self._feature(samples, return_tensors, padding_side, masks=return_assistant_tokens_mask)
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


AutoProcessor.register(WeftConfig, WeftProcessor, exist_ok=True)
