"""Tiny random models and a way to run requests to their end."""

import contextlib
import threading

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from cogsmith.engine.loader import LoadedModel
from cogsmith.engine.request import FailedEvent, GenerateRequest
from cogsmith.engine.rows.choose import ALL
from cogsmith.engine.transformers_engine import TransformersEngine
from cogsmith.manifest import Limits

VOCAB = 199
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": None,
    "bos_token_id": 1,
}
"""What most configs of transformers call their sizes."""


def random_model(config, *, scale=8.0):
    """A float32 model whose weights are large enough for its log-probabilities to differ by whole units."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return model


def tiny_llama(**changes):
    return random_model(LlamaConfig(**{**SHAPE, **changes}))


def byte_tokenizer(**special):
    """One token per byte, so that every character beyond ASCII is cut between tokens; and `special` tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    byte_level.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=byte_level, **special)


def engine_over(model, tokenizer=None, *, back_ends=ALL, **limits):
    return TransformersEngine(LoadedModel("tiny", model, tokenizer), Limits(**limits), back_ends=back_ends)


class Stream:
    """A sink that remembers its events and can be waited for."""

    def __init__(self):
        self.events = []
        self._ended = threading.Event()
        self._arrived = threading.Condition()

    def __call__(self, events):
        with self._arrived:
            self.events.extend(events)
            self._arrived.notify_all()
        last = events[-1]
        if isinstance(last, FailedEvent) or getattr(last, "finish_reason", None) is not None:
            self._ended.set()

    def wait_for(self, count):
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.events) >= count, timeout=30)

    def result(self):
        assert self._ended.wait(60), "the stream did not end"
        return self.events

    @property
    def tokens(self):
        return [event.token for event in self.events]


def run(engine, *requests):
    """Submit all requests at once; return each one's events."""
    streams = [Stream() for _ in requests]
    for request, stream in zip(requests, streams, strict=True):
        engine.submit(request, stream)
    return [stream.result() for stream in streams]


_ONE_TOKEN = GenerateRequest((1,), 1)


@contextlib.contextmanager
def held(engine, request=_ONE_TOKEN):
    """Keep the engine's thread in a sink, so that all that is submitted meanwhile arrives for one step."""
    entered, released = threading.Event(), threading.Event()
    engine.submit(request, lambda events: (entered.set(), released.wait(60)))
    assert entered.wait(60)
    try:
        yield
    finally:
        released.set()


@torch.no_grad()
def plain_logprobs(model, ids):
    """The truth: one plain forward pass, float32 log-softmax; row i is the distribution after `ids[: i + 1]`."""
    logits = model(torch.tensor([list(ids)]), use_cache=False).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)
