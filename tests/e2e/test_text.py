"""Text predictions through the real Cog runtime, with a template that is packaged with the model."""

import base64
import io
import json

import numpy
import pytest
import torch
from safetensors import safe_open

from cogsmith import config
from cogsmith.client.cog_server import Prediction
from cogsmith.errors import ClientError
from cogsmith.gateway import cog_process
from cogsmith.prompts import templates
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


def greedy(model, text):
    return byte_tokenizer().decode(greedy_ids(model, byte_tokenizer()(text).input_ids, NEW))


@torch.no_grad()
def greedy_ids(model, ids, count):
    made = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False, pad_token_id=0)
    return made[0, len(ids) :].tolist()


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
    assert ask(prompt="Do X.", template="none", generator="greedy", temperature=2.0) == plain
    lines = [json.loads(line) for line in ask(**inputs, stream="cumulative").splitlines()]
    assert lines[-1] == {"text": plain, "end_of_content": True}
    assert ask(**inputs, choices=["yes", "no"]) in ("yes", "no")
    assert ask(**inputs, pad_token_id=3, use_cache=False, max_gen_len=5) == ask(**inputs, max_new_tokens=5)
    chat = templates.find("default").render([{"role": "user", "content": "Do X."}])
    assert ask(qas='[["Do X.", null]]', template="default", stop=[]) == greedy(model, chat)


@torch.no_grad()
def test_a_seed_is_transformers_own(served, ask):
    model, _ = served
    ids = torch.tensor([byte_tokenizer()("Do X.").input_ids])
    torch.manual_seed(42)
    settings = {"max_new_tokens": NEW, "do_sample": True, "temperature": 1.0, "top_k": 50, "pad_token_id": 0}
    expected = byte_tokenizer().decode(model.generate(ids, **settings)[0, ids.shape[1] :])
    assert ask(prompt="Do X.", template="none", temperature=1.0, top_k=50, seed=42, stop=[]) == expected


def file_of(data_uri):
    return base64.b64decode(data_uri.partition(",")[2])


@torch.no_grad()
def test_logits_are_plain_transformers(served, ask):
    model, _ = served
    for wanted, first in (("last", 4), ("all", 0)):
        answer = json.loads(ask(prompt="Do X.", template="none", max_new_tokens=7, return_logits=wanted))
        assert answer["text"] == greedy(model, "Do X.")[: len(answer["text"])]
        with numpy.load(io.BytesIO(file_of(answer["npz"]))) as file:
            arrays = dict(file)
        ids = [*answer["prompt_ids"], *answer["token_ids"]]
        assert [*arrays["prompt_ids"], *arrays["token_ids"]] == ids
        assert (len(answer["prompt_ids"]), len(answer["token_ids"])) == (5, 7)
        assert answer["shapes"]["logits"] == list(arrays["logits"].shape)
        expected = model(torch.tensor([ids[:-1]])).logits[0, first:]
        torch.testing.assert_close(torch.from_numpy(arrays["logits"]), expected, atol=1e-4, rtol=0)


def test_a_prediction_goes_on_from_anothers_cache(served, ask, tmp_path):
    model, url = served
    inputs = {"template": "none", "max_new_tokens": NEW}
    begun = json.loads(ask(prompt="Do X.", template="none", max_new_tokens=6, return_cache=True))
    assert begun["text"] == greedy(model, "Do X.")[: len(begun["text"])]
    (tmp_path / "cache").write_bytes(file_of(begun["cache"]))
    with safe_open(tmp_path / "cache", "pt") as file:
        assert file.get_tensor("token_ids").tolist() == begun["prompt_ids"] + begun["token_ids"]
        expected = model(torch.tensor([begun["prompt_ids"] + begun["token_ids"][:-1]])).past_key_values
        for index, layer in enumerate(expected.layers):
            keys = file.get_tensor(f"layers.{index}.keys")
            torch.testing.assert_close(keys, layer.keys[0], atol=1e-4, rtol=0)
    asked = Prediction(url, {"prompt": "Do X. And more", "cache": begun["cache"], **inputs})
    assert "".join(asked.chunks()) == greedy(model, "Do X. And more")
    # Of the cache's text, "Do X." and what came after it, the prompt begins with the first.
    assert asked.metrics["cached_token_count"] >= 5
    asked = Prediction(url, {"cache": begun["cache"], "return_logits": "last", **inputs})
    went_on = json.loads("".join(asked.chunks()))
    assert went_on["prompt_ids"] == begun["prompt_ids"] + begun["token_ids"]
    assert went_on["cached_tokens"] == asked.metrics["cached_token_count"] == len(went_on["prompt_ids"]) - 1
    whole = greedy_ids(model, begun["prompt_ids"], 6 + NEW)
    assert begun["token_ids"] + went_on["token_ids"] == whole


def test_files_come_for_each_of_several_prompts(served, ask):
    model, _ = served
    answers = json.loads(ask(prompts=["a", "Do X."], template="none", return_logits="last"))
    assert [answer["text"] for answer in answers] == [greedy(model, "a"), greedy(model, "Do X.")]
    assert [answer["shapes"]["logits"] for answer in answers] == [[NEW, 256]] * 2


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"prompt": "a", "cache": "data:application/octet-stream;base64,AAAA"}, "the cache cannot be read"),
        ({"prompt": "a" * 900, "return_logits": "all", "max_new_tokens": 70000}, "more than 16777216"),
        ({"prompt": "a", "template": "alpacca"}, "template"),
        ({"prompt": "a", "top_p": 2}, "top_p"),
        ({"prompt": "a", "top_p": -0.1}, "top_p"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        ({"prompt": "a", "generator": "beam"}, "generator"),
        ({"prompt": "a", "stop": [""]}, "empty"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "refuses these messages"),
    ],
)
def test_what_is_wrong_is_named(ask, inputs, named):
    with pytest.raises(ClientError, match=named):
        ask(**inputs)
