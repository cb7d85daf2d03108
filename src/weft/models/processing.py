"""`WeftProcessor`: what `transformers` expects of a processor, on top of `encoding`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import AddedToken, AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from weft.dialects import Modality, get_dialect
from weft.models import doors
from weft.models.config import AudioSection, DialectSection, VisionSection, WeftConfig
from weft.models.encoding import Encoding
from weft.named import Named

# What programs of `transformers` ask of a processor or a model; weft itself has no use for it.
CLIENTS = Named[Callable[..., Any]](
    {
        "prompts": "weft.models.clients:encode_prompts",
        "messages": "weft.models.clients:apply_chat_template",
        "parse": "weft.models.clients:parse",
        "image_features": "weft.models.clients:image_features",
        "audio_features": "weft.models.clients:audio_features",
        "encoded_once": "weft.models.clients:encoded_once",
        "embedded": "weft.models.clients:embedded",
    }
)


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
        return cls(tokenizer, _as_data(vision=vision, audio=audio, dialect=section))

    def to_dict(self) -> dict[str, Any]:
        config = _as_data(vision=self.vision, audio=self.audio, dialect=self.section)
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
        sound are taken to be at ``sampling_rate`` (the model's own where not given). Further arguments:
        `clients.CallOptions`.
        """
        return CLIENTS["prompts"](self, text, images, audio, kwargs)  # type: ignore[no-any-return]

    def apply_chat_template(self, conversation: Any, chat_template: str | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Messages (of text, image, audio, task, box and words parts) rendered by the model's dialect.

        ``tokenize=False`` gives the prompt as text with a placeholder for each image and clip, whose media may be left
        out. A list of conversations gives a batch, padded on the left. Without ``add_generation_prompt`` this is the
        training form; with ``continue_final_message`` it ends where the answer that the conversation ends with does.
        Further arguments: `clients.CallOptions`, also within ``processor_kwargs``.
        """
        return CLIENTS["messages"](self, conversation, chat_template, **kwargs)

    def parse(self, generated: Any, messages: Any) -> Any:
        """Parts of an answer as data: boxes in fractions, words in seconds, the rest as text.

        ``generated``: ids as `generate` gives them (with or without the prompt) or text decoded with its special tokens
        kept. ``messages``: what was asked. A batch (a list of texts, or ids of several rows, with a list of
        conversations) gives a list.
        """
        return CLIENTS["parse"](self, generated, messages)


def _as_data(**sections: Any) -> dict[str, Any]:
    """Sections as JSON holds them, without those that are None."""
    return {name: section.model_dump(mode="json") for name, section in sections.items() if section is not None}


def _begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and bool(ids) and ids[0] == tokenizer.bos_token_id


AutoProcessor.register(WeftConfig, WeftProcessor, exist_ok=True)
