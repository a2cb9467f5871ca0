"""What a model may say with each engine."""

from __future__ import annotations

import pytest

from cogsmith.config import load

MODEL = "[models.m]\nsource = 'hf:a/b'\n"

REFUSED = [
    ("cog.gpu = false", "cog.gpu", "the vLLM of a container runs on GPUs only", "cog.gpu = true"),
    ("cog = {python = '3.10', concurrency = 1}", "cog.python", "vLLM needs Python 3.11", "cog.python = "),
    ("quant.bits = 4", "quant", "quant is for the default engine", "AWQ"),
    ("prepack = false", "prepack", "vLLM lays weights out itself", "remove it"),
    ("config.load_in_8bit = true", "config.load_in_8bit", "an argument of from_pretrained", "dtype"),
    ("config.device_map = 'auto'", "config.device_map", "an argument of from_pretrained", "below vllm"),
    ("vllm.max_num_seqs = 8", "vllm.max_num_seqs", "is said by limits.max_batch_size", "limits.max_batch_size"),
    ("vllm.dtype = 'half'", "vllm.dtype", "'half'", "config.dtype"),
    ("vllm.logprobs_mode = 'raw_logprobs'", "vllm.logprobs_mode", "is set by the engine", "remove it"),
]


@pytest.mark.parametrize(("text", "key", "message", "fix"), REFUSED)
def test_what_vllm_cannot_be_told_is_refused(assert_refused, text, key, message, fix):
    assert_refused(f"{MODEL}{text}\nengine = 'vllm'\n", 3, f"models.m.{key}", message, fix)


def test_options_of_vllm_need_vllm(assert_refused):
    assert_refused(f"{MODEL}vllm.block_size = 32\n", 3, "models.m.vllm", "the engine is another", 'set engine = "vllm"')


def test_options_of_vllm_arrive(write):
    options = "vllm = {tensor_parallel_size = 2, gpu_memory_utilization = 0.8}"
    model = load(write(f"{MODEL}engine = 'vllm'\nconfig.dtype = 'bfloat16'\n{options}\n")).models["m"]
    assert model.engine == "vllm"
    assert model.vllm == {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.8}
