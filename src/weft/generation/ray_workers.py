"""Processes that answer together, started and fed by Ray Data: on the machines of a cluster, or on this one.

As `workers.Workers`, which needs nothing but this machine; the extra ``scale`` brings Ray. One process reads the
conversations and gets all replies, so what it writes, and how it goes on after a kill, is as with one.
Files of media lie where every machine reads them.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from weft.conversation import WeftError
from weft.generation.engine import CHUNK_BATCHES, Asked, Model
from weft.generation.identity import identity
from weft.generation.reply import Options, Reply
from weft.generation.workers import Load, Workers, sendable


class RayWorkers(Workers):
    """``count`` actors of Ray Data with a model each. ``load`` as for `Workers`; on a GPU each where Ray has any."""

    def __init__(self, load: Load, count: int, device: str | None = None) -> None:
        try:
            import ray
            import ray.data
        except ImportError:
            raise WeftError('Ray is not installed: pip install "weftlm[scale]"') from None
        self.load, self.count, self.given, self.ray = load, count, device, ray

    def __enter__(self) -> RayWorkers:
        if not self.ray.is_initialized():
            self.ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
        self.ray.data.DataContext.get_current().enable_progress_bars = False
        self.gpus = int(self.given is None and self.ray.cluster_resources().get("GPU", 0) >= self.count)
        facts = self.ray.remote(num_gpus=self.gpus)(_facts).remote(self.load, self.given)
        found = self.ray.get(facts)
        if isinstance(found, WeftError):
            self.close()
            raise found
        self.identity, self.processor, self.dtype, self.device, self.name = pickle.loads(found)
        return self

    def close(self) -> None:
        self.ray.shutdown()

    def replies(
        self, conversations: Iterable[Asked | WeftError], options: Options | None = None, *, batch_size: int = 16
    ) -> Iterator[tuple[int, Reply | WeftError]]:
        """As `Model.replies`: ``(index, reply)`` as answers are made, in no order."""
        rows = [{"row": pickle.dumps(one)} for one in sendable(list(enumerate(conversations)))]
        if not rows:
            return
        size = max(1, min(batch_size * CHUNK_BATCHES, -(-len(rows) // self.count)))
        answered = self.ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
            _Answers,
            batch_size=size,
            fn_constructor_args=(self.load, self.given, options, batch_size),
            compute=self.ray.data.ActorPoolStrategy(size=self.count),
            num_gpus=self.gpus,
        )
        for row in answered.iter_rows():
            yield pickle.loads(row["row"])

    def score(self, messages: Asked) -> float:
        raise WeftError("Ray makes answers and scores none: leave --ray out of benchmarks that choose among answers")


def _facts(load: Load, device: str | None) -> Any:
    try:
        model = load(device)
    except WeftError as error:
        return error
    return pickle.dumps((identity(model), model.processor, model.dtype, str(model.device), model.name))


class _Answers:
    """What an actor is: rows of requests to rows of replies."""

    def __init__(self, load: Load, device: str | None, options: Options | None, batch_size: int) -> None:
        self.model: Model = load(device)
        self.options, self.batch_size = options, batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        numbered = [pickle.loads(row) for row in batch["row"]]
        replies = self.model.replies([one for _, one in numbered], self.options, batch_size=self.batch_size)
        return {"row": [pickle.dumps((numbered[k][0], reply)) for k, reply in replies]}
