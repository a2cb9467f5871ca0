"""Tiny random models of five families, each with the chat template and special tokens of its published models.

The templates are those of Llama 3.1 (without its part for tools), Phi-3, Gemma 2, Qwen2 and Mixtral Instruct.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ..engine.families import tiny_config
from ..engine.models import byte_tokenizer, random_model

_LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
_PHI = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}" + _ALTERNATE + "{% if (message['role'] == 'assistant') %}"
    "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' "
    "+ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{'<start_of_turn>model\n'}}{% endif %}"
)
_QWEN = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] "
    "+ '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_MIXTRAL = (
    "{{ bos_token }}{% for message in messages %}" + _ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True, slots=True)
class Family:
    """What is a family's own: its class in transformers, template and special tokens, `turn` those of the template.

    `no_system` is what the template says of a system message; None where it takes one.
    """

    config: str
    template: str
    bos: str | None
    eos: str
    turn: tuple[str, ...]
    no_system: str | None = None


FAMILIES = {
    "llama-3-1": Family(
        "Llama", _LLAMA, "<|begin_of_text|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>")
    ),
    "phi-3": Family("Phi3", _PHI, "<s>", "<|endoftext|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "gemma-2": Family(
        "Gemma2", _GEMMA, "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>"), "System role not supported"
    ),
    "qwen2": Family("Qwen2", _QWEN, None, "<|im_end|>", ("<|im_start|>", "<|endoftext|>")),
    "mixtral": Family("Mixtral", _MIXTRAL, "<s>", "</s>", (), "Only user and assistant roles are supported!|alternate"),
}


def save(family: Family, folder: Path) -> tuple[Any, Any]:
    """Save a model of the family with its tokenizer and template; return both as plain transformers has them.

    Two bytes end a text too: with several end tokens, as these families have, one of them comes now and then.
    """
    special = {"bos_token": family.bos} if family.bos else {}
    tokenizer = byte_tokenizer(eos_token=family.eos, additional_special_tokens=list(family.turn), **special)
    tokenizer.chat_template = family.template
    tokenizer.save_pretrained(folder)
    config = tiny_config(family.config)
    config.update({"vocab_size": len(tokenizer), "max_position_embeddings": 1024, "pad_token_id": None})
    config.update({"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id})
    model = random_model(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(180, 182)]
    model.save_pretrained(folder)
    return model, AutoTokenizer.from_pretrained(folder)
