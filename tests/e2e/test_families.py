"""Five families of chat models through the build and the real Cog runtime, against plain transformers' generate."""

from __future__ import annotations

import itertools
import json

import numpy
import pytest
import torch

from cogsmith import config, lmtp
from cogsmith.client.cog_server import Prediction
from cogsmith.errors import ClientError
from cogsmith.gateway import cog_process
from cogsmith.sources.silent import Silent
from cogsmith.workdir.build import build

from ..engine import encoders
from ..engine.models import byte_tokenizer, plain_logprobs
from .chat_models import FAMILIES, save
from .lmtp_inputs import replies

pytestmark = pytest.mark.slow

CONFIG = """
[models.{name}]
source = "./checkpoint"
cog.gpu = false
"""
NEW = 24
CLOSE = 1e-5
USER = {"role": "user", "content": " Why is the sky blue?\n"}
CHATS = [
    [USER],
    [USER, {"role": "assistant", "content": "It is not."}, {"role": "user", "content": "Grüße! <b> & 日本"}],
]
SYSTEM = {"role": "system", "content": "You are kind. "}


@pytest.fixture(scope="module", params=FAMILIES)
def served(request, tmp_path_factory):
    """The family, the plain model with its tokenizer, and the URL of a Cog server over what was built of them."""
    root = tmp_path_factory.mktemp("family")
    family = FAMILIES[request.param]
    model, tokenizer = save(family, root / "checkpoint")
    (root / "config.toml").write_text(CONFIG.format(name=request.param))
    (built,) = build(config.load(root / "config.toml"), reporter=Silent(), cache=root / "cache")
    with cog_process.running(built.folder) as server:
        yield family, model, tokenizer, server.url


def ask(url, **inputs):
    return "".join(Prediction(url, {"max_new_tokens": NEW, **inputs}).chunks())


@torch.no_grad()
def generated(model, tokenizer, messages, *, add_generation_prompt=True):
    """Plain transformers' ids of the prompt, and of the answer with the token that ended it."""
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, return_tensors="pt", return_dict=True
    )
    made = model.generate(**prompt, max_new_tokens=NEW, do_sample=False, pad_token_id=0)[0].tolist()
    length = prompt["input_ids"].shape[1]
    return made[:length], made[length:]


def shown(tokenizer, ids, ends=()):
    """The text without special tokens, nor one that ended it."""
    return tokenizer.decode([id_ for id_ in ids if id_ not in ends], skip_special_tokens=True)


def test_a_family_s_answers_are_plain_transformers(served):
    family, model, tokenizer, url = served
    ends = model.generation_config.eos_token_id
    for messages in CHATS if family.no_system else [*CHATS, [SYSTEM, *CHATS[1]]]:
        _, made = generated(model, tokenizer, messages)
        assert ask(url, messages=messages) == shown(tokenizer, made, ends)
    prompt, made = generated(model, tokenizer, CHATS[0])
    closed, other = generated(model, tokenizer, CHATS[0], add_generation_prompt=False)
    # Mixtral's has no prompt for an answer.
    assert (closed == prompt) == (family.config == "Mixtral")
    assert ask(url, messages=CHATS[0], add_generation_prompt=False) == shown(tokenizer, other, ends)
    for with_prompt, without_special in itertools.product((True, False), repeat=2):
        ids = [*(prompt if with_prompt else ()), *made]
        expected = shown(tokenizer, ids, ends) if without_special else tokenizer.decode(ids)
        inputs = {"return_prompt": with_prompt, "skip_special_tokens": without_special}
        assert ask(url, messages=CHATS[0], **inputs) == expected


def test_log_probabilities_over_lmtp(served):
    _, model, tokenizer, url = served
    prompt, made = generated(model, tokenizer, CHATS[1])
    operations = (
        lmtp.ExtendedGenerate(prompt=tuple(prompt), stream_id=1, max_tokens=NEW),
        lmtp.Score(prompt=tuple(prompt), scored=tuple(made), stream_id=2),
    )
    answers = [reply for reply in replies(url, *operations) if hasattr(reply, "logprob")]
    expected = plain_logprobs(model, [*prompt, *made])[len(prompt) - 1 : -1]
    expected = expected.gather(-1, torch.tensor(made)[:, None])[:, 0].tolist()
    for stream in (1, 2):
        mine = [reply for reply in answers if reply.stream_id == stream]
        assert [reply.token for reply in mine] == made
        assert [reply.logprob for reply in mine] == pytest.approx(expected, abs=1e-4)


def test_what_a_template_says_of_a_system_message(served):
    family, model, tokenizer, url = served
    asked = {"messages": [USER], "system_prompt": SYSTEM["content"]}
    if family.no_system is None:
        _, made = generated(model, tokenizer, [SYSTEM, USER])
        assert ask(url, **asked) == shown(tokenizer, made, model.generation_config.eos_token_id)
        return
    for inputs in (asked, {"messages": [SYSTEM, USER]}):
        with pytest.raises(ClientError, match=f"refuses these messages: .*({family.no_system})"):
            ask(url, **inputs)


@pytest.mark.parametrize(
    ("task", "kind"), [("encoder", encoders.ENCODERS["bert"]), ("decoder", encoders.DECODERS["llama"])]
)
def test_a_model_s_hidden_states(task, kind, tmp_path):
    shape = kind()
    shape.vocab_size = 257
    model = encoders.save(shape, tmp_path / "checkpoint")
    tokenizer = byte_tokenizer(pad_token="[PAD]")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "config.toml").write_text(CONFIG.format(name=task) + f'task = "{task}"\n')
    (built,) = build(config.load(tmp_path / "config.toml"), reporter=Silent(), cache=tmp_path / "cache")
    texts = ["Why is the sky blue?", "Grüße"]
    states = [encoders.plain_states(model, tokenizer.encode(text))[1] for text in texts]
    with cog_process.running(built.folder) as server:

        def encoded(**inputs):
            return json.loads("".join(Prediction(server.url, {"texts": texts, **inputs}).chunks()))

        answer = encoded(layers="all", embedding=True)
        for place, plain in enumerate(states):
            found = [answer["embedding"][place], *(answer["layers"][str(i)][place] for i in range(len(plain) - 1))]
            for mine, wanted in zip(found, plain, strict=True):
                assert numpy.abs(numpy.array(mine) - wanted.numpy()).max() < CLOSE * max(1.0, wanted.abs().max().item())
        assert encoded(layers=[2, 0])["layers"] == {key: answer["layers"][key] for key in ("2", "0")}
        assert encoded(layers="2,0")["layers"] == encoded(layers=[0, 2])["layers"]
        assert encoded()["last_hidden_state"] == answer["layers"]["2"]
        with pytest.raises(ClientError, match=r"layers names 3, and this model's layers are 0 to 2"):
            encoded(layers=[3])
