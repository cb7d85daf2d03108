"""What programs of `transformers` ask of weft's classes: prompts written out, chat templates, parts, features.

Weft itself encodes conversations (`encoding`); here they, and their media, come in the ways of those programs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from weft.conversation import Conversation, WeftError, dump_parts, parse_messages
from weft.conversation.tasks import TASKS
from weft.dialects import DialectError, Modality, Piece, Plain, Slot, Special
from weft.media import image_size
from weft.models.encoding import Encoded, padded
from weft.models.rendering import Renderer, joined
from weft.models.senses import Senses

if TYPE_CHECKING:
    from weft.models.processing import WeftProcessor

# Where callers put options that are meant for one part of a processor: here all of it is one part.
NESTED = ("text_kwargs", "images_kwargs", "audio_kwargs", "videos_kwargs", "common_kwargs", "processor_kwargs")
MEDIA = ("pixel_values", "input_features", "feature_lengths")
HARMLESS = {"add_special_tokens", "return_attention_mask", "return_token_type_ids", "return_mm_token_type_ids"}


@dataclass(frozen=True, slots=True)
class CallOptions:
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
    def of(cls, given: dict[str, Any], where: str) -> CallOptions:
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


def encode_prompts(
    processor: WeftProcessor, text: str | Sequence[str] | None, images: Any, audio: Any, more: dict[str, Any]
) -> BatchFeature:
    """`WeftProcessor.__call__`; ``more``: its further arguments."""
    options = CallOptions.of(more, type(processor).__name__)
    if text is None:
        raise WeftError("the processor needs text=: the prompt with a placeholder for each image and clip")
    prompts = [text] if isinstance(text, str) else list(text)
    pictures, clips = _flat(images), _flat(audio)
    clips = [_at_rate(clip, options.sampling_rate) for clip in clips]
    samples: list[Encoded] = []
    used = {"image": 0, "audio": 0}
    for prompt in prompts:
        pieces = read(processor.renderer, prompt)
        count = {m: sum(isinstance(p, Slot) and p.modality == m for p in pieces) for m in used}
        mine = pictures[used["image"] :][: count["image"]], clips[used["audio"] :][: count["audio"]]
        if tuple(map(len, mine)) != tuple(count.values()):
            raise WeftError(
                f"the text has {count['image']} image and {count['audio']} audio placeholders, and {len(mine[0])} "
                f"images and {len(mine[1])} clips are left for it"
            )
        samples.append(processor.encode_pieces(pieces, *mine))
        for modality in used:
            used[modality] += count[modality]
    for modality, given in (("image", pictures), ("audio", clips)):
        if used[modality] != len(given):
            tokens: Any = processor.dialect.slots.get(modality, ("placeholder",))  # type: ignore[call-overload]
            raise WeftError(f"{len(given)} of {modality}= given for {used[modality]} {tokens[0]} in the text")
    return _feature(processor, samples, options)


def _feature(
    processor: WeftProcessor, samples: list[Encoded], options: CallOptions, masks: bool = False
) -> BatchFeature:
    return_tensors = options.return_tensors
    batch = processor.collate(samples, options.padding_side)
    batch.pop("labels", None)
    fill = {"input_ids": processor.pad_id, "attention_mask": 0}
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


def apply_chat_template(
    processor: WeftProcessor,
    conversation: Any,
    chat_template: str | None,
    *,
    tokenize: bool = False,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    return_dict: bool = False,
    return_assistant_tokens_mask: bool = False,
    **kwargs: Any,
) -> Any:
    """`WeftProcessor.apply_chat_template`."""
    options = CallOptions.of(kwargs, "apply_chat_template")
    if chat_template is not None:
        raise WeftError("the dialect writes the prompt here; a chat_template of your own cannot replace it")
    batched = _is_batch(conversation)
    rows = conversation if batched else [conversation]
    conversations = [_typed(row, options.sampling_rate, bare=not tokenize) for row in rows]
    written = [processor.pieces(c, generate=add_generation_prompt) for c in conversations]
    if continue_final_message:
        written = [_unended(processor, pieces, c) for pieces, c in zip(written, conversations, strict=True)]
    if not tokenize:
        texts = [written_out(processor.renderer, pieces) for pieces in written]
        return texts if batched else texts[0]
    samples = [
        processor.encode_pieces(pieces, [i.source for i in c.images], [a.source for a in c.audios])
        for pieces, c in zip(written, conversations, strict=True)
    ]
    feature = _feature(processor, samples, options, masks=return_assistant_tokens_mask)
    if return_dict:
        return feature
    ids = feature["input_ids"]
    return ids if batched or options.return_tensors in ("pt", "np") else ids[0]


def _unended(processor: WeftProcessor, pieces: list[Piece], conversation: Conversation) -> list[Piece]:
    """The pieces up to the end of the last answer, without what ends it."""
    if conversation.answer is None:
        raise WeftError("continue_final_message goes on with an answer, and the conversation ends with none")
    stops, kept = processor.dialect.stop_tokens(), list(pieces)
    while kept and (isinstance(last := kept[-1], Slot) or not last.loss or _stops(last, stops)):
        kept.pop()
    return kept


def parse(processor: WeftProcessor, generated: Any, messages: Any) -> Any:
    """`WeftProcessor.parse`."""
    if _is_batch(messages):
        rows = generated.tolist() if hasattr(generated, "tolist") else list(generated)
        if len(rows) % len(messages):
            raise WeftError(f"{len(rows)} answers for {len(messages)} conversations; give one list for each")
        each = len(rows) // len(messages)  # num_return_sequences
        return [parse(processor, row, messages[i // each]) for i, row in enumerate(rows)]
    conversation = _typed(messages).prompt()
    if isinstance(generated, str):
        return dump_parts(processor.dialect.parse(_unstopped(processor, generated), conversation))
    ids = generated.tolist() if hasattr(generated, "tolist") else list(generated)
    if ids and isinstance(ids[0], list):
        if len(ids) > 1:
            return [parse(processor, row, conversation) for row in ids]
        ids = ids[0]
    return dump_parts(processor.parse_reply(_without_prompt(processor, ids, conversation), conversation)[2])


def _unstopped(processor: WeftProcessor, text: str) -> str:
    for token in processor.dialect.stop_tokens():
        text = text.split(token)[0]
    return text


def _without_prompt(processor: WeftProcessor, ids: list[int], conversation: Conversation) -> list[int]:
    """Generated ids without the prompt and its padding, where they have one."""
    try:
        prompt = processor.render(conversation, generate=True).ids
    except DialectError:
        return ids
    for start in range(len(ids) - len(prompt) + 1):
        if ids[start : start + len(prompt)] == prompt:
            return ids[start + len(prompt) :]
        if ids[start] != processor.pad_id:
            break
    return ids


def written_out(renderer: Renderer, pieces: Sequence[Piece]) -> str:
    """The pieces as text: special tokens by name, one placeholder for each image or clip however long."""
    out = ""
    previous: Piece | None = None
    for piece in joined(pieces):
        if isinstance(piece, Slot):
            token, start, end = renderer.dialect.slot_tokens(piece.modality)
            out += (start or "") + token + (end or "")
        elif isinstance(piece, Special):
            out += piece.token
        else:
            out += (renderer.dialect.apart_text if isinstance(previous, Plain) else "") + piece.text
        previous = piece
    return out


def read(renderer: Renderer, text: str) -> list[Piece]:
    """The pieces of a prompt given as text, in which special tokens and placeholders count as what they are."""
    count: dict[Modality, int] = {"image": 0, "audio": 0}
    slots: dict[str, Modality] = {}
    edges: dict[str, str] = {}  # a start or end that stands alone: the placeholder it belongs to
    for modality in renderer.dialect.modalities:
        token, start, end = renderer.dialect.slot_tokens(modality)
        whole = (start or "") + token + (end or "")
        slots |= {token: modality, whole: modality}
        edges |= {edge: whole for edge in (start, end) if edge is not None}
    added = renderer.tokenizer.added_tokens_decoder.values()
    specials = {str(token) for token in added if token.special} | set(renderer.dialect.special_tokens())
    names = sorted(specials | set(slots), key=len, reverse=True)
    pieces: list[Piece] = []
    end_of_last = 0
    for match in re.finditer("|".join(map(re.escape, names)), text):
        if match.start() > end_of_last:
            pieces.append(Plain(text[end_of_last : match.start()]))
        end_of_last = match.end()
        slot = slots.get(match[0])
        if slot is not None:
            pieces.append(Slot(slot, count[slot]))
            count[slot] += 1
        elif match[0] in edges:
            raise WeftError(f"{match[0]} stands alone in the text; a medium's place is written {edges[match[0]]}")
        else:
            pieces.append(Special(match[0]))
    if text[end_of_last:]:
        pieces.append(Plain(text[end_of_last:]))
    return pieces


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


@can_return_tuple
def image_features(model: Senses, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
    """`WeftForConditionalGeneration.get_image_features`."""
    features_NTD, embedded_NtW = model.image_features(pixel_values)
    return BaseModelOutputWithPooling(last_hidden_state=features_NTD, pooler_output=embedded_NtW.unbind())


@can_return_tuple
def audio_features(
    model: Senses, input_features: torch.Tensor, feature_lengths: torch.Tensor | None = None
) -> BaseModelOutputWithPooling:
    """`WeftForConditionalGeneration.get_audio_features`."""
    features_NTD, embedded_NtW, tokens_N = model.audio_features(input_features, feature_lengths)
    pooled = tuple(row_tW[:n] for row_tW, n in zip(embedded_NtW, tokens_N.tolist(), strict=True))
    return BaseModelOutputWithPooling(last_hidden_state=features_NTD, pooler_output=pooled)


def encoded_once(
    model: Any, expand_size: int, input_ids: torch.Tensor | None, inputs: dict[str, Any]
) -> dict[str, Any]:
    """What `generate` repeats for each row ``expand_size`` times; media of rows that are repeated as embeddings."""
    given = any(inputs.get(name) is not None for name in MEDIA[:2])
    if model.gate is not None and input_ids is not None:
        inputs = inputs | {"adapted": model.gate.after_media(input_ids)}
    if given and input_ids is not None and inputs.get("inputs_embeds") is None:
        inputs = inputs | {MEDIA[1]: filled_behind(*(inputs.get(name) for name in MEDIA[1:]))}
        if expand_size > 1:
            inputs["inputs_embeds"] = model.embed(input_ids, **{name: inputs.pop(name, None) for name in MEDIA})
        inputs.setdefault("prompt_length", input_ids.shape[1])
    return inputs


def embedded(
    model: Senses,
    input_ids: torch.Tensor,
    past: Any,
    prompt_length: int | None,
    *,
    attention_mask: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    is_first_iteration: bool | None,
    **inputs: Any,
) -> dict[str, Any]:
    """What a step of `generate` is prepared from: embeddings in the place of ids and media, where it has media."""
    media = {name: inputs.pop(name, None) for name in MEDIA}
    begins = is_first_iteration or past is None or past.get_seq_length() == 0
    given = begins and any(media[name] is not None for name in MEDIA[:2])
    embed_more = model.get_input_embeddings()
    if given and inputs_embeds is not None:
        inputs |= media  # which `woven` refuses
    elif given:
        prompt_embeds = model.embed(input_ids[:, :prompt_length], **media)
        more_embeds = embed_more(input_ids[:, prompt_embeds.shape[1] :])  # what a draft or earlier steps added
        inputs_embeds, is_first_iteration = torch.cat([prompt_embeds, more_embeds], 1), True
    elif inputs_embeds is not None and not is_first_iteration and past is None:
        # Without a cache every step runs the whole row; transformers would embed the prompt anew, without media.
        length = input_ids.shape[1] if attention_mask is None else attention_mask.shape[1]
        more_embeds = embed_more(input_ids[:, input_ids.shape[1] - (length - inputs_embeds.shape[1]) :])
        inputs_embeds, is_first_iteration = torch.cat([inputs_embeds, more_embeds], 1), True
    known = {"attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
    return {**inputs, **known, "is_first_iteration": is_first_iteration}


def filled_behind(windows: torch.Tensor | None, lengths_N: torch.Tensor | None) -> torch.Tensor | None:
    """Windows of sound [N, T, ...] with zeros behind them in place of what is no number before them.

    Raises WeftError where there are more lengths than windows."""
    if windows is None:
        return None
    if lengths_N is not None and len(lengths_N) > len(windows):
        said = f"{len(lengths_N)} windows of sound have a length, and {len(windows)} are there"
        raise WeftError(f"{said}: a pipeline's batch keeps the first of each chat's; ask one by one (batch_size=1)")
    gaps_N = windows.reshape(*windows.shape[:2], -1)[..., 0].isnan().sum(1).tolist()
    return torch.stack([window.roll(-gap, 0) for window, gap in zip(windows, gaps_N, strict=True)]).nan_to_num(0)
