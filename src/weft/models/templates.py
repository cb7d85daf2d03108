"""The chat template with which programs without weft render prompts (plain ``vllm serve``, `transformers` pipelines).

Written from the dialect's own table of wordings, so the two cannot drift apart. It covers what such programs send:
text, images, clips and tasks. It has no protection against special tokens in a user's text; the renderer has.
"""

from __future__ import annotations

import json

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
    slots = {}
    for modality in ("image", "audio"):
        token, start, end = dialect.slot_tokens(modality)  # type: ignore[arg-type]
        slots[modality] = f"{start}{token}{end}"
    return _TEMPLATE.format(
        begin=begin,
        wordings=json.dumps(WORDINGS, ensure_ascii=False),
        languages=json.dumps(LANGUAGES, ensure_ascii=False),
        slots=json.dumps(slots),
        usual=json.dumps(dialect.switches.language or ""),
    )


_TEMPLATE = """\
{{%- set wordings = {wordings} -%}}
{{%- set languages = {languages} -%}}
{{%- set slots = {slots} -%}}
{{%- set usual = {usual} -%}}
{{{{- {begin} -}}}}
{{%- for message in messages -%}}
  {{{{- '<|im_start|>' ~ message.role ~ '\\n' -}}}}
  {{%- if message.content is string -%}}
    {{{{- message.content -}}}}
  {{%- else -%}}
    {{%- set ns = namespace(task=none, text=false, wording='', begun=false) -%}}
    {{%- for part in message.content -%}}
      {{%- if part.type == 'task' -%}}{{%- set ns.task = part -%}}
      {{%- elif part.type == 'text' -%}}{{%- set ns.text = true -%}}{{%- endif -%}}
    {{%- endfor -%}}
    {{%- if ns.task is not none -%}}
      {{%- set tongue = ns.task.language if ns.task.language is defined else usual -%}}
      {{%- set spoken = languages.get(tongue, tongue) if tongue else '' -%}}
      {{%- set written = languages.get(ns.task.language, ns.task.language) if ns.task.language else '' -%}}
      {{%- set to = languages.get(ns.task.to, ns.task.to) if ns.task.to else '' -%}}
      {{%- set itn = '' -%}}
      {{%- if ns.task.itn is defined and ns.task.itn is not none -%}}
        {{%- set itn = ', numbers in digits' if ns.task.itn else ', numbers in words' -%}}
      {{%- endif -%}}
      {{%- set ns.wording = wordings[ns.task.task][1 if ns.text else 0]
          .replace('{{language}}', ' in ' ~ written if written else '')
          .replace('{{spoken}}', ' ' ~ spoken if spoken else '')
          .replace('{{to}}', ' into ' ~ to if to else '').replace('{{itn}}', itn)
          .replace('{{times}}', ' with times' if ns.task.timestamps else '') -%}}
      {{%- if ns.task.style -%}}{{%- set ns.wording = ns.wording ~ ' Style: ' ~ ns.task.style ~ '.' -%}}{{%- endif -%}}
    {{%- endif -%}}
    {{%- for part in message.content -%}}
      {{%- if part.type in ('image', 'image_url') -%}}
        {{{{- slots['image'] -}}}}
      {{%- elif part.type in ('audio', 'audio_url', 'input_audio') -%}}
        {{{{- slots['audio'] -}}}}
      {{%- elif part.type == 'text' -%}}
        {{%- if not ns.begun and ns.task is not none -%}}{{{{- ns.wording.split('{{text}}')[0] -}}}}{{%- endif -%}}
        {{%- set ns.begun = true -%}}
        {{{{- part.text -}}}}
      {{%- elif part.type != 'task' -%}}
        {{{{- raise_exception('only text, image, audio and task parts can be rendered without weft') -}}}}
      {{%- endif -%}}
    {{%- endfor -%}}
    {{%- if ns.task is not none -%}}
      {{{{- ns.wording.split('{{text}}')[1] if ns.text else ns.wording -}}}}
    {{%- endif -%}}
  {{%- endif -%}}
  {{{{- '<|im_end|>\\n' -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{- '<|im_start|>assistant\\n' -}}}}{{%- endif -%}}
"""
