"""What a model may say with each task."""

from __future__ import annotations

import pytest

from cogsmith.config import load

MODEL = "[models.m]\nsource = 'hf:a/b'\n"

REFUSED = [
    ("quant.bits = 4", "quant", "quant is for models that continue text", "remove it"),
    ("prepack = true", "prepack", "prepack is for models that continue text", "remove it"),
    ("config.load_in_8bit = true", "config.load_in_8bit", "config.load_in_8bit is for models", "remove it"),
    ("limits.max_tokens = 5", "limits.max_tokens", "limits.max_tokens is for models", "remove it"),
    ("limits.kv_cache_bytes = 5000000", "limits.kv_cache_bytes", "limits.kv_cache_bytes is for", "remove it"),
    ("engine = 'vllm'", "engine", "vLLM is here for models that continue text", 'engine = "transformers"'),
    ("format = 'gguf'", "format", "format is gguf, which holds models that continue text", 'task = "decoder"'),
]


@pytest.mark.parametrize(("text", "key", "message", "fix"), REFUSED)
def test_what_an_encoder_cannot_be_told_is_refused(assert_refused, text, key, message, fix):
    assert_refused(f"{MODEL}{text}\ntask = 'encoder'\n", 3, f"models.m.{key}", message, fix)


@pytest.mark.parametrize("task", ["causal-lm", "encoder", "decoder"])
def test_the_task_arrives(write, task):
    text = f"{MODEL}task = '{task}'\nlimits.max_context = 64\nlimits.max_batch_size = 4\nconfig.dtype = 'float32'\n"
    assert load(write(text)).models["m"].task == task


def test_a_decoder_may_come_from_a_gguf_file(write):
    text = "[models.m]\nsource = 'hf:a/b/c.gguf'\nformat = 'gguf'\ntask = 'decoder'\n"
    assert load(write(text)).models["m"].task == "decoder"


def test_no_task_is_for_continuing_text(write):
    assert load(write(MODEL)).models["m"].task == "causal-lm"
