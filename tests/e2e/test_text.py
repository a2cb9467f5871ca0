"""Text predictions through the real Cog runtime, with a template that is packaged with the model."""

import json

import pytest
import torch

from cogsmith import config
from cogsmith.client.cog_server import Prediction
from cogsmith.errors import ClientError
from cogsmith.gateway import cog_process
from cogsmith.sources.silent import Silent
from cogsmith.workdir.build import build

from ..engine.models import byte_tokenizer, tiny_llama

pytestmark = pytest.mark.slow

CONFIG = """
[models.tiny]
source = "./checkpoint"
cog.gpu = false
prompt.template = "alpaca"
prompt.stop = ["~~~"]
"""
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Response:"
)
NEW = 24


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    model = tiny_llama(vocab_size=256, max_position_embeddings=1024)
    model.save_pretrained(root / "checkpoint")
    byte_tokenizer().save_pretrained(root / "checkpoint")
    (root / "config.toml").write_text(CONFIG)
    (built,) = build(config.load(root / "config.toml"), reporter=Silent(), cache=root / "cache")
    with cog_process.running(built.folder) as server:
        yield model, server.url


@pytest.fixture
def ask(served):
    def ask(**inputs):
        return "".join(Prediction(served[1], {"max_new_tokens": NEW, **inputs}).chunks())

    return ask


@torch.no_grad()
def greedy(model, text):
    ids = byte_tokenizer()(text, return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=NEW, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    return byte_tokenizer().decode(made)


def test_the_packaged_template_is_the_default(served, ask):
    model, _ = served
    assert ask(instruction="Do X.") == greedy(model, ALPACA.format("Do X."))
    assert ask(prompt="Do X.") == greedy(model, ALPACA.format("Do X."))
    assert ask(prompt="Do X.", template="none") == greedy(model, "Do X.")
    assert ask(instruction="Do X.", template="none", return_prompt=True) == "Do X." + greedy(model, "Do X.")


def test_every_kind_of_input_passes_the_runtime(served, ask):
    model, _ = served
    plain = greedy(model, "Do X.")
    stop = plain[4:7]
    inputs = {"prompt": "Do X.", "template": "none", "do_sample": False, "temperature": 2.0}
    assert ask(**inputs, stop=[stop]) == plain[: plain.index(stop)]
    assert ask(**inputs, stop=[], masked_tokens=[], logit_bias={}) == plain
    assert json.loads(ask(prompts=["a", "Do X."], template="none")) == [greedy(model, "a"), plain]
    lines = [json.loads(line) for line in ask(**inputs, stream="cumulative").splitlines()]
    assert lines[-1] == {"text": plain, "end_of_content": True}
    assert ask(**inputs, choices=["yes", "no"]) in ("yes", "no")


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"prompt": "a", "template": "alpacca"}, "template"),
        ({"prompt": "a", "top_p": 2}, "top_p"),
        ({"prompt": "a", "stop": [""]}, "empty"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "refuses these messages"),
    ],
)
def test_what_is_wrong_is_named(ask, inputs, named):
    with pytest.raises(ClientError, match=named):
        ask(**inputs)
