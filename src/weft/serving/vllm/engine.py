"""vLLM behind the server: weft's renderer writes the prompt, vLLM batches, pages, caches and shards.

vLLM is handed ids with one slot a medium and the media themselves, decoded by weft; the plugin (`model`) widens slots.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from weft.conversation import Conversation, WeftError
from weft.formats.adapters import merge
from weft.generation import Options
from weft.generation.answer import Answer
from weft.generation.batch import Token
from weft.generation.configuration import load_config
from weft.generation.loading import load_processor
from weft.generation.prompts import Prompts
from weft.generation.spoken import Written
from weft.generation.until import Until
from weft.generation.windows import WindowPrompt
from weft.models import doors
from weft.models.adapters import adapter_base
from weft.models.encoding import Encoded
from weft.serving.engine import EngineError, Prompt

WEFTS_OWN = {"model", "tokenizer", "trust_remote_code", "skip_tokenizer_init", "hf_config_path"}


@dataclass(frozen=True, slots=True)
class Handed(Prompt):
    """``request``: the prompt in vLLM's own form."""

    request: dict[str, Any]


class VllmEngine:
    """A weft folder, or a hub name of one, in vLLM. An adapter is served merged with its base.

    ``arguments``: fields of vLLM's ``AsyncEngineArgs``, such as ``{"tensor_parallel_size": 2}``. ``switches``: changes
    to those of the model's dialect. Raises `WeftError` where vLLM cannot serve the model.
    """

    def __init__(
        self,
        name: str,
        dtype: str | None = None,
        most: int = 16,
        arguments: Mapping[str, Any] | None = None,
        switches: Mapping[str, Any] | None = None,
    ) -> None:
        given = dict(arguments or {})
        if taken := sorted(WEFTS_OWN & set(given)):
            raise WeftError(f"--vllm {taken[0]}: that is weft's to say; leave it out")
        if doors.resolve(name) == "built-in":
            raise WeftError(f"{name} is composed anew and has no folder, and vLLM serves folders; save a model first")
        place = doors.place(name)
        self.processor = load_processor(place)
        if switches:
            self.processor = self.processor.with_switches(**switches)
        self._kept = ExitStack()
        if adapter_base(place)[1]:
            folder = Path(self._kept.enter_context(TemporaryDirectory(prefix="weft-merged-"))) / "model"
            merge(place, folder, dtype or "auto")
            place = str(folder)
        config = load_config(place)
        settings = {"dtype": dtype or "auto", "max_num_seqs": most, "disable_log_stats": True, "log_level": "WARNING"}
        if (longest := getattr(config.text_config, "seq_length", None)) is not None:  # Qwen-7B's, see `model`
            settings["max_model_len"] = longest
        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=place, **(settings | given)))
        except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
            self._kept.close()
            said = " ".join(str(error).split())
            raise WeftError(f"vLLM cannot serve {name}: {said[:300] or type(error).__name__}") from error
        sound = config.audio_section
        self._alone = sound is not None and sound.last_clip_only
        held = self._llm.model_config
        ends = held.try_get_generation_config().get("eos_token_id")
        self._prompts = Prompts(config, self.processor, ends, held.max_model_len)
        self.written: Written | None = self._prompts.written
        self._under_way: set[str] = set()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def alive(self) -> bool:
        return not self._llm.errored

    def start(self) -> None:
        """It runs already, in processes of vLLM's own; what it says is heard once something is asked."""

    def stop(self) -> None:
        self._llm.shutdown()
        self._kept.close()

    def windows(self, conversation: Conversation) -> list[WindowPrompt] | None:
        return self._prompts.windows(conversation)

    def prepare(self, conversation: Conversation) -> Handed:
        self._prompts.check_asked(conversation)
        rendered = self.processor.render(conversation, generate=True)
        ids, loss = np.asarray(rendered.ids, dtype=np.int64), np.asarray(rendered.loss, dtype=bool)
        encoded = self._prompts.fits(Encoded(ids, loss, spans=rendered.spans), conversation, 1)
        self._check_media(encoded)
        media = {"image": [i.source for i in conversation.images], "audio": [a.source for a in conversation.audios]}
        slots = {(modality, i): [1] for modality, items in media.items() for i in range(len(items))}
        pieces = self.processor.pieces(conversation, generate=True)
        request: dict[str, Any] = {"prompt_token_ids": self.processor.renderer.render(pieces, slots).ids}
        if conversation.images or conversation.audios:
            request["multi_modal_data"] = {modality: items for modality, items in media.items() if items}
        return Handed(conversation, encoded, self._prompts.room(encoded, 1 << 30), request)

    def _check_media(self, encoded: Encoded) -> None:
        """What vLLM would refuse in the middle of an answer, or answer otherwise than weft does."""
        clips = [span for span in encoded.spans if span.modality == "audio"]
        if self._alone and len(clips) > 1:
            raise WeftError(
                "this model splices a conversation's last window of sound alone, which --engine vllm does not"
            )
        sizes: Counter[tuple[str, int]] = Counter()
        for span in encoded.spans:
            sizes[span.modality, span.item] += span.length
        most = self._llm.vllm_config.scheduler_config.encoder_cache_size
        for (modality, item), size in sizes.items():
            if size > most:
                raise WeftError(
                    f"{modality} {item + 1} takes {size:,} tokens and vLLM encodes at most {most:,} at once; make it "
                    f"smaller, or start the server with a larger --vllm max_num_batched_tokens"
                )

    def answer(self, prompt: Prompt, until: Sequence[str]) -> Answer:
        return self._prompts.answer(prompt.conversation, prompt.encoded, partial(Until, until))

    def submit(self, prompt: Prompt, options: Options, top: int | None) -> VllmGeneration:
        assert isinstance(prompt, Handed)
        params = SamplingParams(
            max_tokens=min(options.max_new_tokens, prompt.room),
            temperature=options.temperature if options.do_sample else 0.0,
            top_p=options.top_p,
            top_k=options.top_k,
            repetition_penalty=options.repetition_penalty,
            seed=options.seed,
            logprobs=top,
            stop_token_ids=sorted(self._prompts.stop),
            ignore_eos=True,  # the list above has it, where the model has one
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        return VllmGeneration(self, prompt.request, params)

    def counts(self) -> dict[str, int]:
        """Answers under way, those that wait included: vLLM keeps its queue and its caches to itself."""
        return {"rows_running": len(self._under_way)}

    async def generate(self, request: dict[str, Any], params: Any, name: str) -> AsyncIterator[list[Token]]:
        """The tokens of one answer, which is called ``name``; raises `EngineError`."""
        self._under_way.add(name)
        try:
            async for output in self._llm.generate(request, params, name):
                made = output.outputs[0]
                rows = made.logprobs or [None] * len(made.token_ids)
                yield [_token(i, row, params.logprobs) for i, row in zip(made.token_ids, rows, strict=True)]
        except Exception as error:  # the process of the engine is gone, or it refuses what it is given
            raise EngineError from error
        finally:
            self._under_way.discard(name)

    def abort(self, name: str) -> None:
        if name in self._under_way:
            task = asyncio.get_running_loop().create_task(self._llm.abort(name))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


class VllmGeneration:
    def __init__(self, engine: VllmEngine, request: dict[str, Any], params: Any) -> None:
        self._engine, self._request, self._params, self._name = engine, request, params, uuid.uuid4().hex

    def __aiter__(self) -> AsyncIterator[list[Token]]:
        return self._engine.generate(self._request, self._params, self._name)

    def cancel(self) -> None:
        self._engine.abort(self._name)


def _token(token: int, row: Mapping[int, Any] | None, top: int | None) -> Token:
    if row is None:
        return Token(token)
    likeliest = sorted(
        ((i, found.logprob) for i, found in row.items() if found.rank <= (top or 0)), key=lambda p: -p[1]
    )
    return Token(token, row[token].logprob, tuple(likeliest))
