"""The published evaluations by name: how each is asked, how far it may answer, what scores it, and where that stands.

An entry (``benchmarks.toml``) says how a question becomes a message (the dialect of the system writes it out: that the
result is the published prompt is a test), not where the data are. ``get_benchmark("okvqa").messages("7.jpg",
question="...")`` is ready for ``weft.load(...).chat``, ``.options()`` are its decoding options, ``.metric`` is one of
``weft score``; `benchmarking` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from string import Formatter
from typing import Any, Literal

from weft.conversation import WeftError
from weft.evaluation.families import Family, get_family
from weft.named import beside


@dataclass(frozen=True)
class Benchmark:
    """One published evaluation.

    ``text``: the words of the question, with ``{fields}`` of a sample; empty where the task says all. ``figure``: the
    one of ``metric``'s that the system published. ``published``: that figure for the system's own 7B model, in its own
    unit, by split; ``doubt`` says where copies of the paper disagree or a set is closed.
    """

    name: str
    title: str
    system: Literal["minigpt_v2", "qwen_audio"]
    media: Literal["image", "audio"]
    metric: str
    figure: str
    max_new_tokens: int
    source: str
    task: str = ""
    task_fields: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    choices: bool = False  # the answer is chosen among those that a sample brings, by its likelihood
    doubt: str = ""
    raw: bool = False  # the script reads an answer as it was generated
    switches: Mapping[str, Any] = field(default_factory=dict)  # of the dialect, which writes expected answers

    @property
    def family(self) -> Family:
        return get_family(self.metric)

    @property
    def fields(self) -> tuple[str, ...]:
        """What a sample brings besides its picture or clip."""
        return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.text) if name))

    def messages(self, media: Any, **fields: str) -> list[dict[str, Any]]:
        """The request, as `weft.conversation.parse_messages` takes it."""
        if set(fields) != set(self.fields):
            wanted = ", ".join(self.fields) or "nothing"
            raise WeftError(
                f"{self.name} asks with {wanted} besides its {self.media}, not {', '.join(fields) or 'nothing'}"
            )
        content: list[dict[str, Any]] = [{"type": self.media, self.media: media}]
        if self.task:
            content.append({"type": "task", "task": self.task, **self.task_fields})
        if self.text:
            content.append({"type": "text", "text": self.text.format(**fields)})
        return [{"role": "user", "content": content}]

    def options(self) -> dict[str, Any]:
        """Decoding as published: greedy, so many new tokens. Keywords of `weft.generation.Options`."""
        return {"max_new_tokens": self.max_new_tokens, "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}


def get_benchmark(name: str) -> Benchmark:
    found = BENCHMARKS.get(name.lower().replace("-", "_"))
    if found is None:
        near = get_close_matches(name.lower(), BENCHMARKS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(BENCHMARKS)}"
        raise WeftError(f"there is no benchmark {name!r}; {hint}")
    return found


_TABLE = beside(__file__)


def _entry(name: str) -> dict[str, Any]:
    own = dict(_TABLE[name])
    return (_entry(own.pop("like")) if "like" in own else {}) | own


BENCHMARKS = {name: Benchmark(name, **_entry(name)) for name in _TABLE if not name.startswith("_")}
