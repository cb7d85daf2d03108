"""What a run does only where its recipe, or whoever starts it, asks for it: modules, each imported then."""

from __future__ import annotations

from typing import Any

from weft.named import Named

ASKED = Named[Any](
    {
        "compile": "weft.training.compiled:Compiled",  # layers through torch.compile
        "marks": "weft.training.marks:marks",  # buffers that note what was taught, which weights do not tell
        "minutes": "weft.training.pace:pace_of",  # a stage that lasts so long, in place of so many updates
        "shard": "weft.training.sharding:Shared",  # a model whose weights ranks share out,
        "tensor": "weft.training.tensor_parallel:Together",  # and layers that some of them compute together;
        "shard_files": "weft.training.shard_files",  # its files
        "switched": "weft.training.switched:switched",  # a base's dialect, in parts
        "bits": "weft.training.bits",  # a language model in 4 or 8 bits
        "trace": "weft.training.meters",  # a profile of some updates
        "rows": "weft.models.table_rows:look_up",  # LoRA with rows of a table beside it, and media with places
        "kept": "weft.training.kept:Kept",  # bfloat16, in which frozen weights are cast once
        "gated": "weft.training.gated",  # LoRA for media alone, which no stage merges
        "adapter": "weft.training.export_adapter",  # an adapter in place of the model
    }
)
