"""The chat template with which programs without weft render prompts (plain ``vllm serve``, `transformers` pipelines).

Written from the dialect's own table of wordings, so the two cannot drift apart. It covers what such programs send:
text, images, clips and tasks. It has no protection against special tokens in a user's text; the renderer has.
"""

from __future__ import annotations

import json
from pathlib import Path

from weft.dialects import Dialect
from weft.dialects.chatml import WORDINGS, ChatML
from weft.dialects.turns import LANGUAGES


def chat_template(dialect: Dialect) -> str | None:
    """A Jinja template that writes what ``dialect`` writes; None for dialects that plain servers are not promised."""
    if not isinstance(dialect, ChatML):
        return None
    begin = json.dumps(dialect.switches.bos or "")
    if dialect.switches.system is not None:
        turn = json.dumps(f"<|im_start|>system\n{dialect.switches.system}<|im_end|>\n", ensure_ascii=False)
        begin += f" ~ ('' if messages and messages[0].role == 'system' else {turn})"
    tokens = {m: dialect.slot_tokens(m) for m in dialect.slots}
    tables = {
        "wordings": WORDINGS,
        "languages": LANGUAGES,
        "slots": {m: f"{start}{token}{end}" for m, (token, start, end) in tokens.items()},
        "usual": dialect.switches.language or "",
    }
    head = [f"{{%- set {name} = {json.dumps(table, ensure_ascii=False)} -%}}" for name, table in tables.items()]
    body = Path(__file__).with_name("chatml.jinja").read_text(encoding="utf-8")
    return "\n".join([*head, f"{{%- set begin = {begin} -%}}", body])
